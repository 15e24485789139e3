//! The requests of a multipart upload, one function each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::super::base64;
use super::super::body::{MeteredBody, Progress};
use super::super::error::{Failure, classify};
use super::super::{BandwidthLimit, ConnectionOptions};
use super::bucket::{Head, S3Store};
use super::checksum::Checksum;
use super::condition::Condition;
use super::open_uploads::{OpenUpload, abort};
use crate::base::{Error, ErrorCode, ErrorKind, Event, Result, hex, rfc3339};

/// A part as the service lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListedPart {
    pub(super) len: u64,
    pub(super) etag: String,
    /// The checksum of the upload's algorithm, if the service stores one.
    pub(super) checksum: Option<String>,
}

/// A part that the service has confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SentPart {
    pub(super) len: u64,
    pub(super) checksum: String,
    pub(super) etag: String,
}

/// An object that a request has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// With its quotation marks.
    pub(super) etag: Option<String>,
    /// The version in a bucket with versioning.
    pub(super) version_id: Option<String>,
}

/// One multipart upload.
#[derive(Clone)]
pub(super) struct Upload {
    pub(super) store: S3Store,
    pub(super) key: String,
    pub(super) id: String,
    pub(super) checksum: Checksum,
}

impl Upload {
    /// Begins an upload. If the store does not support the checksum it is repeated with MD5,
    /// which every store supports.
    pub(super) async fn begin(
        store: &S3Store,
        key: &str,
        metadata: &BTreeMap<String, String>,
        tags: Option<String>,
    ) -> Result<Self> {
        let checksum = store.checksum();
        match Self::begin_with(store, key, metadata, tags.clone(), checksum).await {
            Err(error) if checksum != Checksum::Md5 && lacks_checksum(&error) => {
                let message = format!(
                    "the store does not know {}: every part travels with an MD5 digest instead",
                    checksum.name()
                );
                store.connection.options().observer.note(&Event::Warning { message });
                Self::begin_with(store, key, metadata, tags, Checksum::Md5).await
            }
            begun => begun,
        }
    }

    async fn begin_with(
        store: &S3Store,
        key: &str,
        metadata: &BTreeMap<String, String>,
        tags: Option<String>,
        checksum: Checksum,
    ) -> Result<Self> {
        let options = &store.options;
        let (started, attempts) = (rfc3339(SystemTime::now()), AtomicU32::new(0));
        let make = |client: Client, _| {
            attempts.fetch_add(1, Ordering::Relaxed);
            let request = client
                .create_multipart_upload()
                .bucket(&store.bucket)
                .key(key)
                .content_type("application/octet-stream")
                .set_metadata(Some(metadata.clone().into_iter().collect()))
                .set_tagging(tags.clone())
                .set_storage_class(options.class())
                .set_server_side_encryption(options.encryption())
                .set_ssekms_key_id(options.sse_kms_key_id.clone())
                .set_checksum_algorithm(checksum.algorithm())
                .set_checksum_type(checksum.kind())
                .set_request_payer(options.payer())
                .set_expected_bucket_owner(options.owner());
            async move {
                request.send().await.map_err(|error| classify("cannot begin an upload", error))
            }
        };
        let output = match store.connection.until_answered().request(make).await {
            Ok(output) => output,
            Err(error) => {
                // The request may have begun an upload whose answer was lost. The first error is
                // the one to report.
                if matches!(error.kind(), ErrorKind::Io | ErrorKind::Interrupted)
                    && attempts.load(Ordering::Relaxed) > 0
                {
                    let store =
                        S3Store { connection: store.connection.for_cleaning_up(), ..store.clone() };
                    let _ = Self::abort_unrecorded(&store, key, &started, None).await;
                }
                return Err(store.located(key)(error));
            }
        };
        let id = output.upload_id().filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| {
            Error::new(ErrorKind::Io, "the store began an upload, and its answer has no upload id")
        })?;
        let upload =
            Self { store: store.clone(), key: key.to_owned(), id: id.to_owned(), checksum };
        // An earlier attempt may have begun an upload whose answer was lost.
        if attempts.load(Ordering::Relaxed) > 1
            && let Err(error) = Self::abort_unrecorded(store, key, &started, Some(id)).await
        {
            // The caller does not learn the id of this upload. The first error is the one to
            // report.
            let _ = upload.abort_anyway().await;
            return Err(error);
        }
        Ok(upload)
    }

    fn located(&self) -> impl Fn(Error) -> Error + use<> {
        let (located, id) = (self.store.located(&self.key), self.id.clone());
        move |error| located(error).at("upload_id", &id)
    }

    /// Sends a part. A part that is sent again replaces the earlier one.
    pub(super) async fn put(&self, number: u32, data: Bytes, checksum: String) -> Result<SentPart> {
        let options = &self.store.options;
        let len = data.len() as u64;
        let make = |client: Client, progress: Progress| {
            let body = RequestBody::new(&self.store, data.clone(), progress);
            let value = Some(checksum.clone());
            let only = |algorithm: Checksum| value.clone().filter(|_| self.checksum == algorithm);
            let request = client
                .upload_part()
                .bucket(&self.store.bucket)
                .key(&self.key)
                .upload_id(&self.id)
                .part_number(number as i32)
                .content_length(len as i64)
                .body(body.stream())
                .set_checksum_algorithm(self.checksum.algorithm())
                .set_checksum_crc64_nvme(only(Checksum::Crc64Nvme))
                .set_checksum_crc32_c(only(Checksum::Crc32c))
                .set_checksum_crc32(only(Checksum::Crc32))
                .set_checksum_sha256(only(Checksum::Sha256))
                .set_content_md5(only(Checksum::Md5))
                .set_request_payer(options.payer())
                .set_expected_bucket_owner(options.owner());
            body.send(
                request,
                |request| request.send(),
                |request| request.customize().disable_payload_signing().send(),
                "cannot upload a part",
            )
        };
        let located = |error: Error| self.located()(error).at("part", number);
        let output = self.store.connection.request(make).await.map_err(located)?;
        let echoed = match self.checksum {
            Checksum::Crc64Nvme => output.checksum_crc64_nvme(),
            Checksum::Crc32c => output.checksum_crc32_c(),
            Checksum::Crc32 => output.checksum_crc32(),
            Checksum::Sha256 => output.checksum_sha256(),
            Checksum::Md5 => None,
        };
        if echoed.is_some_and(|echoed| echoed != checksum) {
            return Err(located(
                Error::new(ErrorKind::Io, "the store confirmed a part with another checksum")
                    .at("checksum", checksum),
            ));
        }
        Ok(SentPart { len, checksum, etag: output.e_tag().unwrap_or_default().to_owned() })
    }

    /// The parts that the service has, by number. An error of kind `NotFound` if there is no such
    /// upload.
    pub(super) async fn parts(&self) -> Result<BTreeMap<u32, ListedPart>> {
        let mut parts = BTreeMap::new();
        let mut marker: Option<String> = None;
        loop {
            let make = |client: Client, _| {
                let request = client
                    .list_parts()
                    .bucket(&self.store.bucket)
                    .key(&self.key)
                    .upload_id(&self.id)
                    .set_part_number_marker(marker.clone())
                    .set_request_payer(self.store.options.payer())
                    .set_expected_bucket_owner(self.store.options.owner());
                async move {
                    request
                        .send()
                        .await
                        .map_err(|error| classify("cannot list the parts of an upload", error))
                }
            };
            let page = self.store.connection.request(make).await.map_err(self.located())?;
            for part in page.parts() {
                let checksum = match self.checksum {
                    Checksum::Crc64Nvme => part.checksum_crc64_nvme(),
                    Checksum::Crc32c => part.checksum_crc32_c(),
                    Checksum::Crc32 => part.checksum_crc32(),
                    Checksum::Sha256 => part.checksum_sha256(),
                    Checksum::Md5 => None,
                };
                let number =
                    part.part_number().and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
                let len = part.size().and_then(|len| u64::try_from(len).ok()).unwrap_or(0);
                parts.insert(
                    number,
                    ListedPart {
                        len,
                        etag: part.e_tag().unwrap_or_default().to_owned(),
                        checksum: checksum.map(ToOwned::to_owned),
                    },
                );
            }
            let next = page.next_part_number_marker().map(ToOwned::to_owned);
            // A marker that does not change would repeat the page for ever.
            if page.is_truncated() != Some(true) || next.is_none() || next == marker {
                return Ok(parts);
            }
            marker = next;
        }
    }

    /// Completes the object from all parts, ascending by number. `whole` is its checksum; without
    /// it the service compares none.
    pub(super) async fn complete(
        &self,
        numbered: &[(u32, SentPart)],
        whole: Option<&str>,
        condition: &Condition,
    ) -> Result<Written> {
        let completed = numbered.iter().map(|(number, part)| {
            let has_checksum = self.checksum == Checksum::Sha256 && !part.checksum.is_empty();
            let composite = Some(part.checksum.clone()).filter(|_| has_checksum);
            CompletedPart::builder()
                .part_number(*number as i32)
                .e_tag(&part.etag)
                .set_checksum_sha256(composite)
                .build()
        });
        let completed =
            CompletedMultipartUpload::builder().set_parts(Some(completed.collect())).build();
        let len: u64 = numbered.iter().map(|(_, part)| part.len).sum();
        let only =
            |algorithm: Checksum| whole.filter(|_| self.checksum == algorithm).map(str::to_owned);
        let make = |client: Client, _| {
            let request = client
                .complete_multipart_upload()
                .bucket(&self.store.bucket)
                .key(&self.key)
                .upload_id(&self.id)
                .multipart_upload(completed.clone())
                .mpu_object_size(len as i64)
                .set_checksum_type(whole.and_then(|_| self.checksum.kind()))
                .set_checksum_crc64_nvme(only(Checksum::Crc64Nvme))
                .set_checksum_crc32_c(only(Checksum::Crc32c))
                .set_checksum_crc32(only(Checksum::Crc32))
                .set_checksum_sha256(only(Checksum::Sha256))
                .set_if_none_match(condition.if_none_match())
                .set_if_match(condition.if_match())
                .set_request_payer(self.store.options.payer())
                .set_expected_bucket_owner(self.store.options.owner());
            async move {
                request.send().await.map_err(|error| classify("cannot complete the upload", error))
            }
        };
        // The service joins thousands of parts before it answers.
        let output = self.store.connection.slow_request(make).await.map_err(self.located())?;
        Ok(Written {
            etag: output.e_tag().map(ToOwned::to_owned),
            version_id: output.version_id().map(ToOwned::to_owned),
        })
    }

    /// The checksum of the object that consists of these parts, as HeadObject prints it.
    pub(super) fn checksum_of(&self, parts: &[SentPart]) -> Result<String> {
        self.checksum.of_object(parts.iter().map(|part| (part.checksum.as_str(), part.len)))
    }

    /// Uploads of `key` that were begun at or after `started` (RFC 3339) and have no parts, except
    /// the upload `ours`: uploads whose id was never recorded, because the process was killed or
    /// the answer was lost.
    pub(super) async fn find_unrecorded(
        store: &S3Store,
        key: &str,
        started: &str,
        ours: Option<&str>,
    ) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        let mut look = |upload: OpenUpload| {
            if upload.key == key
                && upload.initiated.as_str() >= started
                && Some(upload.upload_id.as_str()) != ours
            {
                found.push(upload);
            }
            Ok(())
        };
        match store.find_uploads(key, &mut look).await {
            // Uploads cannot be listed. An upload without parts costs nothing.
            Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Unsupported) => {
                return Ok(Vec::new());
            }
            listed => listed?,
        }
        let mut unrecorded = Vec::new();
        for upload in found {
            let checksum = store.checksum();
            let (id, key) = (upload.upload_id, key.to_owned());
            let upload = Self { store: store.clone(), key, id, checksum };
            if upload.parts().await.is_ok_and(|parts| parts.is_empty()) {
                unrecorded.push(upload);
            }
        }
        Ok(unrecorded)
    }

    /// Aborts the uploads that [`find_unrecorded`](Self::find_unrecorded) finds.
    pub(super) async fn abort_unrecorded(
        store: &S3Store,
        key: &str,
        started: &str,
        ours: Option<&str>,
    ) -> Result<()> {
        for upload in Self::find_unrecorded(store, key, started, ours).await? {
            let message = format!(
                "an upload without parts is aborted, because its id was never recorded: {}",
                upload.id
            );
            store.connection.options().observer.note(&Event::Note { message });
            abort(store, &upload.key, &upload.id).await?;
        }
        Ok(())
    }

    /// Aborts the upload and deletes its parts, also after a cancellation. An upload that does not
    /// exist any more is no error.
    pub(super) async fn abort_anyway(&self) -> Result<()> {
        let store =
            S3Store { connection: self.store.connection.for_cleaning_up(), ..self.store.clone() };
        abort(&store, &self.key, &self.id).await
    }
}

/// Puts a small object in one request.
pub(super) async fn put_object(
    store: &S3Store,
    key: &str,
    data: Bytes,
    metadata: &BTreeMap<String, String>,
    tags: Option<String>,
    condition: &Condition,
    checksum: Checksum,
) -> Result<Written> {
    let options = &store.options;
    let value = checksum.of(&data);
    let only = |algorithm: Checksum| Some(value.clone()).filter(|_| checksum == algorithm);
    let make = |client: Client, progress: Progress| {
        let body = RequestBody::new(store, data.clone(), progress);
        let request = client
            .put_object()
            .bucket(&store.bucket)
            .key(key)
            .content_type("application/octet-stream")
            .content_length(data.len() as i64)
            .body(body.stream())
            .set_metadata(Some(metadata.clone().into_iter().collect()))
            .set_tagging(tags.clone())
            .set_storage_class(options.class())
            .set_server_side_encryption(options.encryption())
            .set_ssekms_key_id(options.sse_kms_key_id.clone())
            .set_checksum_algorithm(checksum.algorithm())
            .set_checksum_crc64_nvme(only(Checksum::Crc64Nvme))
            .set_checksum_crc32_c(only(Checksum::Crc32c))
            .set_checksum_crc32(only(Checksum::Crc32))
            .set_checksum_sha256(only(Checksum::Sha256))
            .set_content_md5(only(Checksum::Md5))
            .set_if_none_match(condition.if_none_match())
            .set_if_match(condition.if_match())
            .set_request_payer(options.payer())
            .set_expected_bucket_owner(options.owner());
        body.send(
            request,
            |request| request.send(),
            |request| request.customize().disable_payload_signing().send(),
            "cannot put the object",
        )
    };
    let output = store.connection.request(make).await.map_err(store.located(key))?;
    Ok(Written {
        etag: output.e_tag().map(ToOwned::to_owned),
        version_id: output.version_id().map(ToOwned::to_owned),
    })
}

/// Whether the request succeeded with an answer that is not S3's: status 200 without an error code.
pub(super) fn is_unreadable(error: &Error) -> bool {
    error.is(ErrorCode::UnreadableAnswer)
        && error.answer().is_some_and(|answer| answer.status == 200)
}

/// The body of one attempt: in pieces that are metered and subject to the bandwidth limit, or in
/// one piece if it has to be signed.
struct RequestBody<'a> {
    data: Bytes,
    is_signed: bool,
    options: &'a ConnectionOptions,
    progress: Progress,
}

impl<'a> RequestBody<'a> {
    fn new(store: &'a S3Store, data: Bytes, progress: Progress) -> Self {
        let (is_signed, options) = (store.connection.signs_bodies(), store.connection.options());
        Self { data, is_signed, options, progress }
    }

    fn stream(&self) -> ByteStream {
        let data = self.data.clone();
        if self.is_signed {
            return ByteStream::from(data);
        }
        let (bandwidth, observer) = (self.options.bandwidth.clone(), self.options.observer.clone());
        ByteStream::new(MeteredBody::sdk_body(data, bandwidth, self.progress.clone(), observer))
    }

    /// Sends `request`, which has this body, by `send` or, if the body is not signed, by
    /// `send_unsigned`: the SDK has no type that all requests share. `doing` is the message of the
    /// error.
    async fn send<R, S, U, T, E>(
        self,
        request: R,
        send: impl FnOnce(R) -> S,
        send_unsigned: impl FnOnce(R) -> U,
        doing: &'static str,
    ) -> Result<T, Failure>
    where
        S: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        U: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let sent = if self.is_signed {
            let len = self.data.len() as u64;
            in_one_piece(len, self.options.bandwidth.as_ref(), &self.progress).await;
            let sent = send(request).await;
            self.options.observer.note(&Event::Sent { bytes: len });
            sent
        } else {
            send_unsigned(request).await
        };
        sent.map_err(|error| classify(doing, error))
    }
}

/// Waits for the bandwidth limit's share of a signed body, which is sent in one piece without
/// progress; the idle timeout starts after the time that the body takes at 64 KiB a second.
async fn in_one_piece(len: u64, bandwidth: Option<&BandwidthLimit>, progress: &Progress) {
    let mut start = Instant::now();
    if let Some(limit) = bandwidth {
        start = limit.admit(len);
    }
    progress.moved(start + Duration::from_secs(len >> 16));
    sleep_until(start).await;
}

/// Whether the store may have refused a request because of its checksum.
pub(super) fn lacks_checksum(error: &Error) -> bool {
    error.kind() == ErrorKind::Unsupported || error.is(ErrorCode::ChecksumUnsupported)
}

/// Result of comparing an object with the bytes that were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// The checksum is equal, or the ETag is that of the confirmed parts, and no length differs.
    Same,
    /// No length differs, and the store returned nothing else to compare.
    Unknown,
    /// It is another object.
    Other,
}

/// Compares an object with the parts that were sent, or, if `parts` is empty, with a single body
/// whose checksum is `whole`.
pub(super) fn identify(
    head: &Head,
    checksum: Checksum,
    len: u64,
    whole: &str,
    parts: &[SentPart],
) -> Identity {
    if head.len.is_some_and(|found| found != len) {
        return Identity::Other;
    }
    let etag = if parts.is_empty() {
        plain_etag(whole).filter(|_| checksum == Checksum::Md5)
    } else {
        etag_of(parts)
    };
    // With some encryption ETags are not MD5 digests and cannot be compared.
    let opaque = head.has_opaque_etag
        || parts.iter().any(|part| {
            checksum == Checksum::Md5 && md5_of_etag(&part.etag).as_ref() != Some(&part.checksum)
        });
    let same_etag =
        etag.zip(head.etag.as_ref()).map(|(etag, found)| etag == found.trim_matches('"'));
    // A value of another length is not a checksum of this algorithm.
    let stored = head.checksums.get(checksum.name()).filter(|stored| stored.len() == whole.len());
    match (stored, same_etag) {
        (Some(stored), _) if stored == whole => Identity::Same,
        (Some(_), _) => Identity::Other,
        (None, Some(true)) => Identity::Same,
        (None, Some(false)) if checksum == Checksum::Md5 && !parts.is_empty() && !opaque => {
            Identity::Other
        }
        (None, _) => Identity::Unknown,
    }
}

/// The ETag of an object of these parts, where ETags are MD5 digests: the digest of the parts'
/// digests, and the number of parts.
fn etag_of(parts: &[SentPart]) -> Option<String> {
    let digests = parts
        .iter()
        .map(|part| md5_of_etag(&part.etag).map(|md5| (md5, 0)))
        .collect::<Option<Vec<_>>>()?;
    let pairs = digests.iter().map(|(md5, len)| (md5.as_str(), *len));
    Checksum::Md5.of_object(pairs).ok().map(|etag| etag.trim_matches('"').to_owned())
}

/// The ETag of an object that was put in one request: the MD5 digest in hex.
fn plain_etag(md5: &str) -> Option<String> {
    base64::decode(md5).map(|digest| hex(&digest))
}

/// The MD5 digest in the ETag of a part, in Base64.
pub(super) fn md5_of_etag(etag: &str) -> Option<String> {
    let text = etag.trim_matches('"');
    if text.len() != 32 {
        return None;
    }
    let digits = (0..16).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16));
    digits.collect::<Result<Vec<u8>, _>>().ok().map(|digest| base64::encode(&digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_length_is_not_another_length() {
        let compare = |len: Option<u64>, checksum: Option<&str>| {
            let checksums = checksum.map(|value| ("CRC32", value.to_owned())).into_iter().collect();
            let head = Head { len, checksums, ..Head::default() };
            identify(&head, Checksum::Crc32, 7, "AAAAAA==", &[])
        };
        assert!(compare(Some(7), Some("AAAAAA==")) == Identity::Same);
        assert!(compare(Some(8), Some("AAAAAA==")) == Identity::Other);
        assert!(compare(None, Some("AAAAAA==")) == Identity::Same);
        assert!(compare(None, Some("BBBBBB==")) == Identity::Other);
        assert!(compare(None, None) == Identity::Unknown);
    }
}
