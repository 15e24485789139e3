//! Lists archives, and uploads that nobody finished.

use aws_sdk_s3::Client;

use super::super::error::classify;
use super::attributes::decode_metadata;
use super::store::{Head, S3Store, system_time};
use super::upload;
use crate::base::{ErrorKind, Event, Result, rfc3339};
use crate::object::Listed;

/// A multipart upload that is neither completed nor aborted. What was sent to it is billed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenUpload {
    /// The key it will have.
    pub key: String,
    /// What the service calls it.
    pub upload_id: String,
    /// When it was begun: RFC 3339, UTC.
    pub initiated: String,
}

/// Lists the archives below a prefix, a page at a time, each with its metadata.
pub(super) fn list(
    store: &S3Store,
    prefix: &str,
    found: &mut dyn FnMut(Listed) -> Result<()>,
) -> Result<()> {
    let mut token: Option<String> = None;
    loop {
        let make = |client: Client, _| {
            let request = client
                .list_objects_v2()
                .bucket(&store.bucket)
                .prefix(prefix)
                .set_continuation_token(token.clone())
                .set_request_payer(store.options.payer())
                .set_expected_bucket_owner(store.options.owner());
            async move {
                request.send().await.map_err(|error| classify("cannot list the bucket", error))
            }
        };
        let page = store
            .link
            .wait(store.link.request(make))
            .map_err(|error| error.at("bucket", &store.bucket))?;
        let archives: Vec<_> = page
            .contents()
            .iter()
            .filter(|object| object.key().is_some_and(|key| key.ends_with(".bin")))
            .collect();
        // A page has at most 1,000 keys; the limiter decides how many are looked at side by side.
        let heads = store.link.wait(async {
            let mut tasks = tokio::task::JoinSet::new();
            for (index, object) in archives.iter().enumerate() {
                let (store, key) = (store.clone(), object.key().unwrap_or_default().to_owned());
                tasks.spawn(async move { (index, store.head(&key).await) });
            }
            let mut heads = vec![None; archives.len()];
            while let Some(done) = tasks.join_next().await {
                if let Ok((index, head)) = done {
                    heads[index] = known(head)?;
                }
            }
            Ok(heads)
        })?;
        for (object, head) in archives.into_iter().zip(heads) {
            let head = head.unwrap_or_default();
            found(Listed {
                key: object.key().unwrap_or_default().to_owned(),
                len: object.size().and_then(|len| u64::try_from(len).ok()).unwrap_or(0),
                modified: object
                    .last_modified()
                    .map(|time| rfc3339(system_time(time)))
                    .unwrap_or_default(),
                storage_class: object
                    .storage_class()
                    .map(|class| class.as_str().to_owned())
                    .or(head.storage_class),
                metadata: decode_metadata(&head.metadata),
            })?;
        }
        let next = page.next_continuation_token().map(ToOwned::to_owned);
        if page.is_truncated() != Some(true) || next.is_none() || next == token {
            return Ok(());
        }
        token = next;
    }
}

/// An object that went away in between, or may not be looked at, is listed without metadata.
fn known(head: Result<Head>) -> Result<Option<Head>> {
    match head {
        Ok(head) => Ok(Some(head)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Denied) => Ok(None),
        Err(error) => Err(error),
    }
}

impl S3Store {
    /// Lists uploads below a prefix that are neither completed nor aborted, a page at a time.
    pub fn open_uploads(
        &self,
        prefix: &str,
        found: &mut (dyn FnMut(OpenUpload) -> Result<()> + Send),
    ) -> Result<()> {
        self.link.wait(self.find_uploads(prefix, found))
    }

    async fn find_uploads(
        &self,
        prefix: &str,
        found: &mut (dyn FnMut(OpenUpload) -> Result<()> + Send),
    ) -> Result<()> {
        let mut marker: (Option<String>, Option<String>) = (None, None);
        loop {
            let make = |client: Client, _| {
                let request = client
                    .list_multipart_uploads()
                    .bucket(&self.bucket)
                    .prefix(prefix)
                    .set_key_marker(marker.0.clone())
                    .set_upload_id_marker(marker.1.clone())
                    .set_request_payer(self.options.payer())
                    .set_expected_bucket_owner(self.options.owner());
                async move {
                    request
                        .send()
                        .await
                        .map_err(|error| classify("cannot list the uploads of the bucket", error))
                }
            };
            let page =
                self.link.request(make).await.map_err(|error| error.at("bucket", &self.bucket))?;
            for upload in page.uploads() {
                found(OpenUpload {
                    key: upload.key().unwrap_or_default().to_owned(),
                    upload_id: upload.upload_id().unwrap_or_default().to_owned(),
                    initiated: upload
                        .initiated()
                        .map(|time| rfc3339(system_time(time)))
                        .unwrap_or_default(),
                })?;
            }
            let next = (
                page.next_key_marker().map(ToOwned::to_owned),
                page.next_upload_id_marker().map(ToOwned::to_owned),
            );
            if page.is_truncated() != Some(true) || next.0.is_none() || next == marker {
                return Ok(());
            }
            marker = next;
        }
    }

    /// Aborts an upload. One that is gone already is no error.
    pub fn abort_upload(&self, key: &str, upload_id: &str) -> Result<()> {
        self.link.wait(upload::abort(self, key, upload_id))
    }

    /// Aborts uploads of `key` that were begun at or after `started` (RFC 3339) and got no part,
    /// but not `ours`: those whose name nobody learned, because the process was killed before it
    /// could note it, or the answer was lost.
    pub(super) async fn abort_unnamed(
        &self,
        key: &str,
        started: &str,
        ours: Option<&str>,
    ) -> Result<()> {
        let mut unnamed = Vec::new();
        let mut look = |upload: OpenUpload| {
            if upload.key == key
                && upload.initiated.as_str() >= started
                && Some(upload.upload_id.as_str()) != ours
            {
                unnamed.push(upload);
            }
            Ok(())
        };
        match self.find_uploads(key, &mut look).await {
            // Whoever may not list, or cannot, keeps an empty upload, which costs nothing.
            Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Unsupported) => {
                return Ok(());
            }
            listed => listed?,
        }
        for upload in unnamed {
            let handle = upload::Upload {
                store: self.clone(),
                key: key.to_owned(),
                id: upload.upload_id.clone(),
                checksum: self.options.checksum(),
            };
            if handle.parts().await.is_ok_and(|parts| parts.is_empty()) {
                let message = format!(
                    "an upload without parts is aborted, whose beginning got lost: {}",
                    upload.upload_id
                );
                self.link.options().observer.note(&Event::Note { message });
                upload::abort(self, key, &upload.upload_id).await?;
            }
        }
        Ok(())
    }
}
