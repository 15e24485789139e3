//! Uploads whose beginning is recorded: an intent before the request, the id after the answer.

use std::time::SystemTime;

use super::bucket::S3Store;
use super::upload::Upload;
use crate::base::{Result, rfc3339};
use crate::object::{PriorUpload, UploadBegun, UploadIntent, UploadJournal};

impl S3Store {
    /// Reports to the journal that an upload of `key` will be begun.
    pub(super) fn intend(&self, key: &str, journal: &dyn UploadJournal) -> Result<()> {
        journal.upload_intended(&UploadIntent {
            endpoint: self.connection.endpoint().to_string(),
            region: self.connection.region(),
            bucket: self.bucket.clone(),
            key: key.to_owned(),
            profile: self.connection.profile(),
            started: rfc3339(SystemTime::now()),
        })
    }

    /// Aborts the upload of `key` that an earlier run began, recorded or not.
    pub(super) async fn abort_prior(&self, key: &str, prior: &PriorUpload) -> Result<()> {
        match prior {
            PriorUpload::None => Ok(()),
            PriorUpload::Unrecorded { started } => {
                Upload::abort_unrecorded(self, key, started, None).await
            }
            PriorUpload::Recorded { upload, .. } => {
                let there = Self { bucket: upload.bucket.clone(), ..self.clone() };
                super::open_uploads::abort(&there, &upload.key, &upload.upload_id).await
            }
        }
    }
}

impl Upload {
    /// Its record: the length of its parts, its tags, and the first part of each segment.
    pub(super) fn record(
        &self,
        part_size: u64,
        tags: Option<&str>,
        segments: Vec<u32>,
    ) -> UploadBegun {
        UploadBegun {
            endpoint: self.store.connection.endpoint().to_string(),
            region: self.store.connection.region(),
            bucket: self.store.bucket.clone(),
            key: self.key.clone(),
            upload_id: self.id.clone(),
            part_size,
            checksum: self.checksum.name().to_owned(),
            options: self.store.upload_options(tags),
            profile: self.store.connection.profile(),
            segments,
        }
    }
}
