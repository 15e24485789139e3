//! A bucket that is about to be written to.

use crate::aws::s3::S3Store;
use crate::base::{Error, ErrorCode, ErrorKind, Event, Observer, Result};

/// Looks at a bucket that will be written to, and refuses one that everybody may read, unless that
/// is allowed.
pub fn look_at_bucket(
    store: &S3Store,
    key: &str,
    allow_public: bool,
    observer: &dyn Observer,
) -> Result<()> {
    let found = store.preflight(key)?;
    let note = |message: String| observer.note(&Event::Note { message });
    note(format!(
        "bucket {} in {}",
        store.bucket(),
        found.region.as_deref().unwrap_or("a Region that it does not say")
    ));
    if let Some(why) = found.public {
        if !allow_public {
            let refused = Error::new(
                ErrorKind::Denied,
                "the bucket is public: everybody could read the disks of this image",
            );
            return Err(refused
                .code_as(ErrorCode::BucketIsPublic)
                .at("bucket", store.bucket())
                .at("because", why));
        }
        observer.note(&Event::Warning { message: format!("the bucket is public: {why}") });
    }
    if found.versioned {
        note("the bucket keeps old versions: replaced archives stay, and are billed".to_owned());
    }
    if found.object_lock {
        note("the bucket has object lock: an archive may not be deletable for a time".to_owned());
    }
    if !found.unanswered.is_empty() {
        note(format!(
            "not known of the bucket, because these may not be asked: {}",
            found.unanswered.join(", ")
        ));
    }
    Ok(())
}

/// What a task is known by: two services may have a bucket of one name.
pub fn task_target(store: &S3Store, url: &str) -> String {
    let endpoint = store.connection().endpoint();
    if endpoint.is_custom() { format!("{url} at {endpoint}") } else { url.to_owned() }
}
