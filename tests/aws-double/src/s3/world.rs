//! State of the server: buckets, objects with their versions, uploads, keys, and the settings of
//! its behaviour.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::time::{Duration, SystemTime};

use hyper::body::Bytes;
use s3s::{S3Result, s3_error};

use super::checksum::{self, Algorithm, Checksum, ChecksumKind};

/// The default owner of buckets.
pub const ACCOUNT: &str = "123456789012";

/// Properties of a bucket.
#[derive(Clone, Debug)]
pub struct BucketOptions {
    pub region: String,
    pub versioning: bool,
    /// Object Lock, which brings versioning with it.
    pub object_lock: bool,
    /// Whether its policy makes it public; none means no policy.
    pub policy_is_public: Option<bool>,
    /// Whether its access control list makes it public.
    pub acl_is_public: bool,
    /// All four settings of its public access block; none means no block.
    pub public_access_block: Option<bool>,
    /// The account that owns the bucket.
    pub owner: String,
}

impl Default for BucketOptions {
    fn default() -> Self {
        Self {
            region: "us-east-1".to_owned(),
            versioning: false,
            object_lock: false,
            policy_is_public: None,
            acl_is_public: false,
            public_access_block: None,
            owner: ACCOUNT.to_owned(),
        }
    }
}

/// Attributes of an object besides its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub user_metadata: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
    pub content_type: Option<String>,
    /// The storage class; none is `STANDARD`.
    pub storage_class: Option<String>,
    /// The encryption; none is `AES256`.
    pub sse: Option<String>,
    pub kms_key: Option<String>,
    /// Object Lock: mode and date.
    pub retention: Option<(String, String)>,
    pub legal_hold: bool,
}

/// Options of an object that a test adds without a request.
#[derive(Clone, Debug, Default)]
pub struct ObjectOptions {
    pub attributes: Attributes,
    /// None: an object from before S3 made checksums by default.
    pub checksum: Option<Algorithm>,
    /// The part size in bytes of a multipart upload; none is a single PUT.
    pub part_size: Option<usize>,
}

/// An object.
#[derive(Clone, Debug)]
pub struct StoredObject {
    pub bytes: Bytes,
    /// Without the quotes.
    pub etag: String,
    pub attributes: Attributes,
    pub checksum: Option<Checksum>,
    /// The sizes of its parts, if it was uploaded in parts.
    pub parts: Option<Vec<u64>>,
    pub version_id: Option<String>,
    pub modified: SystemTime,
    pub restore: Restore,
}

/// State of the restore of an archived object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restore {
    Never,
    /// In progress for this number of HeadObject requests.
    Ongoing(u32),
    Done,
}

impl Deref for StoredObject {
    type Target = Attributes;

    fn deref(&self) -> &Attributes {
        &self.attributes
    }
}

impl StoredObject {
    /// Changes one bit, and the checksum with it.
    fn damage(&mut self) {
        let mut bytes = self.bytes.to_vec();
        if let Some(byte) = bytes.first_mut() {
            *byte ^= 1;
        }
        self.bytes = bytes.into();
        let algorithm = self.checksum.as_ref().map(|checksum| checksum.algorithm);
        self.checksum = algorithm.map(|algorithm| Checksum::full(algorithm, &self.bytes));
    }

    /// Archived objects must be restored before they can be read.
    pub fn is_archived(&self) -> bool {
        matches!(self.storage_class.as_deref(), Some("GLACIER" | "DEEP_ARCHIVE"))
    }

    pub fn readable(&self) -> S3Result<()> {
        if self.is_archived() && self.restore != Restore::Done {
            return Err(s3_error!(
                InvalidObjectState,
                "The operation is not valid for the object's storage class"
            ));
        }
        Ok(())
    }
}

/// One version of a key.
#[derive(Clone, Debug)]
pub enum Version {
    Object(Box<StoredObject>),
    DeleteMarker(String),
}

impl Version {
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Object(object) => object.version_id.as_deref(),
            Self::DeleteMarker(id) => Some(id),
        }
    }
}

/// A part of an upload.
#[derive(Clone, Debug)]
pub struct PartInfo {
    pub bytes: Bytes,
    /// Without the quotes.
    pub etag: String,
    pub checksum: Option<(Algorithm, String)>,
    pub modified: SystemTime,
    pub(super) md5: [u8; 16],
}

impl PartInfo {
    pub fn new(bytes: Bytes, md5: [u8; 16], checksum: Option<(Algorithm, String)>) -> Self {
        Self { bytes, etag: checksum::hex(&md5), checksum, modified: SystemTime::now(), md5 }
    }
}

/// An upload that is neither completed nor aborted.
#[derive(Clone, Debug)]
pub struct Upload {
    pub attributes: Attributes,
    /// The checksum that CreateMultipartUpload names; none is left to S3.
    pub checksum: Option<(Algorithm, ChecksumKind)>,
    pub parts: BTreeMap<u32, PartInfo>,
    pub initiated: SystemTime,
    /// It conflicted with another write of its key, and can never be completed.
    pub conflicted: bool,
}

pub struct Bucket {
    pub options: BucketOptions,
    /// The versions of each key, the current one last.
    pub objects: BTreeMap<String, Vec<Version>>,
    /// By key and upload id, which is the order S3 lists them in.
    pub uploads: BTreeMap<(String, String), Upload>,
}

impl Bucket {
    pub fn is_versioned(&self) -> bool {
        self.options.versioning || self.options.object_lock
    }

    /// The current version of a key, if it is not deleted.
    pub fn current(&self, key: &str) -> Option<&StoredObject> {
        match self.objects.get(key)?.last()? {
            Version::Object(object) => Some(object),
            Version::DeleteMarker(_) => None,
        }
    }

    /// The current object or a version of it.
    pub fn object_mut(&mut self, key: &str, version: Option<&str>) -> S3Result<&mut StoredObject> {
        let versions = self.objects.get_mut(key).map(Vec::as_mut_slice).unwrap_or_default();
        let found = match version {
            None => versions.last_mut(),
            Some(id) => {
                let found =
                    versions.iter_mut().find(|version| version.id().unwrap_or("null") == id);
                Some(found.ok_or_else(|| {
                    s3_error!(NoSuchVersion, "The specified version does not exist.")
                })?)
            }
        };
        match found {
            Some(Version::Object(object)) => Ok(object),
            Some(Version::DeleteMarker(_)) if version.is_some() => Err(s3_error!(MethodNotAllowed)),
            _ => Err(s3_error!(NoSuchKey, "The specified key does not exist.")),
        }
    }

    pub fn upload_mut(&mut self, key: &str, id: &str) -> S3Result<&mut Upload> {
        let upload = self.uploads.get_mut(&(key.to_owned(), id.to_owned()));
        upload.ok_or_else(|| {
            s3_error!(
                NoSuchUpload,
                "The specified upload does not exist. The upload ID may be invalid, or the upload \
                 may have been aborted or completed."
            )
        })
    }
}

/// An access key.
#[derive(Clone, Debug)]
pub struct Key {
    pub secret: String,
    pub session_token: Option<String>,
    pub expired: bool,
}

/// Differences of servers that are not AWS.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quirks {
    /// `If-None-Match` is ignored: objects are overwritten.
    pub ignores_if_none_match: bool,
    /// Writes with a condition are refused (501).
    pub no_conditional_writes: bool,
    /// Checksums are neither compared nor stored nor returned.
    pub no_checksums: bool,
    /// Every header of checksums is refused (400).
    pub rejects_checksum_headers: bool,
    /// `If-Match` of a delete has no effect.
    pub ignores_delete_if_match: bool,
    /// One bit of every archive is wrong once it is stored.
    pub damages_archives: bool,
    /// CreateMultipartUpload with CRC64NVME is refused (501).
    pub rejects_checksum_algorithm: bool,
    /// Tags are refused (501).
    pub no_tagging: bool,
    /// UploadPartCopy is refused (501).
    pub no_part_copies: bool,
    /// ListParts is refused (501).
    pub no_list_parts: bool,
    /// A wrong Region gets the answer of a regional endpoint: 400 AuthorizationHeaderMalformed
    /// instead of 301.
    pub one_region: bool,
}

/// Limits of S3 that tests lower.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub min_part_size: u64,
    pub max_parts: u32,
    /// Entries in one answer of a listing.
    pub page_size: usize,
    /// HeadObject requests that find a restore in progress.
    pub restore_delay: u32,
}

/// State of the server.
pub struct World {
    pub buckets: BTreeMap<String, Bucket>,
    pub keys: BTreeMap<String, Key>,
    pub denied: BTreeSet<String>,
    pub quirks: Quirks,
    pub limits: Limits,
    pub latency: Duration,
    /// Seconds that the server's clock is ahead of the system clock.
    pub skew: i64,
    serial: u64,
}

impl World {
    pub fn new() -> Self {
        Self {
            buckets: BTreeMap::new(),
            keys: BTreeMap::new(),
            denied: BTreeSet::new(),
            quirks: Quirks::default(),
            limits: Limits {
                min_part_size: 5 << 20,
                max_parts: 10_000,
                page_size: 1000,
                restore_delay: 0,
            },
            latency: Duration::ZERO,
            skew: 0,
            serial: 0,
        }
    }

    /// A new unique name. Later names sort behind earlier names.
    pub fn unique(&mut self, what: &str) -> String {
        self.serial += 1;
        format!("{what}-{:010}", self.serial)
    }

    pub fn bucket(&mut self, name: &str) -> S3Result<&mut Bucket> {
        self.buckets
            .get_mut(name)
            .ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))
    }

    /// Time of the server's clock.
    pub fn now(&self) -> SystemTime {
        let skew = Duration::from_secs(self.skew.unsigned_abs());
        if self.skew < 0 { SystemTime::now() - skew } else { SystemTime::now() + skew }
    }

    /// Makes an object the current version of its key and returns the version id.
    pub fn store(
        &mut self,
        bucket: &str,
        key: &str,
        mut object: StoredObject,
    ) -> S3Result<Option<String>> {
        let version_id =
            if self.bucket(bucket)?.is_versioned() { Some(self.unique("version")) } else { None };
        object.version_id.clone_from(&version_id);
        if self.quirks.damages_archives && key.ends_with(".bin") {
            object.damage();
        }
        let versions = self.bucket(bucket)?.objects.entry(key.to_owned()).or_default();
        if version_id.is_none() {
            versions.clear();
        }
        versions.push(Version::Object(Box::new(object)));
        Ok(version_id)
    }
}
