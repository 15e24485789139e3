//! A bucket as a store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::types::{ChecksumMode, RequestPayer, ServerSideEncryption, StorageClass};

use super::super::error::{Failure, classify};
use super::S3Connection;
use super::checksum::Checksum;
use super::reader::S3Reader;
use super::writer::S3Writer;
use crate::base::{Error, ErrorKind, Result};
use crate::checkpoint::UploadState;
use crate::object::{Creation, Listed, ObjectReader, ObjectStore, ObjectWriter};

/// What is asked for with every object that is made, and with every request.
#[derive(Clone, Debug)]
pub struct ObjectOptions {
    /// Such as `STANDARD_IA` or `DEEP_ARCHIVE`; the bucket's default if absent.
    pub storage_class: Option<String>,
    /// Server-side encryption: `AES256`, `aws:kms` or `aws:kms:dsse`; the bucket's default if
    /// absent.
    pub sse: Option<String>,
    /// The key of `aws:kms`.
    pub sse_kms_key_id: Option<String>,
    /// The account that has to own the bucket.
    pub expected_bucket_owner: Option<String>,
    /// Whether the requester agrees to pay.
    pub request_payer: bool,
    /// The checksum that travels with parts; if absent CRC64NVME, or MD5 where stretches are
    /// written side by side.
    pub checksum: Option<Checksum>,
    /// Memory for parts, in bytes.
    pub part_memory: u64,
    /// Bytes of a part; planned from what is written if absent.
    pub part_size: Option<u64>,
    /// Stretches of an object that are written at a time, at most; if absent as many as there is
    /// memory for, where part numbers may have gaps.
    pub stretches_at_once: Option<usize>,
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
            stretches_at_once: None,
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

    /// The checksum of objects that are written front to back.
    pub(super) fn checksum(&self) -> Checksum {
        self.checksum.unwrap_or_default()
    }

    pub(super) fn class(&self) -> Option<StorageClass> {
        self.storage_class.as_deref().map(StorageClass::from)
    }

    pub(super) fn encryption(&self) -> Option<ServerSideEncryption> {
        self.sse.as_deref().map(ServerSideEncryption::from)
    }
}

/// A bucket. Keys are whole keys.
#[derive(Clone)]
pub struct S3Store {
    pub(super) link: S3Connection,
    pub(super) bucket: String,
    pub(super) options: ObjectOptions,
}

/// What HEAD says of an object.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    pub(super) len: u64,
    pub(super) etag: Option<String>,
    pub(super) storage_class: Option<String>,
    /// `x-amz-restore`, for objects in an archive tier.
    pub(super) restore: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
    /// Whether it is encrypted in a way in which ETags are no MD5 digests.
    pub(super) has_opaque_etag: bool,
    /// Checksums by name.
    pub(super) checksums: BTreeMap<&'static str, String>,
}

impl S3Store {
    /// The bucket `bucket` over `link`.
    pub fn new(link: S3Connection, bucket: impl Into<String>, options: ObjectOptions) -> Self {
        Self { link, bucket: bucket.into(), options }
    }

    /// The same bucket, with other wishes.
    #[must_use]
    pub fn with_options(self, options: ObjectOptions) -> Self {
        Self { options, ..self }
    }

    /// Whether stretches of an object are to be written side by side, as it is asked for. If
    /// nothing is: where part numbers may have gaps. Of S3 that is known, but for directory
    /// buckets; of other stores it is not.
    pub fn wants_side_by_side(&self) -> Result<bool> {
        let fits = matches!(self.options.checksum, None | Some(Checksum::Md5));
        match self.options.stretches_at_once {
            Some(0) => Err(Error::usage(
                "at least one volume has to go up at a time: --volumes-at-once has to be more than 0",
            )),
            Some(2..) if !fits => Err(Error::usage(
                "volumes are sent side by side with MD5 only, because their parts are numbered with gaps: name no other checksum, or ask for one volume at a time",
            )),
            Some(wanted) => Ok(wanted > 1),
            // With KMS, ETags are no MD5 digests, and with MD5 nothing would tell that the finished
            // object is what was sent.
            None if self.options.sse.as_deref().is_some_and(|kind| kind.starts_with("aws:kms")) => {
                Ok(false)
            }
            None => {
                Ok(fits && !self.link.endpoint().is_custom() && !self.bucket.ends_with("--x-s3"))
            }
        }
    }

    /// The connection.
    pub fn link(&self) -> &S3Connection {
        &self.link
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// What is asked for with every object.
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

    /// What HEAD says; an error of kind `NotFound` if there is no such object.
    pub(super) async fn head(&self, key: &str) -> Result<Head> {
        let make = |client: aws_sdk_s3::Client, _| {
            let request = client
                .head_object()
                .bucket(&self.bucket)
                .key(key)
                .checksum_mode(ChecksumMode::Enabled)
                .set_request_payer(self.options.payer())
                .set_expected_bucket_owner(self.options.owner());
            async move {
                request.send().await.map_err(|error| classify("cannot look at the object", error))
            }
        };
        let output = self.link.request(make).await.map_err(self.located(key))?;
        let checksums = [
            ("CRC64NVME", output.checksum_crc64_nvme()),
            ("CRC32C", output.checksum_crc32_c()),
            ("CRC32", output.checksum_crc32()),
            ("SHA256", output.checksum_sha256()),
        ];
        Ok(Head {
            len: output.content_length().and_then(|len| u64::try_from(len).ok()).unwrap_or(0),
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
            checksums: checksums
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?.to_owned())))
                .collect(),
        })
    }

    /// Fails with `Exists` if the object is there.
    pub(super) async fn refuse_existing(&self, key: &str) -> Result<()> {
        match self.head(key).await {
            Ok(_) => Err(self.located(key)(Error::new(ErrorKind::Exists, "the object exists"))),
            // Without the permission to list, S3 does not tell whether there is an object. The
            // condition on completion does.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Denied) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether there is such an object, frozen or not.
    pub fn exists(&self, key: &str) -> Result<bool> {
        match self.link.wait(self.head(key)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The tags of an object; none where the store knows no tags or does not show them.
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
        let output = self.link.wait(self.link.request(make)).map_err(self.located(key))?;
        Ok(output
            .tag_set()
            .iter()
            .map(|tag| (tag.key().to_owned(), tag.value().to_owned()))
            .collect())
    }
}

impl ObjectStore for S3Store {
    fn open(&self, key: &str) -> Result<Arc<dyn ObjectReader>> {
        Ok(Arc::new(S3Reader::open(self, key)?))
    }

    fn create(&self, key: &str, creation: Creation) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(S3Writer::create(self, key, creation)?))
    }

    fn abandon(&self, upload: &UploadState) -> Result<()> {
        let there = Self { bucket: upload.bucket.clone(), ..self.clone() };
        there.abort_upload(&upload.key, &upload.upload_id)
    }

    fn list(&self, prefix: &str, found: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        super::listing::list(self, prefix, found)
    }
}

/// The time of the SDK as the standard library's. Times before 1970 do not occur.
pub(super) fn system_time(time: &aws_sdk_s3::primitives::DateTime) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.secs()).unwrap_or(0))
}

/// A failure that has nothing to do with the connection.
pub(super) fn failed(error: Error) -> Failure {
    error.into()
}
