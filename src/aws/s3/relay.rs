//! Copies an object within one service, by requests that carry no bytes of it.

use std::collections::BTreeMap;
use std::ops::Range;

use aws_sdk_s3::Client;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use percent_encoding::utf8_percent_encode;
use tokio::task::JoinSet;

use super::super::error::classify;
use super::super::percent::RESERVED_IN_PATH;
use super::Checksum;
use super::absence::Protection;
use super::attributes::{encode_metadata, encode_tags};
use super::bucket::{Head, S3Store, no_length};
use super::upload::{Identity, SentPart, Upload, Written, identify, is_unreadable};
use crate::base::{Error, ErrorCode, ErrorKind, Event, Result};
use crate::localfs::Overwrite;
use crate::object::{Attributes, ResumableUpload};

/// Bytes of one UploadPartCopy.
const PIECE: u64 = 256 << 20;

/// Result of a copy within the service.
#[derive(Clone, Debug)]
pub struct ServerCopy {
    /// Length of the object.
    #[cfg_attr(not(feature = "internals"), expect(dead_code, reason = "tests compare it"))]
    pub len: u64,
    /// Whether the service has equal checksums of both objects.
    pub checksum_compared: bool,
}

impl S3Store {
    /// Copies `source_key` of `source`, whose version is `etag`, to `key`. Metadata and tags are
    /// those of `attributes`: a multipart copy carries none by itself. The upload is reported to
    /// the journal of `resume`, and the one of an earlier run is aborted: parts that the service
    /// copied are not reused.
    pub fn copy_from(
        &self,
        key: &str,
        (source, source_key, etag): (&S3Store, &str, Option<&str>),
        attributes: &Attributes,
        overwrite: Overwrite,
        resume: Option<&ResumableUpload>,
    ) -> Result<ServerCopy> {
        // Not cancelled from outside: each request observes the cancellation, and the upload has
        // to be aborted.
        self.connection.runtime().block_on(self.copy_parts(
            key,
            (source, source_key, etag),
            attributes,
            overwrite,
            resume,
        ))
    }

    async fn copy_parts(
        &self,
        key: &str,
        (source, source_key, etag): (&S3Store, &str, Option<&str>),
        attributes: &Attributes,
        overwrite: Overwrite,
        resume: Option<&ResumableUpload>,
    ) -> Result<ServerCopy> {
        let from = source.head(source_key).await?;
        if etag.is_some() && from.etag.as_deref() != etag {
            return Err(source.located(source_key)(Error::new(
                ErrorKind::Io,
                "the object was replaced while it was read",
            )));
        }
        let len = from.len.ok_or_else(|| source.located(source_key)(no_length()))?;
        self.protection(key, overwrite).await?;
        let metadata: BTreeMap<String, String> = encode_metadata(&attributes.metadata)?;
        let tags = encode_tags(&attributes.tags);
        if let Some(resume) = resume {
            self.abort_prior(key, &resume.prior).await?;
            self.intend(key, resume.journal.as_ref())?;
        }
        let upload = Upload::begin(self, key, &metadata, tags.clone()).await?;
        let begun = || match resume {
            Some(resume) => {
                let record = upload.record(piece_of(len), tags.as_deref(), Vec::new());
                resume.journal.upload_begun(&record)
            }
            None => Ok(()),
        };
        let copied = match begun() {
            Ok(()) => self.copy_all(&upload, (source, source_key), (&from, len), overwrite).await,
            Err(error) => Err(error),
        };
        let written = match copied {
            Ok(written) => written,
            Err(error) => {
                // The first error is the one to report; a failed abort is a warning that names the
                // upload.
                if let Err(left) = upload.abort_anyway().await {
                    let message = format!("an upload could not be aborted: {} ({left})", upload.id);
                    self.connection.options().observer.note(&Event::Warning { message });
                }
                return Err(error);
            }
        };
        let Some(to) = self.look_at_finished(key).await? else {
            return Ok(ServerCopy { len, checksum_compared: false });
        };
        let differs = |what: &'static str| {
            let error = Error::new(ErrorKind::Io, what).code_as(ErrorCode::FinishedObjectDiffers);
            self.located(key)(error).at("bytes", to.len.unwrap_or(0)).at("source", len)
        };
        if to.len != from.len {
            let error = differs("the copy has another length than its source");
            return Err(self.remove_finished(key, written.as_ref(), error).await);
        }
        let has_other = |(name, value): (&&str, &String)| {
            !value.contains('-')
                && to
                    .checksums
                    .get(*name)
                    .is_some_and(|stored| !stored.contains('-') && stored != value)
        };
        if from.checksums.iter().any(has_other) {
            let error = differs("the copy has another checksum than its source");
            return Err(self.remove_finished(key, written.as_ref(), error).await);
        }
        Ok(ServerCopy { len, checksum_compared: same_checksum(&from, &to) })
    }

    /// Copies all parts and completes the upload. `None` if the object is there, and the answer
    /// that names its version was lost.
    async fn copy_all(
        &self,
        upload: &Upload,
        (source, source_key): (&S3Store, &str),
        (from, whole): (&Head, u64),
        overwrite: Overwrite,
    ) -> Result<Option<Written>> {
        let piece = piece_of(whole);
        let encoded = copy_source(&source.bucket, source_key);
        let mut tasks = JoinSet::new();
        for (index, start) in
            (0..whole).step_by(usize::try_from(piece).unwrap_or(usize::MAX)).enumerate()
        {
            let (upload, encoded, etag, owner) =
                (upload.clone(), encoded.clone(), from.etag.clone(), source.options.owner());
            let range = start..start + piece.min(whole - start);
            let number = index as u32 + 1;
            tasks.spawn(async move {
                let copied = copy_part(&upload, number, (&encoded, etag, owner), range).await?;
                let completed = CompletedPart::builder()
                    .part_number(number as i32)
                    .e_tag(&copied.etag)
                    .set_checksum_sha256(Some(copied.checksum.clone()).filter(|_| {
                        upload.checksum == Checksum::Sha256 && !copied.checksum.is_empty()
                    }))
                    .build();
                Ok::<_, Error>((completed, copied))
            });
        }
        let mut parts = Vec::new();
        while let Some(done) = tasks.join_next().await {
            let copied = done
                .map_err(|_| Error::internal("the task of a copy ended by itself"))
                .and_then(|copied| copied);
            match copied {
                Ok(part) => parts.push(part),
                Err(error) => {
                    // A part that arrives after the abort would stay.
                    tasks.shutdown().await;
                    return Err(error);
                }
            }
        }
        parts.sort_by_key(|(completed, _)| completed.part_number());
        let (parts, sent): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let completed = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let protection: Protection = self.protection(&upload.key, overwrite).await?;
        let completion = self.write_protected(protection, async |condition| {
            let make = |client: Client, _| {
                let request = client
                    .complete_multipart_upload()
                    .bucket(&self.bucket)
                    .key(&upload.key)
                    .upload_id(&upload.id)
                    .multipart_upload(completed.clone())
                    .set_if_none_match(condition.if_none_match())
                    .set_request_payer(self.options.payer())
                    .set_expected_bucket_owner(self.options.owner());
                async move {
                    let sent = request.send().await;
                    sent.map_err(|error| classify("cannot complete the copy", error))
                }
            };
            self.connection.slow_request(make).await.map_err(self.located(&upload.key))
        });
        let error = match completion.await {
            Ok(output) => {
                return Ok(Some(Written {
                    etag: output.e_tag().map(ToOwned::to_owned),
                    version_id: output.version_id().map(ToOwned::to_owned),
                }));
            }
            Err(error) => error,
        };
        // Status 200 with a body that is not S3's: the caller looks at the object in any case.
        if is_unreadable(&error) {
            return Ok(None);
        }
        // The request may have succeeded and its answer been lost.
        let could_be_ours = matches!(
            error.kind(),
            ErrorKind::NotFound | ErrorKind::Exists | ErrorKind::Io | ErrorKind::Limit
        );
        let is_ours = |to: Head| {
            identify(&to, Checksum::Md5, whole, "", &sent) == Identity::Same
                || same_checksum(from, &to)
        };
        if could_be_ours && self.head(&upload.key).await.is_ok_and(is_ours) {
            Ok(None)
        } else {
            Err(error)
        }
    }
}

/// Copies a range of the object `encoded` (bucket and key), in the version `etag`, to a part. The
/// checksum of the part is empty if the service does not compute one.
pub(super) async fn copy_part(
    upload: &Upload,
    number: u32,
    (encoded, etag, owner): (&str, Option<String>, Option<String>),
    range: Range<u64>,
) -> Result<SentPart> {
    let make = |client: Client, _| {
        let request = client
            .upload_part_copy()
            .bucket(&upload.store.bucket)
            .key(&upload.key)
            .upload_id(&upload.id)
            .part_number(number as i32)
            .copy_source(encoded)
            .copy_source_range(format!("bytes={}-{}", range.start, range.end - 1))
            .set_copy_source_if_match(etag.clone())
            .set_expected_source_bucket_owner(owner.clone())
            .set_request_payer(upload.store.options.payer())
            .set_expected_bucket_owner(upload.store.options.owner());
        async move { request.send().await.map_err(|error| classify("cannot copy a part", error)) }
    };
    let copying = upload.store.connection.slow_request(make);
    let output = copying.await.map_err(|error| error.at("part", number))?;
    let result = output.copy_part_result().ok_or_else(|| {
        let odd = "the answer to the copy of a part does not describe the part";
        Error::new(ErrorKind::Io, odd)
    })?;
    let checksum = match upload.checksum {
        Checksum::Crc64Nvme => result.checksum_crc64_nvme(),
        Checksum::Crc32c => result.checksum_crc32_c(),
        Checksum::Crc32 => result.checksum_crc32(),
        Checksum::Sha256 => result.checksum_sha256(),
        Checksum::Md5 => None,
    };
    let len = range.end - range.start;
    upload.store.connection.options().observer.note(&Event::Advanced { bytes: len, stored: len });
    Ok(SentPart {
        len,
        checksum: checksum.unwrap_or_default().to_owned(),
        etag: result.e_tag().unwrap_or_default().to_owned(),
    })
}

/// The value of the header that names the source of a copy.
pub(super) fn copy_source(bucket: &str, key: &str) -> String {
    utf8_percent_encode(&format!("{bucket}/{key}"), RESERVED_IN_PATH).to_string()
}

/// Bytes of a part of a copy of `len` bytes.
fn piece_of(len: u64) -> u64 {
    PIECE.max(len.div_ceil(super::MAX_PARTS).next_multiple_of(1 << 20))
}

/// Whether both have a checksum over all bytes, and these are equal.
fn same_checksum(from: &Head, to: &Head) -> bool {
    from.len == to.len
        && from
            .checksums
            .iter()
            .any(|(name, value)| !value.contains('-') && to.checksums.get(name) == Some(value))
}
