//! An S3 in memory that behaves like that of AWS, for tests.
//!
//! It listens on a port of this machine. The crate `s3s` has the protocol (XML, signatures, chunked
//! uploads), and this module the state and the behaviour:
//!
//! * `world` is the state, `memory` the operations, which are implemented in `buckets`, `objects`
//!   and `uploads`;
//! * `checksum` has the checksums, `auth` the authorization;
//! * `router` takes each request: logs it, injects `faults`, and hands it to the protocol.
//!
//! It has the operations that a store of archives needs, and no more: no lists of versions or
//! buckets, no `DeleteObjects`, no access points, no SSE-C, no policies except whether they are
//! public. Objects, requests and answers are in memory as a whole.
//!
//! Known to differ from AWS: a ranged read never carries a checksum; redirects name the Region in a
//! header and not in XML; key names in lists are not URL-encoded on request; lists of uploads know
//! no delimiter; a completed upload is forgotten at once; the dates of presigned URLs are checked
//! by the system clock.

mod auth;
mod buckets;
mod checksum;
mod faults;
mod memory;
mod objects;
mod router;
mod uploads;
mod world;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::body::Bytes;
use s3s::S3Result;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::crypto::{Checksum as _, Md5};
use s3s::service::S3ServiceBuilder;

pub use checksum::{Algorithm, Checksum, ChecksumKind};
pub use faults::{Call, Fault, FaultKind, When};
pub use world::{
    Attributes, BucketOptions, Limits, ObjectOptions, PartInfo, Quirks, Restore, StoredObject,
};

use faults::CallLog;
use world::{Bucket, Key, World};

use super::aws::{Buckets, Object};
use super::wire::Server;

type Shared = super::shared::Shared<World, CallLog>;

impl Shared {
    fn object(&self, bucket: &str, key: &str) -> Option<StoredObject> {
        self.world().buckets.get(bucket)?.current(key).cloned()
    }

    fn put_object(
        &self,
        bucket: &str,
        key: &str,
        bytes: Bytes,
        options: ObjectOptions,
    ) -> S3Result<()> {
        let parts: Option<Vec<Bytes>> = options
            .part_size
            .map(|size| bytes.chunks(size).map(|part| bytes.slice_ref(part)).collect());
        let etag = match &parts {
            None => checksum::hex(&Md5::checksum(&bytes)),
            Some(parts) => {
                let all: Vec<u8> = parts.iter().flat_map(|part| Md5::checksum(part)).collect();
                format!("{}-{}", checksum::hex(&Md5::checksum(&all)), parts.len())
            }
        };
        let object = StoredObject {
            etag,
            attributes: options.attributes,
            checksum: options.checksum.map(|algorithm| Checksum::full(algorithm, &bytes)),
            parts: parts.map(|parts| parts.iter().map(|part| part.len() as u64).collect()),
            bytes,
            version_id: None,
            modified: SystemTime::now(),
            restore: Restore::Never,
        };
        self.world().store(bucket, key, object).map(drop)
    }
}

/// Store tasks of EC2 write their objects here.
impl Buckets for Shared {
    fn region(&self, bucket: &str) -> Option<String> {
        self.world().buckets.get(bucket).map(|bucket| bucket.options.region.clone())
    }

    fn get(&self, bucket: &str, key: &str) -> Result<Option<Bytes>, String> {
        let Some(object) = self.object(bucket, key) else { return Ok(None) };
        object.readable().map_err(|cause| cause.to_string())?;
        Ok(Some(object.bytes))
    }

    fn put(&self, bucket: &str, key: &str, object: Object) -> Result<(), String> {
        let attributes = Attributes {
            user_metadata: object.metadata,
            tags: object.tags,
            content_type: Some("application/octet-stream".to_owned()),
            ..Attributes::default()
        };
        // S3 makes this checksum for clients that send none.
        let options = ObjectOptions {
            attributes,
            part_size: Some(16 << 20),
            checksum: Some(Algorithm::Crc64Nvme),
        };
        self.put_object(bucket, key, object.bytes, options).map_err(|cause| cause.to_string())
    }
}

/// An upload that is neither completed nor aborted.
#[derive(Clone, Debug)]
pub struct OpenUpload {
    pub key: String,
    pub upload_id: String,
    pub attributes: Attributes,
    pub parts: BTreeMap<u32, PartInfo>,
}

/// The server. It stops, with all of its connections and threads, when it is dropped.
pub struct TestS3 {
    shared: Arc<Shared>,
    server: Server,
}

impl Deref for TestS3 {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl TestS3 {
    pub const ACCESS_KEY: &str = "AKIATESTTESTTESTTEST";
    pub const SECRET_KEY: &str = "secret/secret+secret/secret+secret/secre";
    pub const REGION: &str = "us-east-1";

    /// Starts a server without buckets, and with one key.
    pub fn start() -> Self {
        let shared = Arc::new(Shared::new(World::new()));
        let mut builder = S3ServiceBuilder::new(memory::Memory(Arc::clone(&shared)));
        builder.set_auth(auth::Keys(Arc::clone(&shared)));
        builder.set_access(auth::Access(Arc::clone(&shared)));
        // The router checks the date of a request, with a clock that tests can set.
        let mut config = S3Config::default();
        config.presigned_url_max_skew_time_secs = u32::MAX;
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
        let service = builder.build();

        let served = Arc::clone(&shared);
        let server = Server::start("test-s3", move |connection, request| {
            router::answer(Arc::clone(&served), service.clone(), connection, request)
        });
        let server = Self { shared, server };
        server.add_key(Self::ACCESS_KEY, Self::SECRET_KEY, None);
        server
    }

    /// Makes a private bucket in `us-east-1`.
    pub fn create_bucket(&self, name: &str) {
        self.create_bucket_with(name, BucketOptions::default());
    }

    pub fn create_bucket_with(&self, name: &str, options: BucketOptions) {
        let bucket = Bucket { options, objects: BTreeMap::new(), uploads: BTreeMap::new() };
        self.shared.world().buckets.insert(name.to_owned(), bucket);
    }

    pub fn add_key(&self, id: &str, secret: &str, session_token: Option<&str>) {
        let key = Key {
            secret: secret.to_owned(),
            session_token: session_token.map(str::to_owned),
            expired: false,
        };
        self.shared.world().keys.insert(id.to_owned(), key);
    }

    /// From now on requests with this key are answered with `ExpiredToken`.
    pub fn expire_key(&self, id: &str) {
        self.shared.world().keys.get_mut(id).expect("a key").expired = true;
    }

    /// From now on requests of this operation are answered with `AccessDenied`.
    pub fn deny(&self, operation: &str) {
        self.shared.world().denied.insert(operation.to_owned());
    }

    pub fn allow(&self, operation: &str) {
        self.shared.world().denied.remove(operation);
    }

    /// The current version of an object.
    pub fn object(&self, bucket: &str, key: &str) -> Option<StoredObject> {
        self.shared.object(bucket, key)
    }

    /// The keys of a bucket, in order.
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let world = self.shared.world();
        let bucket = world.buckets.get(bucket).expect("a bucket");
        bucket.objects.keys().filter(|key| bucket.current(key).is_some()).cloned().collect()
    }

    /// Puts an object without a request.
    pub fn put_object(
        &self,
        bucket: &str,
        key: &str,
        bytes: impl Into<Bytes>,
        options: ObjectOptions,
    ) {
        self.shared.put_object(bucket, key, bytes.into(), options).expect("a bucket");
    }

    /// The buckets, for the store tasks of EC2.
    pub fn buckets(&self) -> Arc<dyn Buckets> {
        Arc::clone(&self.shared) as Arc<dyn Buckets>
    }

    /// Changes the storage class of an object, for example to `GLACIER` or `DEEP_ARCHIVE`.
    pub fn freeze(&self, bucket: &str, key: &str, storage_class: &str) {
        let mut world = self.shared.world();
        let object = world
            .bucket(bucket)
            .and_then(|bucket| bucket.object_mut(key, None))
            .expect("an object");
        object.attributes.storage_class = Some(storage_class.to_owned());
        object.restore = Restore::Never;
    }

    pub fn open_uploads(&self, bucket: &str) -> Vec<OpenUpload> {
        let world = self.shared.world();
        let uploads = world.buckets.get(bucket).expect("a bucket").uploads.clone();
        let open = |((key, upload_id), upload): (_, world::Upload)| OpenUpload {
            key,
            upload_id,
            attributes: upload.attributes,
            parts: upload.parts,
        };
        uploads.into_iter().map(open).collect()
    }

    /// Replaces a part by another of its size, like a second UploadPart with its number.
    pub fn corrupt_part(&self, bucket: &str, upload_id: &str, number: u32) {
        let mut world = self.shared.world();
        let uploads = &mut world.bucket(bucket).expect("a bucket").uploads;
        let upload = uploads.iter_mut().find(|((_, id), _)| id == upload_id).expect("an upload").1;
        let part = upload.parts.get_mut(&number).expect("a part");
        let mut bytes = part.bytes.to_vec();
        *bytes.last_mut().expect("a part with bytes") ^= 1;
        let checksum = part.checksum.take().map(|(algorithm, _)| (algorithm, algorithm.of(&bytes)));
        *part = PartInfo::new(bytes.clone().into(), Md5::checksum(&bytes), checksum);
    }

    /// Removes an upload, as a lifecycle rule does.
    pub fn drop_upload(&self, bucket: &str, upload_id: &str) {
        self.shared
            .world()
            .bucket(bucket)
            .expect("a bucket")
            .uploads
            .retain(|(_, id), _| id != upload_id);
    }

    /// All calls, in the order of their arrival.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.log().calls()
    }

    /// Number of calls of an operation.
    pub fn count(&self, operation: &str) -> usize {
        self.calls().iter().filter(|call| call.operation == operation).count()
    }

    /// Forgets the calls; the next one is number 1.
    pub fn reset_calls(&self) {
        self.shared.log().reset();
    }

    /// Adds a fault. Of several faults that match a call, the first one happens.
    pub fn fail(&self, fault: Fault) {
        self.shared.log().faults.push(fault);
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.shared.log().faults.clear();
    }

    /// Delays every request before anything else happens.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.world().latency = latency;
    }

    /// Sets the minimum part size, by default 5 MiB.
    pub fn set_min_part_size(&self, bytes: u64) {
        self.shared.world().limits.min_part_size = bytes;
    }

    pub fn set_limits(&self, limits: Limits) {
        self.shared.world().limits = limits;
    }

    pub fn limits(&self) -> Limits {
        self.shared.world().limits
    }

    pub fn set_quirks(&self, quirks: Quirks) {
        self.shared.world().quirks = quirks;
    }

    /// Sets the server's clock, which checks the dates of requests, `seconds` ahead of the system
    /// clock.
    pub fn set_clock_skew(&self, seconds: i64) {
        self.shared.world().skew = seconds;
    }
}
