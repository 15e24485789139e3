//! A bucket: its connection, its options, and the requests about single objects.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_s3::types::{ChecksumMode, RequestPayer, ServerSideEncryption, StorageClass};

use super::super::error::{Failure, classify};
use super::S3Connection;
use super::checksum::Checksum;
use crate::base::{Error, ErrorKind, Result};

/// Options of every request to a bucket, and of every object that is created in it.
#[derive(Clone, Debug)]
pub struct ObjectOptions {
    /// Such as `STANDARD_IA` or `DEEP_ARCHIVE`; the bucket's default if absent.
    pub storage_class: Option<String>,
    /// Server-side encryption: `AES256`, `aws:kms` or `aws:kms:dsse`; the bucket's default if
    /// absent.
    pub sse: Option<String>,
    /// The key of `aws:kms`.
    pub sse_kms_key_id: Option<String>,
    /// Id of the account that has to own the bucket.
    pub expected_bucket_owner: Option<String>,
    /// Whether the requester agrees to pay.
    pub request_payer: bool,
    /// The checksum of parts; by default CRC64NVME, or MD5 in a parallel upload.
    pub checksum: Option<Checksum>,
    /// Memory for parts, in bytes.
    pub part_memory: u64,
    /// Bytes of a part; by default planned from the largest possible length of the object.
    pub part_size: Option<u64>,
    /// The largest number of segments that are uploaded in parallel. By default as many as
    /// `part_memory` suffices for, in stores that accept gaps between part numbers.
    pub parallel_segments: Option<usize>,
}

impl Default for ObjectOptions {
    fn default() -> Self {
        Self {
            storage_class: None,
            sse: None,
            sse_kms_key_id: None,
            expected_bucket_owner: None,
            request_payer: false,
            checksum: None,
            part_memory: 96 << 20,
            part_size: None,
            parallel_segments: None,
        }
    }
}

impl ObjectOptions {
    pub(super) fn payer(&self) -> Option<RequestPayer> {
        self.request_payer.then_some(RequestPayer::Requester)
    }

    pub(super) fn owner(&self) -> Option<String> {
        self.expected_bucket_owner.clone()
    }

    pub(super) fn class(&self) -> Option<StorageClass> {
        self.storage_class.as_deref().map(StorageClass::from)
    }

    pub(super) fn encryption(&self) -> Option<ServerSideEncryption> {
        self.sse.as_deref().map(ServerSideEncryption::from)
    }
}

/// A bucket. Keys are complete keys, without an implied prefix.
#[derive(Clone)]
pub struct S3Store {
    pub(super) connection: S3Connection,
    pub(super) bucket: String,
    pub(super) options: ObjectOptions,
    pub(super) observed: Arc<Observed>,
}

/// Behaviour of a store that requests have shown. Clones of an [`S3Store`] share it.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// HeadObject succeeded without checksum mode after it had been refused with it.
    pub(super) refuses_checksum_mode: AtomicBool,
    /// A probe object was protected by `If-None-Match`.
    pub(super) honours_if_none_match: AtomicBool,
}

/// The answer of HeadObject.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    /// `None` if the answer has no length: it is not zero.
    pub(super) len: Option<u64>,
    pub(super) etag: Option<String>,
    pub(super) storage_class: Option<String>,
    /// `x-amz-restore`, for objects in an archive tier.
    pub(super) restore: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
    /// True if KMS or a customer's key encrypts the object: its ETag is no MD5 digest.
    pub(super) has_opaque_etag: bool,
    /// `aws:kms` or `aws:kms:dsse`, and the key, if KMS encrypts the object.
    pub(super) kms: Option<(String, Option<String>)>,
    /// Checksums by name of the algorithm.
    pub(super) checksums: BTreeMap<&'static str, String>,
}

/// The error for an answer without the length of the object.
pub(super) fn no_length() -> Error {
    Error::new(ErrorKind::Io, "the answer of the store has no length of the object")
}

impl S3Store {
    /// The bucket `bucket` over `connection`.
    pub fn new(
        connection: S3Connection,
        bucket: impl Into<String>,
        options: ObjectOptions,
    ) -> Self {
        Self { connection, bucket: bucket.into(), options, observed: Arc::default() }
    }

    /// Replaces the options.
    #[must_use]
    pub fn with_options(self, options: ObjectOptions) -> Self {
        Self { options, ..self }
    }

    /// Whether the options ask for a parallel upload. By default only where gaps between part
    /// numbers are known to be accepted: in S3, but not in directory buckets or other stores.
    pub fn wants_parallel(&self) -> Result<bool> {
        let fits = matches!(self.options.checksum, None | Some(Checksum::Md5));
        match self.options.parallel_segments {
            Some(0) => Err(Error::usage(
                "at least one volume has to be sent at a time: --volumes-at-once has to be more \
                 than 0",
            )),
            Some(2..) if !fits => Err(Error::usage(
                "volumes are sent in parallel with MD5 only, because their parts are numbered with \
                 gaps: name no other checksum, or ask for one volume at a time",
            )),
            Some(segments) => Ok(segments > 1),
            // With KMS, ETags are no MD5 digests, and MD5 could not check the finished object.
            None if self.options.sse.as_deref().is_some_and(|kind| kind.starts_with("aws:kms")) => {
                Ok(false)
            }
            None => Ok(fits
                && !self.connection.endpoint().is_custom()
                && !self.bucket.ends_with("--x-s3")),
        }
    }

    /// The checksum of objects that are written front to back. With
    /// `AWS_REQUEST_CHECKSUM_CALCULATION=when_required` it is MD5, which every store knows.
    pub(super) fn checksum(&self) -> Checksum {
        let default = || {
            if self.connection.sends_checksums() { Checksum::default() } else { Checksum::Md5 }
        };
        self.options.checksum.unwrap_or_else(default)
    }

    /// The connection.
    pub fn connection(&self) -> &S3Connection {
        &self.connection
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The options.
    pub fn options(&self) -> &ObjectOptions {
        &self.options
    }

    pub(super) fn url(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket)
    }

    pub(super) fn located(&self, key: &str) -> impl Fn(Error) -> Error + use<> {
        let url = self.url(key);
        move |error| error.at("object", &url)
    }

    /// The options that are fixed when an upload begins, as text: storage class, encryption, tags.
    pub(super) fn upload_options(&self, tags: Option<&str>) -> String {
        let options = &self.options;
        let parts = [
            options.storage_class.as_deref(),
            options.sse.as_deref(),
            options.sse_kms_key_id.as_deref(),
            tags,
        ];
        parts.map(|part| part.unwrap_or("-")).join(" ")
    }

    /// Sends HeadObject; an error of kind `NotFound` if the object does not exist. Some stores
    /// refuse the header that requests checksums: then it is repeated without the header.
    pub(super) async fn head(&self, key: &str) -> Result<Head> {
        let refuses_mode = &self.observed.refuses_checksum_mode;
        let make = |client: aws_sdk_s3::Client, _| {
            let with_mode =
                self.connection.requests_checksums() && !refuses_mode.load(Ordering::Relaxed);
            let request = client
                .head_object()
                .bucket(&self.bucket)
                .key(key)
                .set_request_payer(self.options.payer())
                .set_expected_bucket_owner(self.options.owner());
            async move {
                let doing = "cannot look at the object";
                if !with_mode {
                    return request.send().await.map_err(|error| classify(doing, error));
                }
                let refused =
                    match request.clone().checksum_mode(ChecksumMode::Enabled).send().await {
                        Err(error) if error.raw_response().is_some_and(is_about_a_header) => error,
                        answer => return answer.map_err(|error| classify(doing, error)),
                    };
                let Ok(output) = request.send().await else {
                    return Err(classify(doing, refused));
                };
                refuses_mode.store(true, Ordering::Relaxed);
                Ok(output)
            }
        };
        let output = self.connection.request(make).await.map_err(self.located(key))?;
        let checksums = [
            ("CRC64NVME", output.checksum_crc64_nvme()),
            ("CRC32C", output.checksum_crc32_c()),
            ("CRC32", output.checksum_crc32()),
            ("SHA256", output.checksum_sha256()),
        ];
        Ok(Head {
            len: output.content_length().and_then(|len| u64::try_from(len).ok()),
            etag: output.e_tag().map(ToOwned::to_owned),
            storage_class: output.storage_class().map(|class| class.as_str().to_owned()),
            restore: output.restore().map(ToOwned::to_owned),
            metadata: output
                .metadata()
                .into_iter()
                .flatten()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            has_opaque_etag: output
                .server_side_encryption()
                .is_some_and(|kind| *kind != ServerSideEncryption::Aes256),
            kms: output
                .server_side_encryption()
                .map(|kind| kind.as_str().to_owned())
                .filter(|kind| kind.starts_with("aws:kms"))
                .map(|kind| (kind, output.ssekms_key_id().map(ToOwned::to_owned))),
            checksums: checksums
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?.to_owned())))
                .collect(),
        })
    }

    /// Whether the object exists, in any storage class.
    pub fn exists(&self, key: &str) -> Result<bool> {
        match self.connection.wait(self.head(key)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The tags of an object.
    pub fn tags(&self, key: &str) -> Result<BTreeMap<String, String>> {
        let make = |client: aws_sdk_s3::Client, _| {
            let request = client
                .get_object_tagging()
                .bucket(&self.bucket)
                .key(key)
                .set_request_payer(self.options.payer())
                .set_expected_bucket_owner(self.options.owner());
            async move {
                request
                    .send()
                    .await
                    .map_err(|error| classify("cannot read the tags of the object", error))
            }
        };
        let output =
            self.connection.wait(self.connection.request(make)).map_err(self.located(key))?;
        Ok(output
            .tag_set()
            .iter()
            .map(|tag| (tag.key().to_owned(), tag.value().to_owned()))
            .collect())
    }
}

/// Whether the refusal of a HeadObject, which has no body, may be due to a header.
fn is_about_a_header(response: &aws_sdk_s3::config::http::HttpResponse) -> bool {
    matches!(response.status().as_u16(), 400 | 501)
}

/// Converts the SDK's time. Times before 1970 do not occur.
pub(super) fn system_time(time: &aws_sdk_s3::primitives::DateTime) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.secs()).unwrap_or(0))
}

/// A failure that is not due to the connection.
pub(super) fn failed(error: Error) -> Failure {
    error.into()
}
