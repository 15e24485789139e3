//! Uploads that are neither completed nor aborted: lists and aborts them.

use aws_sdk_s3::Client;

use super::super::error::classify;
use super::bucket::{S3Store, system_time};
use crate::base::{ErrorCode, ErrorKind, Result, rfc3339};

/// A multipart upload that is neither completed nor aborted. Its parts are billed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenUpload {
    /// The key.
    pub key: String,
    /// Its id.
    pub upload_id: String,
    /// Time of its beginning: RFC 3339, UTC.
    pub initiated: String,
}

impl S3Store {
    /// Lists uploads below a prefix that are neither completed nor aborted, a page at a time.
    pub fn open_uploads(
        &self,
        prefix: &str,
        found: &mut (dyn FnMut(OpenUpload) -> Result<()> + Send),
    ) -> Result<()> {
        self.connection.wait(self.find_uploads(prefix, found))
    }

    pub(super) async fn find_uploads(
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
            let page = self
                .connection
                .request(make)
                .await
                .map_err(|error| error.at("bucket", &self.bucket))?;
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

    /// Aborts an upload. An upload that does not exist any more is no error.
    pub fn abort_upload(&self, key: &str, upload_id: &str) -> Result<()> {
        self.connection.wait(abort(self, key, upload_id))
    }
}

/// Aborts an upload and deletes its parts. An upload that does not exist any more is no error.
pub(super) async fn abort(store: &S3Store, key: &str, id: &str) -> Result<()> {
    let make = |client: Client, _| {
        let request = client
            .abort_multipart_upload()
            .bucket(&store.bucket)
            .key(key)
            .upload_id(id)
            .set_request_payer(store.options.payer())
            .set_expected_bucket_owner(store.options.owner());
        async move {
            let sent = request.send().await;
            sent.map_err(|error| classify("cannot abort an upload", error))
        }
    };
    match store.connection.request(make).await {
        // A bucket that does not exist here may exist at another endpoint, with the upload.
        Err(error) if error.kind() == ErrorKind::NotFound && !error.is(ErrorCode::NoSuchBucket) => {
            Ok(())
        }
        result => result.map(|_| ()).map_err(|error| store.located(key)(error).at("upload_id", id)),
    }
}
