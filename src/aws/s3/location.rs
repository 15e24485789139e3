//! `s3://bucket/prefix/key`.

use std::fmt;

use crate::base::{Error, Result};

/// A location in S3: a bucket, and a key or a prefix that ends with `/` or is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Location {
    /// The bucket, or the ARN or alias of an access point.
    pub bucket: String,
    /// The key, or a prefix.
    pub key: String,
}

impl S3Location {
    /// Parses an `s3://` URL; `None` for another scheme.
    pub fn parse(url: &str) -> Option<Result<Self>> {
        let rest = url.strip_prefix("s3://")?;
        let (bucket, key) = if rest.starts_with("arn:") {
            match split_arn(rest) {
                Ok(parts) => parts,
                Err(error) => return Some(Err(error.at("given", url))),
            }
        } else {
            rest.split_once('/').unwrap_or((rest, ""))
        };
        if bucket.is_empty() || bucket.contains(char::is_whitespace) {
            return Some(Err(Error::usage(
                "not an S3 URL: s3://BUCKET, s3://BUCKET/PREFIX/ or s3://BUCKET/KEY",
            )
            .at("given", url)));
        }
        if key.len() > 1024 {
            return Some(
                Err(Error::usage("an object key has at most 1024 bytes").at("given", url)),
            );
        }
        Some(Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() }))
    }

    /// True for a prefix, to which the name of an archive is appended.
    pub fn is_prefix(&self) -> bool {
        self.key.is_empty() || self.key.ends_with('/')
    }

    /// The key of the archive: the given key, or `name` below the prefix.
    pub fn object(&self, name: &str) -> Self {
        let key = if self.is_prefix() { format!("{}{name}", self.key) } else { self.key.clone() };
        Self { bucket: self.bucket.clone(), key }
    }
}

/// The ARN of an access point, and the key behind it. Between the words of the resource are slashes
/// or colons: `accesspoint/NAME`, `accesspoint:NAME`, `outpost/ID/accesspoint/NAME`.
fn split_arn(text: &str) -> Result<(&str, &str)> {
    let wrong = || {
        Error::usage(
            "not the ARN of an access point: arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME/KEY; \
             a bucket is given by its name",
        )
    };
    // arn, partition, service, Region, account, resource.
    let fields: Vec<&str> = text.splitn(6, ':').collect();
    let [_, _, service, region, _, resource] = fields[..] else { return Err(wrong()) };
    // The kind of the resource, its name, and on an Outpost those of the access point.
    let words = match resource.split([':', '/']).next() {
        Some("accesspoint") => 2,
        Some("outpost") if service == "s3-outposts" => 4,
        _ => return Err(wrong()),
    };
    let end = resource
        .match_indices([':', '/'])
        .nth(words - 1)
        .map_or(resource.len(), |(separator, _)| separator);
    let names = resource[..end].split([':', '/']);
    let is_access_point = names.clone().nth(words - 2) == Some("accesspoint");
    if !is_access_point || names.clone().count() < words || names.clone().any(str::is_empty) {
        return Err(wrong());
    }
    if region.is_empty() {
        return Err(Error::unsupported(
            "access points of several Regions need signatures by SigV4A: \
             give an access point or bucket of one Region",
        ));
    }
    let arn = &text[..text.len() - resource.len() + end];
    Ok((arn, text[arn.len()..].strip_prefix(['/', ':']).unwrap_or_default()))
}

impl fmt::Display for S3Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;

    fn parse(url: &str) -> (String, String) {
        let location = S3Location::parse(url).expect("a URL").expect("a location");
        (location.bucket, location.key)
    }

    #[test]
    fn a_url_is_a_bucket_and_a_key() {
        for (url, bucket, key) in [
            ("s3://bucket", "bucket", ""),
            ("s3://bucket/", "bucket", ""),
            ("s3://bucket/a/b/", "bucket", "a/b/"),
            ("s3://bucket/a/ami.bin", "bucket", "a/ami.bin"),
            (
                "s3://arn:aws:s3:us-east-1:1:accesspoint/ap/k/e",
                "arn:aws:s3:us-east-1:1:accesspoint/ap",
                "k/e",
            ),
            (
                "s3://arn:aws:s3:us-east-1:1:accesspoint:ap/k/e:y",
                "arn:aws:s3:us-east-1:1:accesspoint:ap",
                "k/e:y",
            ),
            (
                "s3://arn:aws-us-gov:s3:us-gov-west-1:1:accesspoint/ap",
                "arn:aws-us-gov:s3:us-gov-west-1:1:accesspoint/ap",
                "",
            ),
            (
                "s3://arn:aws:s3-outposts:us-east-1:1:outpost:op-1:accesspoint:ap/k",
                "arn:aws:s3-outposts:us-east-1:1:outpost:op-1:accesspoint:ap",
                "k",
            ),
            (
                "s3://arn:aws:s3-outposts:us-east-1:1:outpost/op-1/accesspoint/ap/accesspoint/k",
                "arn:aws:s3-outposts:us-east-1:1:outpost/op-1/accesspoint/ap",
                "accesspoint/k",
            ),
        ] {
            assert_eq!(parse(url), (bucket.to_owned(), key.to_owned()));
            assert_eq!(parse(&format!("s3://{bucket}/{key}")).0, bucket);
        }
        assert!(S3Location::parse("s3://").expect("a URL").is_err());
        assert!(S3Location::parse("/path").is_none());
    }

    #[test]
    fn an_arn_that_names_no_access_point_of_one_region_is_refused_before_any_request() {
        for (arn, kind) in [
            ("arn:aws:s3:::bucket/key", ErrorKind::Usage),
            ("arn:aws:s3:us-east-1:1:accesspoint", ErrorKind::Usage),
            ("arn:aws:s3:us-east-1:1:accesspoint/", ErrorKind::Usage),
            ("arn:aws:s3:us-east-1:1:outpost/op-1/accesspoint/ap", ErrorKind::Usage),
            ("arn:aws:s3-outposts:us-east-1:1:outpost/op-1/k", ErrorKind::Usage),
            ("arn:aws:s3-outposts:us-east-1:1:outpost/op-1/k/accesspoint", ErrorKind::Usage),
            ("arn:aws:s3:us-east-1", ErrorKind::Usage),
            ("arn:", ErrorKind::Usage),
            ("arn:aws:s3::1:accesspoint/mfzwi23gnjvgw.mrap/key", ErrorKind::Unsupported),
        ] {
            let parsed = S3Location::parse(&format!("s3://{arn}")).expect("a URL");
            assert_eq!(parsed.expect_err(arn).kind(), kind, "{arn}");
        }
    }

    #[test]
    fn a_prefix_stands_for_an_archive_below_it() {
        let at = |url: &str| {
            S3Location::parse(url)
                .expect("a URL")
                .expect("a location")
                .object("ami.bin")
                .to_string()
        };
        assert_eq!(at("s3://b"), "s3://b/ami.bin");
        assert_eq!(at("s3://b/p/"), "s3://b/p/ami.bin");
        assert_eq!(at("s3://b/p"), "s3://b/p");
    }
}
