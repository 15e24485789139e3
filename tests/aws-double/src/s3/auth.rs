//! Secrets for signatures, and authorization of requests with a valid signature.

use std::sync::Arc;

use hyper::HeaderMap;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::path::S3Path;
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::Shared;
use super::router::Operation;

/// Gives secret keys to the signature check of s3s.
pub struct Keys(pub Arc<Shared>);

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let world = self.0.world();
        match world.keys.get(access_key) {
            None => Err(s3_error!(
                InvalidAccessKeyId,
                "The AWS Access Key Id you provided does not exist in our records."
            )),
            Some(key) if key.expired => {
                Err(s3_error!(ExpiredToken, "The provided token has expired."))
            }
            Some(key) => Ok(key.secret.as_str().into()),
        }
    }
}

/// Authorizes requests with a valid signature.
pub struct Access(pub Arc<Shared>);

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let logged = context.extensions_mut().remove::<Operation>();
        let Some(credentials) = context.credentials() else {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        };
        let mut world = self.0.world();
        let header = |name| context.headers().get(name).and_then(|value| value.to_str().ok());
        let expected =
            world.keys.get(&credentials.access_key).and_then(|key| key.session_token.as_deref());
        if expected != header("x-amz-security-token") {
            return Err(s3_error!(
                InvalidToken,
                "The provided token is malformed or otherwise invalid."
            ));
        }
        let operation = context.s3_op().name();
        if let Some(Operation(logged)) = logged
            && logged != operation
        {
            return Err(s3_error!(InternalError, "{operation} was logged as {logged}"));
        }
        if world.denied.contains(operation) {
            let mut error = s3_error!(AccessDenied, "Access Denied");
            // A refused HeadBucket still names the Region of the bucket.
            if let (S3Path::Bucket { bucket }, "HeadBucket") = (context.s3_path(), operation) {
                let region =
                    world.buckets.get(&**bucket).map(|bucket| bucket.options.region.clone());
                region.into_iter().for_each(|region| add_region_header(&mut error, &region));
            }
            return Err(error);
        }
        let (S3Path::Bucket { bucket } | S3Path::Object { bucket, .. }) = context.s3_path() else {
            return Ok(());
        };
        if operation == "CreateBucket" {
            return Ok(());
        }
        let one_region = world.quirks.one_region;
        let options = &world.bucket(bucket)?.options;
        let region = signing_region(context.headers());
        if operation != "GetBucketLocation" && region.is_some_and(|region| region != options.region)
        {
            return Err(wrong_region(&options.region, one_region));
        }
        let owner = header("x-amz-expected-bucket-owner");
        if owner.is_some_and(|owner| owner != options.owner) {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        }
        Ok(())
    }
}

/// The region in `Credential=KEY/DATE/REGION/s3/aws4_request`.
fn signing_region(headers: &HeaderMap) -> Option<&str> {
    credential(headers)?.split('/').nth(2)
}

/// The access key in the `Authorization` header.
pub fn access_key(headers: &HeaderMap) -> Option<&str> {
    credential(headers)?.split('/').next()
}

fn credential(headers: &HeaderMap) -> Option<&str> {
    let authorization = headers.get("authorization")?.to_str().ok()?;
    authorization.split_once("Credential=")?.1.split(',').next()
}

fn wrong_region(region: &str, one_region: bool) -> S3Error {
    let mut error = if one_region {
        s3_error!(
            AuthorizationHeaderMalformed,
            "The authorization header is malformed; the region is wrong; expecting '{region}'"
        )
    } else {
        let message = "The bucket you are attempting to access must be addressed using the \
                       specified endpoint.";
        S3Error::with_message(S3ErrorCode::PermanentRedirect, message)
    };
    add_region_header(&mut error, region);
    error
}

fn add_region_header(error: &mut S3Error, region: &str) {
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-bucket-region", region.parse().expect("a region is a header value"));
    error.set_headers(headers);
}
