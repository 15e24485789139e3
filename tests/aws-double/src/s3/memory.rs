//! The operations, as the protocol calls them; `buckets`, `objects` and `uploads` implement them.

use std::collections::BTreeMap;
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::Bytes;
use hyper::{HeaderMap, StatusCode};
use s3s::dto::*;
use s3s::{
    Body, S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, TrailingHeaders, s3_error,
};

use super::super::wire::percent_decoded;
use super::Shared;
use super::world::{Attributes, Quirks, StoredObject, World};

/// Bytes of names and values of user metadata.
const MAX_METADATA: usize = 2 << 10;
const MAX_TAGS: usize = 10;
const STORAGE_CLASSES: [&str; 7] = [
    "STANDARD",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER_IR",
    "GLACIER",
    "DEEP_ARCHIVE",
];

/// S3 in memory.
pub struct Memory(pub Arc<Shared>);

/// Puts a checksum into the field of its algorithm in an answer.
macro_rules! with_checksum {
    ($answer:expr, $checksum:expr) => {{
        let (mut answer, checksum): (_, Option<($crate::s3::Algorithm, String)>) =
            ($answer, $checksum);
        if let Some((algorithm, value)) = checksum {
            match algorithm {
                $crate::s3::Algorithm::Crc64Nvme => answer.checksum_crc64nvme = Some(value),
                $crate::s3::Algorithm::Crc32 => answer.checksum_crc32 = Some(value),
                $crate::s3::Algorithm::Crc32c => answer.checksum_crc32c = Some(value),
                $crate::s3::Algorithm::Sha1 => answer.checksum_sha1 = Some(value),
                $crate::s3::Algorithm::Sha256 => answer.checksum_sha256 = Some(value),
            }
        }
        answer
    }};
}
pub(super) use with_checksum;

/// The body of an upload with its headers and trailers.
pub struct Upload {
    pub bytes: Bytes,
    pub headers: HeaderMap,
    pub trailers: Option<TrailingHeaders>,
}

impl Upload {
    async fn read(
        body: Option<StreamingBlob>,
        headers: HeaderMap,
        trailers: Option<TrailingHeaders>,
    ) -> S3Result<Self> {
        let body = Body::from(body.unwrap_or_else(|| Body::empty().into()));
        // Only the text distinguishes these errors.
        let refused = |cause: s3s::StdError| match cause.to_string() {
            text if text.contains("SignatureMismatch") => {
                s3_error!(SignatureDoesNotMatch, "The signature of a chunk does not match: {text}")
            }
            text if text.contains("Incomplete") => s3_error!(IncompleteBody, "{text}"),
            text => s3_error!(InvalidRequest, "{text}"),
        };
        Ok(Self { bytes: body.collect().await.map_err(refused)?.to_bytes(), headers, trailers })
    }
}

/// An error that s3s has no name for.
pub fn custom(code: &'static str, status: StatusCode, message: &'static str) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(code.into()), message);
    error.set_status_code(status);
    error
}

/// Attributes of an object from the headers of a write.
pub fn attributes(
    headers: &HeaderMap,
    metadata: Option<Metadata>,
    world: &World,
) -> S3Result<Attributes> {
    let header = |name: &str| {
        headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let user_metadata: BTreeMap<String, String> =
        metadata.unwrap_or_default().into_iter().collect();
    if user_metadata.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
        > MAX_METADATA
    {
        return Err(s3_error!(
            MetadataTooLarge,
            "Your metadata headers exceed the maximum allowed metadata size"
        ));
    }
    let storage_class = header("x-amz-storage-class");
    if storage_class.as_deref().is_some_and(|class| !STORAGE_CLASSES.contains(&class)) {
        return Err(s3_error!(InvalidStorageClass, "The storage class you specified is not valid"));
    }
    let sse = header("x-amz-server-side-encryption");
    if sse.as_deref().is_some_and(|sse| !["AES256", "aws:kms", "aws:kms:dsse"].contains(&sse)) {
        return Err(s3_error!(InvalidArgument, "The encryption method specified is not supported"));
    }
    let lock = header("x-amz-object-lock-mode").zip(header("x-amz-object-lock-retain-until-date"));
    Ok(Attributes {
        user_metadata,
        tags: header("x-amz-tagging")
            .map(|tags| parse_tags(&tags, world.quirks))
            .transpose()?
            .unwrap_or_default(),
        content_type: header("content-type"),
        storage_class,
        sse,
        kms_key: header("x-amz-server-side-encryption-aws-kms-key-id"),
        retention: lock,
        legal_hold: header("x-amz-object-lock-legal-hold").as_deref() == Some("ON"),
    })
}

/// `a=b&c=d`.
fn parse_tags(text: &str, quirks: Quirks) -> S3Result<BTreeMap<String, String>> {
    let decoded = |text: &str| percent_decoded(&text.replace('+', " "));
    let pairs = text
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    checked_tags(pairs.map(|(key, value)| (decoded(key), decoded(value))).collect(), quirks)
}

pub fn checked_tags(
    tags: Vec<(String, String)>,
    quirks: Quirks,
) -> S3Result<BTreeMap<String, String>> {
    if quirks.no_tagging {
        return Err(s3_error!(
            NotImplemented,
            "A header you provided implies functionality that is not implemented"
        ));
    }
    if tags.len() > MAX_TAGS {
        return Err(custom(
            "BadRequest",
            StatusCode::BAD_REQUEST,
            "Object tags cannot be greater than 10",
        ));
    }
    let count = tags.len();
    let map: BTreeMap<String, String> = tags.into_iter().collect();
    let short = |(key, value): (&String, &String)| {
        !key.is_empty() && key.chars().count() <= 128 && value.chars().count() <= 256
    };
    if map.len() < count || !map.iter().all(short) {
        return Err(s3_error!(InvalidTag, "The tag provided was not a valid tag."));
    }
    Ok(map)
}

/// Refuses a write whose condition does not hold.
pub fn may_write(
    current: Option<&StoredObject>,
    if_none_match: Option<&IfNoneMatch>,
    if_match: Option<&IfMatch>,
    quirks: Quirks,
) -> S3Result<()> {
    let conditional = if_none_match.is_some() || if_match.is_some();
    if conditional && quirks.no_conditional_writes {
        return Err(s3_error!(
            NotImplemented,
            "A header you provided implies functionality that is not implemented"
        ));
    }
    let failed = || {
        s3_error!(
            PreconditionFailed,
            "At least one of the pre-conditions you specified did not hold"
        )
    };
    match if_none_match {
        Some(condition) if !condition.is_any() => {
            return Err(s3_error!(
                NotImplemented,
                "A header you provided implies functionality that is not implemented"
            ));
        }
        Some(_) if current.is_some() && !quirks.ignores_if_none_match => return Err(failed()),
        _ => {}
    }
    match (if_match, current) {
        (Some(_), None) => Err(s3_error!(NoSuchKey, "The specified key does not exist.")),
        (Some(condition), Some(object)) if !matches_etag(condition, &object.etag) => Err(failed()),
        _ => Ok(()),
    }
}

pub fn matches_etag(condition: &ETagCondition, etag: &str) -> bool {
    condition.is_any() || condition.as_etag().is_some_and(|expected| expected.value() == etag)
}

pub fn etag(value: &str) -> Option<ETag> {
    Some(ETag::Strong(value.to_owned()))
}

fn plain<T>(output: T) -> S3Result<S3Response<T>> {
    Ok(S3Response::new(output))
}

#[async_trait::async_trait]
impl S3 for Memory {
    async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        plain(self.head_bucket(&request.input.bucket)?)
    }

    async fn create_bucket(
        &self,
        request: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        plain(self.create_bucket(request.input)?)
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        plain(self.get_bucket_location(&request.input.bucket)?)
    }

    async fn get_bucket_versioning(
        &self,
        request: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        plain(self.get_bucket_versioning(&request.input.bucket)?)
    }

    async fn get_object_lock_configuration(
        &self,
        request: S3Request<GetObjectLockConfigurationInput>,
    ) -> S3Result<S3Response<GetObjectLockConfigurationOutput>> {
        plain(self.get_object_lock_configuration(&request.input.bucket)?)
    }

    async fn get_bucket_policy_status(
        &self,
        request: S3Request<GetBucketPolicyStatusInput>,
    ) -> S3Result<S3Response<GetBucketPolicyStatusOutput>> {
        plain(self.get_bucket_policy_status(&request.input.bucket)?)
    }

    async fn get_public_access_block(
        &self,
        request: S3Request<GetPublicAccessBlockInput>,
    ) -> S3Result<S3Response<GetPublicAccessBlockOutput>> {
        plain(self.get_public_access_block(&request.input.bucket)?)
    }

    async fn get_bucket_acl(
        &self,
        request: S3Request<GetBucketAclInput>,
    ) -> S3Result<S3Response<GetBucketAclOutput>> {
        plain(self.get_bucket_acl(&request.input.bucket)?)
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        plain(self.list_objects_v2(request.input)?)
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        self.head_object(request.input)
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        self.get_object(request.input)
    }

    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let mut input = request.input;
        let upload =
            Upload::read(input.body.take(), request.headers, request.trailing_headers).await?;
        plain(self.put_object(input, upload)?)
    }

    async fn copy_object(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        plain(self.copy_object(request.input, &request.headers)?)
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        plain(self.delete_object(request.input)?)
    }

    async fn get_object_tagging(
        &self,
        request: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        plain(self.get_object_tagging(request.input)?)
    }

    async fn put_object_tagging(
        &self,
        request: S3Request<PutObjectTaggingInput>,
    ) -> S3Result<S3Response<PutObjectTaggingOutput>> {
        plain(self.put_object_tagging(request.input)?)
    }

    async fn restore_object(
        &self,
        request: S3Request<RestoreObjectInput>,
    ) -> S3Result<S3Response<RestoreObjectOutput>> {
        self.restore_object(request.input)
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        plain(self.create_multipart_upload(request.input, &request.headers)?)
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let mut input = request.input;
        let upload =
            Upload::read(input.body.take(), request.headers, request.trailing_headers).await?;
        plain(self.upload_part(input, upload)?)
    }

    async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        plain(self.upload_part_copy(request.input)?)
    }

    async fn list_parts(
        &self,
        request: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        plain(self.list_parts(request.input)?)
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        plain(self.list_multipart_uploads(request.input)?)
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        plain(self.abort_multipart_upload(request.input)?)
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        plain(self.complete_multipart_upload(request.input, &request.headers)?)
    }
}
