//! Operations on multipart uploads.

use std::collections::BTreeMap;
use std::time::SystemTime;

use hyper::HeaderMap;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::*;
use s3s::{S3Error, S3Result, s3_error};

use super::checksum::{self, Algorithm, Checksum, ChecksumKind};
use super::memory::{self, Memory, attributes, etag, may_write, with_checksum};
use super::objects::{check_lock, encryption, slice};
use super::world::{Attributes, PartInfo, Restore, StoredObject, Upload};

/// The checksum of a part in the list of parts.
fn part_checksum(part: &CompletedPart) -> Option<(Algorithm, String)> {
    let fields = [
        (Algorithm::Crc64Nvme, &part.checksum_crc64nvme),
        (Algorithm::Crc32, &part.checksum_crc32),
        (Algorithm::Crc32c, &part.checksum_crc32c),
        (Algorithm::Sha1, &part.checksum_sha1),
        (Algorithm::Sha256, &part.checksum_sha256),
    ];
    fields.into_iter().find_map(|(algorithm, value)| value.clone().map(|value| (algorithm, value)))
}

/// The stored checksum of a part: the one of the request, if its algorithm is that of the upload;
/// otherwise one that S3 computes, if the upload allows it.
fn checksum_of_part(
    upload: &Upload,
    given: Option<(Algorithm, String)>,
    bytes: &[u8],
) -> S3Result<Option<(Algorithm, String)>> {
    let expected = upload.checksum.map(|(algorithm, _)| algorithm);
    let mismatch = |given: Option<Algorithm>| {
        let name = |algorithm: Option<Algorithm>| {
            algorithm.map_or_else(|| "null".to_owned(), |algorithm| algorithm.name().to_lowercase())
        };
        let (expected, given) = (name(expected), name(given));
        s3_error!(
            InvalidRequest,
            "Checksum Type mismatch occurred, expected checksum Type: {expected}, actual checksum \
             Type: {given}"
        )
    };
    match (upload.checksum, given) {
        (Some((expected, _)), Some(given)) if expected == given.0 => Ok(Some(given)),
        (Some((algorithm, ChecksumKind::FullObject)), None) => {
            Ok(Some((algorithm, algorithm.of(bytes))))
        }
        (None, None) => Ok(None),
        (_, given) => Err(mismatch(given.map(|(algorithm, _)| algorithm))),
    }
}

/// Refuses part numbers outside of the limits.
fn part_number(number: i32, max: u32) -> S3Result<u32> {
    let number = u32::try_from(number).ok().filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| {
        s3_error!(InvalidArgument, "Part number must be an integer between 1 and {max}, inclusive")
    })
}

impl Memory {
    pub(super) fn create_multipart_upload(
        &self,
        input: CreateMultipartUploadInput,
        headers: &HeaderMap,
    ) -> S3Result<CreateMultipartUploadOutput> {
        let mut world = self.0.world();
        let quirks = world.quirks;
        let attributes = attributes(headers, input.metadata, &world)?;
        let mut checksum = None;
        if let Some(algorithm) = input.checksum_algorithm.filter(|_| !quirks.no_checksums) {
            let algorithm = Algorithm::parse(algorithm.as_str())?;
            if quirks.rejects_checksum_algorithm && algorithm == Algorithm::Crc64Nvme {
                return Err(s3_error!(
                    NotImplemented,
                    "A header you provided implies functionality that is not implemented"
                ));
            }
            checksum = Some((
                algorithm,
                algorithm.kind(input.checksum_type.as_ref().map(ChecksumType::as_str))?,
            ));
        } else if input.checksum_type.is_some() && !quirks.no_checksums {
            return Err(s3_error!(
                InvalidRequest,
                "The x-amz-checksum-type header can only be used with the \
                 x-amz-checksum-algorithm header."
            ));
        }
        // Checksums of parts are checked in UploadPart.
        check_lock(&mut world, &input.bucket, &attributes, true)?;
        let id = world.unique("upload");
        let output = CreateMultipartUploadOutput {
            bucket: Some(input.bucket.clone()),
            key: Some(input.key.clone()),
            upload_id: Some(id.clone()),
            server_side_encryption: encryption(&attributes),
            ssekms_key_id: attributes.kms_key.clone(),
            checksum_algorithm: checksum
                .map(|(algorithm, _)| ChecksumAlgorithm::from_static(algorithm.name())),
            checksum_type: checksum.map(|(_, kind)| ChecksumType::from_static(kind.name())),
            ..Default::default()
        };
        let upload = Upload {
            attributes,
            checksum,
            parts: BTreeMap::new(),
            initiated: SystemTime::now(),
            conflicted: false,
        };
        world.bucket(&input.bucket)?.uploads.insert((input.key, id), upload);
        Ok(output)
    }

    pub(super) fn upload_part(
        &self,
        input: UploadPartInput,
        body: memory::Upload,
    ) -> S3Result<UploadPartOutput> {
        let (quirks, limits) = {
            let world = self.0.world();
            (world.quirks, world.limits)
        };
        let number = part_number(input.part_number, limits.max_parts)?;
        let given = checksum::given(&body.headers, body.trailers.as_ref())?
            .filter(|_| !quirks.no_checksums);
        checksum::verify(given.as_ref(), &body.bytes)?;
        let md5 = checksum::md5(&body.bytes, input.content_md5.as_deref())?;
        let mut world = self.0.world();
        let upload = world.bucket(&input.bucket)?.upload_mut(&input.key, &input.upload_id)?;
        let locked = upload.attributes.retention.is_some() || upload.attributes.legal_hold;
        if locked && given.is_none() && input.content_md5.is_none() {
            let message = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Part \
                           requests with Object Lock parameters";
            return Err(s3_error!(InvalidRequest, "{message}"));
        }
        let checksum = checksum_of_part(upload, given, &body.bytes)?;
        let part = PartInfo::new(body.bytes, md5, checksum.clone());
        let output = UploadPartOutput {
            e_tag: etag(&part.etag),
            server_side_encryption: encryption(&upload.attributes),
            ssekms_key_id: upload.attributes.kms_key.clone(),
            ..Default::default()
        };
        upload.parts.insert(number, part);
        Ok(with_checksum!(output, checksum))
    }

    pub(super) fn upload_part_copy(
        &self,
        input: UploadPartCopyInput,
    ) -> S3Result<UploadPartCopyOutput> {
        let mut world = self.0.world();
        let number = part_number(input.part_number, world.limits.max_parts)?;
        if world.quirks.no_part_copies {
            return Err(s3_error!(NotImplemented, "UploadPartCopy is not implemented"));
        }
        let source =
            Self::copy_source(&mut world, &input.copy_source, input.copy_source_if_match.as_ref())?;
        let mut bytes = source.bytes.clone();
        if let Some(range) = &input.copy_source_range {
            let wrong = || {
                s3_error!(
                    InvalidArgument,
                    "The x-amz-copy-source-range value must be of the form bytes=first-last"
                )
            };
            let Ok(s3s::dto::Range::Int { first, last: Some(last) }) =
                s3s::dto::Range::parse(range)
            else {
                return Err(wrong());
            };
            // Unlike a GET, a copy refuses a range that ends behind the source.
            if first > last || last >= bytes.len() as u64 {
                return Err(s3_error!(
                    InvalidArgument,
                    "Range specified is not valid for source object of size: {}",
                    bytes.len()
                ));
            }
            bytes = slice(&bytes, &(first..last + 1));
        }
        let md5 = checksum::md5(&bytes, None)?;
        let upload = world.bucket(&input.bucket)?.upload_mut(&input.key, &input.upload_id)?;
        let given = upload.checksum.map(|(algorithm, _)| (algorithm, algorithm.of(&bytes)));
        let part = PartInfo::new(bytes, md5, checksum_of_part(upload, given, &source.bytes)?);
        let result = CopyPartResult {
            e_tag: etag(&part.etag),
            last_modified: Some(part.modified.into()),
            ..Default::default()
        };
        let result = with_checksum!(result, part.checksum.clone());
        let server_side_encryption = encryption(&upload.attributes);
        upload.parts.insert(number, part);
        Ok(UploadPartCopyOutput {
            copy_part_result: Some(result),
            copy_source_version_id: source.version_id,
            server_side_encryption,
            ..Default::default()
        })
    }

    pub(super) fn list_parts(&self, input: ListPartsInput) -> S3Result<ListPartsOutput> {
        let mut world = self.0.world();
        let (page, quirks) = (world.limits.page_size, world.quirks);
        if quirks.no_list_parts {
            return Err(s3_error!(NotImplemented, "ListParts is not implemented"));
        }
        let upload = world.bucket(&input.bucket)?.upload_mut(&input.key, &input.upload_id)?;
        let requested = input.max_parts.unwrap_or(1000);
        let limit = usize::try_from(requested)
            .map_err(|_| s3_error!(InvalidArgument, "max-parts is negative"))?
            .min(page);
        let after = u32::try_from(input.part_number_marker.unwrap_or(0)).unwrap_or(0);
        let mut rest = upload.parts.range(after + 1..);
        let parts: Vec<Part> =
            rest.by_ref().take(limit).map(|(number, part)| listed(*number, part)).collect();
        let more = rest.next().is_some();
        Ok(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            max_parts: i32::try_from(limit).ok(),
            part_number_marker: input.part_number_marker,
            next_part_number_marker: parts.last().and_then(|part| part.part_number),
            is_truncated: Some(more),
            parts: Some(parts),
            storage_class: Some(StorageClass::from(
                upload.attributes.storage_class.clone().unwrap_or_else(|| "STANDARD".to_owned()),
            )),
            checksum_algorithm: upload
                .checksum
                .map(|(algorithm, _)| ChecksumAlgorithm::from_static(algorithm.name())),
            checksum_type: upload.checksum.map(|(_, kind)| ChecksumType::from_static(kind.name())),
            ..Default::default()
        })
    }

    pub(super) fn list_multipart_uploads(
        &self,
        input: ListMultipartUploadsInput,
    ) -> S3Result<ListMultipartUploadsOutput> {
        let mut world = self.0.world();
        let page = world.limits.page_size;
        let requested = input.max_uploads.unwrap_or(1000);
        let limit = usize::try_from(requested)
            .map_err(|_| s3_error!(InvalidArgument, "max-uploads is negative"))?
            .min(page);
        let prefix = input.prefix.clone().unwrap_or_default();
        let key_marker = input.key_marker.clone().unwrap_or_default();
        // Without an upload id the marker stands behind all uploads of its key.
        let behind = |key: &str, id: &str| match &input.upload_id_marker {
            Some(marker) => (key, id) > (key_marker.as_str(), marker.as_str()),
            None => key > key_marker.as_str(),
        };
        let bucket = world.bucket(&input.bucket)?;
        let mut rest = bucket
            .uploads
            .iter()
            .filter(|((key, id), _)| key.starts_with(&prefix) && behind(key, id));
        let of = |((key, id), upload): (&(String, String), &Upload)| MultipartUpload {
            key: Some(key.clone()),
            upload_id: Some(id.clone()),
            initiated: Some(upload.initiated.into()),
            storage_class: Some(StorageClass::from(
                upload.attributes.storage_class.clone().unwrap_or_else(|| "STANDARD".to_owned()),
            )),
            checksum_algorithm: upload
                .checksum
                .map(|(algorithm, _)| ChecksumAlgorithm::from_static(algorithm.name())),
            checksum_type: upload.checksum.map(|(_, kind)| ChecksumType::from_static(kind.name())),
            ..Default::default()
        };
        let uploads: Vec<MultipartUpload> = rest.by_ref().take(limit).map(of).collect();
        let more = rest.next().is_some();
        let last = uploads.last().filter(|_| more);
        Ok(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: input.prefix,
            key_marker: input.key_marker,
            upload_id_marker: input.upload_id_marker,
            max_uploads: i32::try_from(limit).ok(),
            is_truncated: Some(more),
            next_key_marker: last.and_then(|upload| upload.key.clone()),
            next_upload_id_marker: last.and_then(|upload| upload.upload_id.clone()),
            uploads: Some(uploads),
            ..Default::default()
        })
    }

    pub(super) fn abort_multipart_upload(
        &self,
        input: AbortMultipartUploadInput,
    ) -> S3Result<AbortMultipartUploadOutput> {
        let mut world = self.0.world();
        let bucket = world.bucket(&input.bucket)?;
        bucket.upload_mut(&input.key, &input.upload_id)?;
        bucket.uploads.remove(&(input.key, input.upload_id));
        Ok(AbortMultipartUploadOutput::default())
    }

    pub(super) fn complete_multipart_upload(
        &self,
        input: CompleteMultipartUploadInput,
        headers: &HeaderMap,
    ) -> S3Result<CompleteMultipartUploadOutput> {
        let mut world = self.0.world();
        let (quirks, limits) = (world.quirks, world.limits);
        let upload = world.bucket(&input.bucket)?.upload_mut(&input.key, &input.upload_id)?.clone();
        if upload.conflicted {
            return Err(s3_error!(
                ConditionalRequestConflict,
                "The conditional request cannot succeed due to a conflicting operation."
            ));
        }
        let current = world.bucket(&input.bucket)?.current(&input.key);
        may_write(current, input.if_none_match.as_ref(), input.if_match.as_ref(), quirks)?;
        let expected = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let parts = listed_parts(&upload, &expected, limits.min_part_size)?;
        let bytes = parts.iter().map(|part| part.bytes.as_ref()).collect::<Vec<&[u8]>>().concat();
        if input.mpu_object_size.is_some_and(|size| size != bytes.len() as i64) {
            return Err(s3_error!(
                InvalidRequest,
                "The provided 'x-amz-mp-object-size' header value does not match what was \
                 computed: {}",
                bytes.len()
            ));
        }
        let given = checksum::given(headers, None)?.filter(|_| !quirks.no_checksums);
        let checksum = if quirks.no_checksums {
            None
        } else {
            Some(checksum_of_upload(&upload, &parts, &bytes)?)
        };
        if let (Some((algorithm, value)), Some(checksum)) = (&given, &checksum) {
            if *algorithm != checksum.algorithm {
                return Err(s3_error!(
                    InvalidRequest,
                    "The upload was created using a {} checksum.",
                    checksum.algorithm.name()
                ));
            }
            if *value != checksum.value {
                return Err(s3_error!(
                    BadDigest,
                    "The {} you specified did not match the calculated checksum.",
                    algorithm.name()
                ));
            }
        }
        let object = StoredObject {
            etag: etag_of_parts(&upload.attributes, &parts),
            parts: Some(parts.iter().map(|part| part.bytes.len() as u64).collect()),
            bytes: bytes.into(),
            attributes: upload.attributes,
            checksum: checksum.clone(),
            version_id: None,
            modified: SystemTime::now(),
            restore: Restore::Never,
        };
        let output = CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            e_tag: etag(&object.etag),
            server_side_encryption: encryption(&object),
            ssekms_key_id: object.kms_key.clone(),
            checksum_type: checksum
                .as_ref()
                .map(|checksum| ChecksumType::from_static(checksum.kind.name())),
            version_id: world.store(&input.bucket, &input.key, object)?,
            bucket: Some(input.bucket.clone()),
            key: Some(input.key.clone()),
            ..Default::default()
        };
        world.bucket(&input.bucket)?.uploads.remove(&(input.key, input.upload_id));
        Ok(with_checksum!(output, checksum.map(|checksum| (checksum.algorithm, checksum.value))))
    }
}

/// The parts that CompleteMultipartUpload lists, if number, ETag and checksum of each match.
fn listed_parts(
    upload: &Upload,
    expected: &[CompletedPart],
    min_part_size: u64,
) -> S3Result<Vec<PartInfo>> {
    if expected.is_empty() {
        return Err(s3_error!(
            MalformedXML,
            "The XML you provided was not well-formed or did not validate against our published \
             schema"
        ));
    }
    let number = |part: &CompletedPart| part.part_number.unwrap_or(0);
    if !expected.is_sorted_by(|a, b| number(a) < number(b)) {
        return Err(s3_error!(
            InvalidPartOrder,
            "The list of parts was not in ascending order. Parts must be ordered by part number."
        ));
    }
    let missing = || {
        s3_error!(
            InvalidPart,
            "One or more of the specified parts could not be found. \
             The part may not have been uploaded, or the specified entity tag may not match the \
             part's entity tag."
        )
    };
    let composite = upload.checksum.filter(|(_, kind)| *kind == ChecksumKind::Composite);
    let mut parts = Vec::new();
    for part in expected {
        let stored = u32::try_from(number(part))
            .ok()
            .and_then(|number| upload.parts.get(&number))
            .ok_or_else(missing)?;
        if part.e_tag.as_ref().is_none_or(|etag| etag.value() != stored.etag) {
            return Err(missing());
        }
        match (part_checksum(part), composite) {
            (Some(checksum), _)
                if stored.checksum.as_ref().is_some_and(|stored| *stored != checksum) =>
            {
                return Err(missing());
            }
            (None, Some((algorithm, _))) => return Err(missing_checksum(algorithm, number(part))),
            _ => parts.push(stored.clone()),
        }
    }
    let has_gaps = !expected.iter().map(number).eq(1..=expected.len() as i32);
    if composite.is_some() && has_gaps {
        return Err(s3_error!(
            InternalError,
            "We encountered an internal error. Please try again."
        ));
    }
    // As documented (`CompletedPart`); it is not known whether S3 is as strict with CRC64NVME.
    if upload.checksum.is_some() && has_gaps {
        return Err(s3_error!(
            InvalidPartOrder,
            "The part numbers must be consecutive when a checksum was agreed on."
        ));
    }
    let small =
        parts[..parts.len() - 1].iter().any(|part| (part.bytes.len() as u64) < min_part_size);
    if small {
        return Err(s3_error!(
            EntityTooSmall,
            "Your proposed upload is smaller than the minimum allowed size"
        ));
    }
    Ok(parts)
}

fn missing_checksum(algorithm: Algorithm, number: i32) -> S3Error {
    let name = algorithm.name().to_lowercase();
    s3_error!(
        InvalidRequest,
        "The upload was created using a {name} checksum. \
         The complete request must include the checksum for each part. It was missing for part \
         {number} in the request."
    )
}

/// The checksum of the object: of its bytes, or of the checksums of its parts.
fn checksum_of_upload(upload: &Upload, parts: &[PartInfo], bytes: &[u8]) -> S3Result<Checksum> {
    match upload.checksum.unwrap_or((Algorithm::Crc64Nvme, ChecksumKind::FullObject)) {
        (algorithm, ChecksumKind::FullObject) => Ok(Checksum::full(algorithm, bytes)),
        (algorithm, kind) => {
            let parts: Vec<&str> = parts
                .iter()
                .filter_map(|part| part.checksum.as_ref().map(|(_, value)| value.as_str()))
                .collect();
            Ok(Checksum { algorithm, value: algorithm.composite(&parts)?, kind })
        }
    }
}

/// The MD5 of the MD5s of the parts, and the number of parts.
fn etag_of_parts(attributes: &Attributes, parts: &[PartInfo]) -> String {
    let all: Vec<u8> = parts.iter().flat_map(|part| part.md5).collect();
    format!("{}-{}", super::objects::object_etag(attributes, &Md5::checksum(&all)), parts.len())
}

fn listed(number: u32, part: &PartInfo) -> Part {
    let listed = Part {
        part_number: i32::try_from(number).ok(),
        size: i64::try_from(part.bytes.len()).ok(),
        e_tag: etag(&part.etag),
        last_modified: Some(part.modified.into()),
        ..Default::default()
    };
    with_checksum!(listed, part.checksum.clone())
}
