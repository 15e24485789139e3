//! The roots of listed archives, from their metadata or else from their last bytes.

use std::sync::{Mutex, PoisonError};

use super::list::ListedObject;
use crate::base::{Cancel, ErrorKind, Event, Observer, Result, hex};
use crate::engine::{ROOT_METADATA, read_footer, run_parallel};
use crate::object::ObjectStore;

/// Archives that are opened at a time.
const WORKERS: usize = 16;

/// The root of each archive, in hex: as its metadata says, or else as its footer does. `None` for
/// an object that is no archive, is frozen, may not be read or is gone; a warning names an archive
/// whose footer could not be read for another reason.
pub fn roots_of(
    store: &dyn ObjectStore,
    found: &[ListedObject],
    observer: &dyn Observer,
    cancel: &Cancel,
) -> Result<Vec<Option<String>>> {
    let known = |found: &ListedObject| {
        found.listed.metadata.get(ROOT_METADATA).or(found.root.as_ref()).cloned()
    };
    let roots: Vec<Option<String>> = found.iter().map(known).collect();
    let is_unknown = |at: &usize| roots[*at].is_none() && found[*at].is_archive != Some(false);
    let unknown: Vec<usize> = (0..found.len()).filter(is_unknown).collect();
    let workers = WORKERS.min(unknown.len());
    if workers == 0 {
        return Ok(roots);
    }
    let (roots, waiting) = (Mutex::new(roots), Mutex::new(unknown.into_iter()));
    let cancel = cancel.child();
    let work = || -> Result<()> {
        loop {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(at) = next else { return Ok(()) };
            cancel.check()?;
            let root = root_of(store, &found[at].listed.key, observer)?;
            roots.lock().unwrap_or_else(PoisonError::into_inner)[at] = root;
        }
    };
    run_parallel(&cancel, vec![&work; workers])?;
    Ok(roots.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn root_of(store: &dyn ObjectStore, key: &str, observer: &dyn Observer) -> Result<Option<String>> {
    match store.open(key).and_then(|reader| read_footer(reader.as_ref())) {
        Ok(footer) => Ok(Some(hex(&footer.root))),
        Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
        Err(error) => {
            let has_none = matches!(
                error.kind(),
                ErrorKind::Corrupt
                    | ErrorKind::Denied
                    | ErrorKind::NotFound
                    | ErrorKind::Unsupported
                    | ErrorKind::Usage
            );
            if !has_none {
                let message = format!("the root of {key} could not be read: {error}");
                observer.note(&Event::Warning { message });
            }
            Ok(None)
        }
    }
}
