//! A bucket as a store of archives.

use std::sync::Arc;

use super::bucket::S3Store;
use super::reader::S3Reader;
use super::writer::S3Writer;
use crate::base::Result;
use crate::object::{Creation, Listed, ObjectReader, ObjectStore, ObjectWriter, UploadBegun};

impl ObjectStore for S3Store {
    fn open(&self, key: &str) -> Result<Arc<dyn ObjectReader>> {
        Ok(Arc::new(S3Reader::open(self, key)?))
    }

    fn create(&self, key: &str, creation: Creation) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(S3Writer::create(self, key, creation)?))
    }

    fn abort(&self, upload: &UploadBegun) -> Result<()> {
        let there = Self { bucket: upload.bucket.clone(), ..self.clone() };
        there.abort_upload(&upload.key, &upload.upload_id)
    }

    fn list(&self, prefix: &str, found: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        super::listing::list(self, prefix, found)
    }
}
