//! A store in memory, for tests and benchmarks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Attributes, Creation, Listed, ObjectReader, ObjectStore, ObjectWriter};
use crate::base::{Error, ErrorKind, Result};
use crate::localfs::Overwrite;

type Objects = Arc<Mutex<BTreeMap<String, Object>>>;

#[derive(Clone, Debug)]
struct Object {
    bytes: Arc<Vec<u8>>,
    attributes: Attributes,
}

/// Objects by key. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Objects);

impl MemoryStore {
    /// The bytes of an object.
    pub fn get(&self, key: &str) -> Option<Arc<Vec<u8>>> {
        self.lock().get(key).map(|object| object.bytes.clone())
    }

    /// Inserts or replaces an object.
    pub fn put(&self, key: &str, bytes: Vec<u8>) {
        self.lock().insert(
            key.to_owned(),
            Object { bytes: Arc::new(bytes), attributes: Attributes::default() },
        );
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Object>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ObjectStore for MemoryStore {
    fn open(&self, key: &str) -> Result<Arc<dyn ObjectReader>> {
        let object = self.lock().get(key).cloned();
        let object = object.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "there is no such object").at("object", key)
        })?;
        Ok(Arc::new(MemoryReader {
            name: key.to_owned(),
            bytes: object.bytes,
            attributes: object.attributes,
        }))
    }

    fn create(&self, key: &str, creation: Creation) -> Result<Box<dyn ObjectWriter>> {
        self.check(key, creation.overwrite)?;
        Ok(Box::new(MemoryWriter {
            store: self.clone(),
            key: key.to_owned(),
            overwrite: creation.overwrite,
            attributes: creation.attributes,
            bytes: Vec::new(),
        }))
    }

    fn list(&self, prefix: &str, found: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        let listed = |(key, object): (&String, &Object)| Listed {
            key: key.clone(),
            len: object.bytes.len() as u64,
            modified: "1970-01-01T00:00:00Z".to_owned(),
            storage_class: None,
            metadata: object.attributes.metadata.clone(),
        };
        let all: Vec<Listed> = self
            .lock()
            .iter()
            .filter(|(key, _)| key.starts_with(prefix) && key.ends_with(".bin"))
            .map(listed)
            .collect();
        all.into_iter().try_for_each(found)
    }
}

impl MemoryStore {
    fn check(&self, key: &str, overwrite: Overwrite) -> Result<()> {
        match overwrite {
            Overwrite::No if self.get(key).is_some() => {
                Err(Error::new(ErrorKind::Exists, "the object exists").at("object", key))
            }
            _ => Ok(()),
        }
    }
}

/// An object in memory.
#[derive(Clone, Debug)]
pub struct MemoryReader {
    name: String,
    bytes: Arc<Vec<u8>>,
    attributes: Attributes,
}

#[cfg(feature = "internals")]
impl MemoryReader {
    /// An object with this name and content.
    pub fn new(name: &str, bytes: Vec<u8>) -> Self {
        Self { name: name.to_owned(), bytes: Arc::new(bytes), attributes: Attributes::default() }
    }
}

impl ObjectReader for MemoryReader {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = usize::try_from(offset)
            .ok()
            .and_then(|start| Some(start..start.checked_add(buffer.len())?));
        let bytes = end.and_then(|range| self.bytes.get(range));
        let bytes = bytes.ok_or_else(|| {
            Error::new(ErrorKind::Io, "the object ends before the requested range")
                .at("offset", offset)
        })?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn attributes(&self) -> Attributes {
        self.attributes.clone()
    }
}

struct MemoryWriter {
    store: MemoryStore,
    key: String,
    overwrite: Overwrite,
    attributes: Attributes,
    bytes: Vec<u8>,
}

impl ObjectWriter for MemoryWriter {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<()> {
        self.store.check(&self.key, self.overwrite)?;
        self.store
            .lock()
            .insert(self.key, Object { bytes: Arc::new(self.bytes), attributes: self.attributes });
        Ok(())
    }
}
