//! Stores of archives.

use std::sync::Arc;

use super::Options;
#[cfg(feature = "aws")]
use crate::aws::RequestSettings;
#[cfg(feature = "aws")]
use crate::aws::s3::{ObjectOptions, S3Store};
use crate::base::{Error, Result};
use crate::object::{DirectoryStore, Listed, ObjectReader, ObjectStore};
#[cfg(feature = "aws")]
use crate::ops::BucketDestination;
use crate::ops::{Destination, StoreUrl, located};

/// A store of archives: a directory, a prefix of a bucket, or an [`ObjectStore`] of your own.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    /// The prefix of all keys: empty, or with `/` at its end.
    prefix: String,
    #[cfg(feature = "aws")]
    bucket: Option<S3Store>,
}

impl Store {
    /// A store of your own, such as a [`MemoryStore`](crate::object::MemoryStore).
    pub fn new(store: impl ObjectStore + 'static) -> Self {
        Self::at(Arc::new(store), String::new())
    }

    fn at(objects: Arc<dyn ObjectStore>, prefix: String) -> Self {
        Self {
            objects,
            prefix,
            #[cfg(feature = "aws")]
            bucket: None,
        }
    }

    /// Opens the object `key`, to be read by ranges. An error of kind
    /// [`NotFound`](crate::base::ErrorKind::NotFound) if there is none.
    pub fn get(&self, key: &str) -> Result<Arc<dyn ObjectReader>> {
        self.objects.open(&self.key(key))
    }

    /// The archives, ascending by key. Their contents are not read.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let mut found = Vec::new();
        self.objects.list(&self.prefix, &mut |mut listed| {
            listed.key = listed.key.split_off(self.prefix.len());
            found.push(listed);
            Ok(())
        })?;
        Ok(found)
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// The destination of the archive `key` that is made of `source`.
    pub(super) fn destination(&self, key: &str, source: &str, options: &Options) -> Destination {
        let key = self.key(key);
        #[cfg(feature = "aws")]
        if let Some(store) = &self.bucket {
            let url = format!("s3://{}/{key}", store.bucket());
            let target = store.task_target(&url);
            return Destination::Bucket(Box::new(BucketDestination {
                resumption: options.resumption(source.to_owned(), target),
                ..BucketDestination::new(store.clone(), key)
            }));
        }
        let _ = (source, options);
        Destination::Object { store: self.objects.clone(), key }
    }
}

/// Opens a store: a directory such as `archives/`, or with feature `aws` a bucket or a prefix, such
/// as `s3://bucket/prefix/`. Sends no request; requests of the store end with the cancel token, and
/// report to the observer, of `options`.
pub fn open_store(url: &str, options: &Options) -> Result<Store> {
    match StoreUrl::parse(url)? {
        #[cfg(feature = "aws")]
        StoreUrl::S3(location) => {
            if !location.is_prefix() {
                return Err(not_a_prefix(url));
            }
            let store = options.session().bucket(
                &location.bucket,
                options.access.clone(),
                &RequestSettings::default(),
                ObjectOptions::default(),
            )?;
            let objects = Arc::new(store.clone());
            Ok(Store { objects, prefix: location.key, bucket: Some(store) })
        }
        StoreUrl::Store(url) => {
            let (objects, prefix) = located(&url)?;
            if !(prefix.is_empty() || prefix.ends_with('/')) {
                return Err(not_a_prefix(&url));
            }
            Ok(Store::at(objects, prefix))
        }
        StoreUrl::Path(path) => Ok(Store::new(DirectoryStore::new(path, options.durability))),
    }
}

fn not_a_prefix(url: &str) -> Error {
    Error::usage("a store is a directory, a bucket, or a prefix that ends with /").at("url", url)
}
