//! A bucket as a store of archives.

use std::sync::Arc;

use super::bucket::S3Store;
use super::open_uploads::OpenUpload;
use super::reader::S3Reader;
use super::upload::Upload;
use super::writer::S3Writer;
use crate::base::Result;
use crate::object::{
    Creation, Listed, ObjectReader, ObjectStore, ObjectWriter, Splice, Spliced, UploadBegun,
    UploadIntent,
};

impl S3Store {
    /// Uploads of `key` that were begun at or after `started` (RFC 3339, UTC) and have no parts:
    /// the process that began one may have been killed before it recorded the id.
    pub fn unrecorded_uploads(&self, key: &str, started: &str) -> Result<Vec<OpenUpload>> {
        let found = self.connection.wait(Upload::find_unrecorded(self, key, started, None))?;
        let uploads = found.into_iter().map(|upload| OpenUpload {
            key: upload.key,
            upload_id: upload.id,
            initiated: started.to_owned(),
        });
        Ok(uploads.collect())
    }
}

impl ObjectStore for S3Store {
    fn open(&self, key: &str) -> Result<Arc<dyn ObjectReader>> {
        Ok(Arc::new(S3Reader::open(self, key)?))
    }

    fn create(&self, key: &str, creation: Creation) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(S3Writer::create(self, key, creation)?))
    }

    fn splice(&self, key: &str, old: &dyn ObjectReader, splice: Splice<'_>) -> Result<Spliced> {
        super::splice::splice(self, key, old, splice)
    }

    fn abort(&self, upload: &UploadBegun) -> Result<()> {
        // Also after a cancellation: its parts are billed.
        let connection = self.connection.for_cleaning_up();
        let there = Self { bucket: upload.bucket.clone(), connection, ..self.clone() };
        there.abort_upload(&upload.key, &upload.upload_id)
    }

    fn abort_intended(&self, intent: &UploadIntent) -> Result<()> {
        let connection = self.connection.for_cleaning_up();
        let there = Self { bucket: intent.bucket.clone(), connection, ..self.clone() };
        let aborting = Upload::abort_unrecorded(&there, &intent.key, &intent.started, None);
        there.connection.wait(aborting)
    }

    fn list(&self, prefix: &str, found: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        super::listing::list(self, prefix, found)
    }
}
