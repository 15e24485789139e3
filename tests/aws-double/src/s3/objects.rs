//! Operations on objects.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use hyper::body::Bytes;
use hyper::{HeaderMap, StatusCode};
use s3s::dto::*;
use s3s::{Body, S3Error, S3ErrorCode, S3Response, S3Result, s3_error};

use super::checksum::{self, Algorithm, Checksum, ChecksumKind};
use super::memory::{
    Memory, Upload, attributes, checked_tags, custom, etag, matches_etag, may_write, with_checksum,
};
use super::router::Status;
use super::world::{Attributes, Restore, StoredObject, Version, World};

const ENCRYPTION: &str = "AES256";

/// Parameters of GetObject and HeadObject.
struct ReadParameters {
    bucket: String,
    key: String,
    version: Option<String>,
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
    range: Option<s3s::dto::Range>,
    part: Option<i32>,
}

/// The object that GetObject and HeadObject found.
struct FoundObject {
    object: StoredObject,
    /// The requested byte range; none is the whole object.
    range: Option<Range<u64>>,
    parts_count: Option<i32>,
}

macro_rules! parameters {
    ($input:expr) => {
        ReadParameters {
            bucket: $input.bucket,
            key: $input.key,
            version: $input.version_id,
            if_match: $input.if_match,
            if_none_match: $input.if_none_match,
            range: $input.range,
            part: $input.part_number,
        }
    };
}

/// The fields that the answers of GetObject and HeadObject share.
macro_rules! described {
    ($output:ident, $found:expr, $checksum_mode:expr) => {{
        let (object, range) = (&$found.object, &$found.range);
        let size = object.bytes.len() as u64;
        let len = range.as_ref().map_or(size, |range| range.end - range.start);
        // The checksum of the object does not cover a range.
        let checksum =
            object.checksum.as_ref().filter(|_| $checksum_mode.is_some() && range.is_none());
        let output = $output {
            accept_ranges: Some("bytes".to_owned()),
            content_length: i64::try_from(len).ok(),
            content_range: range.as_ref().map(|range| {
                format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1))
            }),
            content_type: Some(
                object.content_type.clone().unwrap_or_else(|| "binary/octet-stream".to_owned()),
            ),
            e_tag: etag(&object.etag),
            last_modified: Some(object.modified.into()),
            metadata: Some(object.user_metadata.clone().into_iter().collect()),
            parts_count: $found.parts_count,
            restore: restore_header(object),
            storage_class: object
                .storage_class
                .clone()
                .filter(|class| class != "STANDARD")
                .map(StorageClass::from),
            server_side_encryption: encryption(object),
            ssekms_key_id: object.kms_key.clone(),
            version_id: object.version_id.clone(),
            checksum_type: checksum.map(|checksum| ChecksumType::from_static(checksum.kind.name())),
            object_lock_mode: object.retention.clone().map(|(mode, _)| ObjectLockMode::from(mode)),
            object_lock_retain_until_date: retained_until(object),
            object_lock_legal_hold_status: object
                .legal_hold
                .then(|| ObjectLockLegalHoldStatus::from_static("ON")),
            ..Default::default()
        };
        with_checksum!(
            output,
            checksum.map(|checksum| (checksum.algorithm, checksum.value.clone()))
        )
    }};
}

pub fn encryption(attributes: &Attributes) -> Option<ServerSideEncryption> {
    Some(ServerSideEncryption::from(
        attributes.sse.clone().unwrap_or_else(|| ENCRYPTION.to_owned()),
    ))
}

fn retained_until(object: &StoredObject) -> Option<Timestamp> {
    let (_, date) = object.retention.as_ref()?;
    Timestamp::parse(TimestampFormat::DateTime, date).ok()
}

fn restore_header(object: &StoredObject) -> Option<String> {
    match object.restore {
        Restore::Never => None,
        Restore::Ongoing(_) => Some("ongoing-request=\"true\"".to_owned()),
        Restore::Done => {
            let mut date = Vec::new();
            let expiry = Timestamp::from(SystemTime::now() + Duration::from_secs(86_400));
            expiry.format(TimestampFormat::HttpDate, &mut date).ok()?;
            Some(format!(
                "ongoing-request=\"false\", expiry-date=\"{}\"",
                String::from_utf8_lossy(&date)
            ))
        }
    }
}

/// An error that carries the ETag of the existing object.
fn not_modified(object: &StoredObject) -> S3Error {
    let mut error = S3Error::new(S3ErrorCode::NotModified);
    let mut headers = HeaderMap::new();
    headers
        .insert("etag", format!("\"{}\"", object.etag).parse().expect("an ETag is a header value"));
    error.set_headers(headers);
    error
}

/// The ETag of an object of a single PUT. With a KMS key it is not the MD5 of the bytes.
pub fn object_etag(attributes: &Attributes, md5: &[u8; 16]) -> String {
    match attributes.sse.as_deref() {
        Some("aws:kms" | "aws:kms:dsse") => checksum::hex(md5).chars().rev().collect(),
        _ => checksum::hex(md5),
    }
}

/// Refuses Object Lock parameters in a bucket without Object Lock, and in a request without a
/// checksum.
pub fn check_lock(
    world: &mut World,
    bucket: &str,
    attributes: &Attributes,
    has_checksum: bool,
) -> S3Result<()> {
    if attributes.retention.is_none() && !attributes.legal_hold {
        return Ok(());
    }
    if !world.bucket(bucket)?.options.object_lock {
        return Err(s3_error!(InvalidRequest, "Bucket is missing Object Lock Configuration"));
    }
    if !has_checksum {
        let message = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object \
                       requests with Object Lock parameters";
        return Err(s3_error!(InvalidRequest, "{message}"));
    }
    Ok(())
}

impl Memory {
    fn find(&self, parameters: ReadParameters) -> S3Result<FoundObject> {
        let mut world = self.0.world();
        let object = world
            .bucket(&parameters.bucket)?
            .object_mut(&parameters.key, parameters.version.as_deref())?
            .clone();
        if parameters.if_match.is_some_and(|condition| !matches_etag(&condition, &object.etag)) {
            return Err(s3_error!(
                PreconditionFailed,
                "At least one of the pre-conditions you specified did not hold"
            ));
        }
        if parameters.if_none_match.is_some_and(|condition| matches_etag(&condition, &object.etag))
        {
            return Err(not_modified(&object));
        }
        let size = object.bytes.len() as u64;
        let unsatisfiable = || s3_error!(InvalidRange, "The requested range is not satisfiable");
        let (mut range, mut parts_count) = (None, None);
        if let Some(requested) = parameters.range {
            range = Some(
                requested
                    .check(size)
                    .ok()
                    .filter(|range| !range.is_empty())
                    .ok_or_else(unsatisfiable)?,
            );
        } else if let Some(number) = parameters.part {
            let parts = object.parts.clone().unwrap_or_else(|| vec![size]);
            let index = usize::try_from(number)
                .ok()
                .and_then(|number| number.checked_sub(1))
                .filter(|index| *index < parts.len());
            let index = index.ok_or_else(|| {
                custom(
                    "InvalidPartNumber",
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    "The requested partnumber is not satisfiable",
                )
            })?;
            let start = parts[..index].iter().sum();
            range = Some(start..start + parts[index]);
            parts_count = object.parts.as_ref().and_then(|parts| i32::try_from(parts.len()).ok());
        }
        Ok(FoundObject { object, range, parts_count })
    }

    pub(super) fn head_object(
        &self,
        input: HeadObjectInput,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let (bucket, key, version) =
            (input.bucket.clone(), input.key.clone(), input.version_id.clone());
        let checksum_mode = input.checksum_mode.clone();
        let found = self.find(parameters!(input))?;
        let output = described!(HeadObjectOutput, found, checksum_mode);
        let mut world = self.0.world();
        let object = world.bucket(&bucket)?.object_mut(&key, version.as_deref())?;
        if let Restore::Ongoing(looks) = object.restore {
            object.restore = if looks > 1 { Restore::Ongoing(looks - 1) } else { Restore::Done };
        }
        let mut answer = S3Response::new(output);
        if found.range.is_some() {
            answer.extensions.insert(Status(StatusCode::PARTIAL_CONTENT));
        }
        Ok(answer)
    }

    pub(super) fn get_object(
        &self,
        input: GetObjectInput,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let checksum_mode = input.checksum_mode.clone();
        let found = self.find(parameters!(input))?;
        found.object.readable()?;
        let bytes = found
            .range
            .as_ref()
            .map_or_else(|| found.object.bytes.clone(), |range| slice(&found.object.bytes, range));
        let mut output = described!(GetObjectOutput, found, checksum_mode);
        output.tag_count = i32::try_from(found.object.tags.len()).ok().filter(|count| *count > 0);
        output.body = Some(Body::from(bytes).into());
        Ok(S3Response::new(output))
    }

    pub(super) fn put_object(
        &self,
        input: PutObjectInput,
        upload: Upload,
    ) -> S3Result<PutObjectOutput> {
        let quirks = self.0.world().quirks;
        let given = checksum::given(&upload.headers, upload.trailers.as_ref())?
            .filter(|_| !quirks.no_checksums);
        checksum::verify(given.as_ref(), &upload.bytes)?;
        let md5 = checksum::md5(&upload.bytes, input.content_md5.as_deref())?;
        let algorithm = given.as_ref().map_or(Algorithm::Crc64Nvme, |(algorithm, _)| *algorithm);
        let checksum =
            Some(Checksum::full(algorithm, &upload.bytes)).filter(|_| !quirks.no_checksums);
        let mut world = self.0.world();
        let attributes = attributes(&upload.headers, input.metadata, &world)?;
        check_lock(
            &mut world,
            &input.bucket,
            &attributes,
            given.is_some() || input.content_md5.is_some(),
        )?;
        let current = world.bucket(&input.bucket)?.current(&input.key);
        may_write(current, input.if_none_match.as_ref(), input.if_match.as_ref(), quirks)?;
        let object = StoredObject {
            etag: object_etag(&attributes, &md5),
            bytes: upload.bytes,
            attributes,
            checksum: checksum.clone(),
            parts: None,
            version_id: None,
            modified: SystemTime::now(),
            restore: Restore::Never,
        };
        let output = PutObjectOutput {
            e_tag: etag(&object.etag),
            server_side_encryption: encryption(&object),
            ssekms_key_id: object.kms_key.clone(),
            checksum_type: checksum
                .as_ref()
                .map(|checksum| ChecksumType::from_static(checksum.kind.name())),
            version_id: world.store(&input.bucket, &input.key, object)?,
            ..Default::default()
        };
        Ok(with_checksum!(output, checksum.map(|checksum| (checksum.algorithm, checksum.value))))
    }

    /// The object behind `x-amz-copy-source`, if the condition on it holds.
    pub(super) fn copy_source(
        world: &mut World,
        source: &CopySource,
        condition: Option<&ETagCondition>,
    ) -> S3Result<StoredObject> {
        let CopySource::Bucket { bucket, key, version_id } = source else {
            return Err(s3_error!(NotImplemented, "only buckets are copied from"));
        };
        let object = world.bucket(bucket)?.object_mut(key, version_id.as_deref())?.clone();
        if condition.is_some_and(|condition| !matches_etag(condition, &object.etag)) {
            return Err(s3_error!(
                PreconditionFailed,
                "At least one of the pre-conditions you specified did not hold"
            ));
        }
        if object.readable().is_err() {
            let message = "The source object of the COPY operation is not in the active tier";
            return Err(custom("ObjectNotInActiveTierError", StatusCode::FORBIDDEN, message));
        }
        Ok(object)
    }

    pub(super) fn copy_object(
        &self,
        input: CopyObjectInput,
        headers: &HeaderMap,
    ) -> S3Result<CopyObjectOutput> {
        let mut world = self.0.world();
        let source =
            Self::copy_source(&mut world, &input.copy_source, input.copy_source_if_match.as_ref())?;
        let mut attributes = attributes(headers, input.metadata, &world)?;
        let replaces = |directive: Option<&str>| directive == Some("REPLACE");
        if !replaces(input.metadata_directive.as_ref().map(MetadataDirective::as_str)) {
            attributes.user_metadata.clone_from(&source.user_metadata);
            attributes.content_type.clone_from(&source.content_type);
        }
        if !replaces(input.tagging_directive.as_ref().map(TaggingDirective::as_str)) {
            attributes.tags.clone_from(&source.tags);
        }
        let header = |name| {
            headers
                .get(name)
                .and_then(|value| ETagCondition::parse_http_header(value.as_bytes()).ok())
        };
        let current = world.bucket(&input.bucket)?.current(&input.key).cloned();
        may_write(
            current.as_ref(),
            header("if-none-match").as_ref(),
            header("if-match").as_ref(),
            world.quirks,
        )?;
        let named =
            input.checksum_algorithm.map(|named| Algorithm::parse(named.as_str())).transpose()?;
        // The copy has no parts: a composite checksum is replaced by one of all bytes.
        let stored = source
            .checksum
            .as_ref()
            .filter(|stored| stored.kind == ChecksumKind::FullObject)
            .map(|stored| stored.algorithm);
        let checksum =
            Checksum::full(named.or(stored).unwrap_or(Algorithm::Crc64Nvme), &source.bytes);
        let checksum = Some(checksum).filter(|_| !world.quirks.no_checksums);
        let object = StoredObject {
            etag: object_etag(&attributes, &checksum::md5(&source.bytes, None)?),
            bytes: source.bytes,
            attributes,
            checksum: checksum.clone(),
            parts: None,
            version_id: None,
            modified: SystemTime::now(),
            restore: Restore::Never,
        };
        let result = CopyObjectResult {
            e_tag: etag(&object.etag),
            last_modified: Some(object.modified.into()),
            checksum_type: checksum
                .as_ref()
                .map(|checksum| ChecksumType::from_static(checksum.kind.name())),
            ..Default::default()
        };
        let result =
            with_checksum!(result, checksum.map(|checksum| (checksum.algorithm, checksum.value)));
        Ok(CopyObjectOutput {
            copy_object_result: Some(result),
            copy_source_version_id: source.version_id,
            server_side_encryption: encryption(&object),
            version_id: world.store(&input.bucket, &input.key, object)?,
            ..Default::default()
        })
    }

    pub(super) fn delete_object(&self, input: DeleteObjectInput) -> S3Result<DeleteObjectOutput> {
        let mut world = self.0.world();
        let marker = world.unique("version");
        let ignores_condition = world.quirks.ignores_delete_if_match;
        let bucket = world.bucket(&input.bucket)?;
        if let Some(condition) = input.if_match.filter(|_| !ignores_condition)
            && !bucket
                .current(&input.key)
                .is_some_and(|object| matches_etag(&condition, &object.etag))
        {
            return Err(s3_error!(
                PreconditionFailed,
                "At least one of the pre-conditions you specified did not hold"
            ));
        }
        let versioned = bucket.is_versioned();
        let Some(id) = input.version_id else {
            if versioned {
                bucket
                    .objects
                    .entry(input.key)
                    .or_default()
                    .push(Version::DeleteMarker(marker.clone()));
                return Ok(DeleteObjectOutput {
                    delete_marker: Some(true),
                    version_id: Some(marker),
                    request_charged: None,
                });
            }
            bucket.objects.remove(&input.key);
            return Ok(DeleteObjectOutput::default());
        };
        let versions = bucket.objects.entry(input.key.clone()).or_default();
        let locked = |version: &Version| {
            let now = Timestamp::from(SystemTime::now());
            matches!(version, Version::Object(object) if object.legal_hold
                || retained_until(object).is_some_and(|until| until > now))
        };
        if versions.iter().any(|version| version.id() == Some(&id) && locked(version)) {
            return Err(s3_error!(
                AccessDenied,
                "Access Denied because object protected by object lock."
            ));
        }
        versions.retain(|version| version.id().unwrap_or("null") != id);
        if versions.is_empty() {
            bucket.objects.remove(&input.key);
        }
        Ok(DeleteObjectOutput { version_id: Some(id), ..Default::default() })
    }

    pub(super) fn get_object_tagging(
        &self,
        input: GetObjectTaggingInput,
    ) -> S3Result<GetObjectTaggingOutput> {
        let mut world = self.0.world();
        checked_tags(Vec::new(), world.quirks)?;
        let object =
            world.bucket(&input.bucket)?.object_mut(&input.key, input.version_id.as_deref())?;
        let tag_set = object
            .tags
            .iter()
            .map(|(key, value)| Tag { key: Some(key.clone()), value: Some(value.clone()) })
            .collect();
        Ok(GetObjectTaggingOutput { tag_set, version_id: object.version_id.clone() })
    }

    pub(super) fn put_object_tagging(
        &self,
        input: PutObjectTaggingInput,
    ) -> S3Result<PutObjectTaggingOutput> {
        let mut world = self.0.world();
        let tags = input
            .tagging
            .tag_set
            .into_iter()
            .map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default()))
            .collect();
        let tags = checked_tags(tags, world.quirks)?;
        let object =
            world.bucket(&input.bucket)?.object_mut(&input.key, input.version_id.as_deref())?;
        object.attributes.tags = tags;
        Ok(PutObjectTaggingOutput { version_id: object.version_id.clone() })
    }

    pub(super) fn restore_object(
        &self,
        input: RestoreObjectInput,
    ) -> S3Result<S3Response<RestoreObjectOutput>> {
        let mut world = self.0.world();
        let delay = world.limits.restore_delay;
        let object =
            world.bucket(&input.bucket)?.object_mut(&input.key, input.version_id.as_deref())?;
        if !object.is_archived() {
            return Err(s3_error!(
                InvalidObjectState,
                "Restore is not allowed for the object's current storage class"
            ));
        }
        let mut answer = S3Response::new(RestoreObjectOutput::default());
        match object.restore {
            Restore::Ongoing(_) => {
                return Err(s3_error!(
                    RestoreAlreadyInProgress,
                    "Object restore is already in progress"
                ));
            }
            Restore::Done => {}
            Restore::Never => {
                object.restore = if delay == 0 { Restore::Done } else { Restore::Ongoing(delay) };
                answer.extensions.insert(Status(StatusCode::ACCEPTED));
            }
        }
        Ok(answer)
    }
}

/// The bytes in a range that was checked.
pub fn slice(bytes: &Bytes, range: &Range<u64>) -> Bytes {
    let index = |offset: u64| usize::try_from(offset).expect("an offset in memory");
    bytes.slice(index(range.start)..index(range.end))
}
