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
        // The ARN of an access point has a slash of its own.
        let (bucket, key) = match rest.strip_prefix("arn:") {
            Some(arn) => match arn.split_once("accesspoint/") {
                Some((head, tail)) => {
                    let (name, key) = tail.split_once('/').unwrap_or((tail, ""));
                    (format!("arn:{head}accesspoint/{name}"), key)
                }
                None => (rest.to_owned(), ""),
            },
            None => {
                let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
                (bucket.to_owned(), key)
            }
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
        Some(Ok(Self { bucket, key: key.to_owned() }))
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

impl fmt::Display for S3Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        ] {
            assert_eq!(parse(url), (bucket.to_owned(), key.to_owned()));
        }
        assert!(S3Location::parse("s3://").expect("a URL").is_err());
        assert!(S3Location::parse("/path").is_none());
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
