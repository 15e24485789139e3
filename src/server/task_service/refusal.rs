//! What cannot be taken on, in the words of EC2 where those are known (design: the wire shapes of
//! the three actions).

use super::super::Refusal;
use crate::base::{Error, ErrorKind, ImageId};
use crate::setup::told;
use crate::taskdb::Conflict;

/// Whatever went wrong behind the endpoint.
pub(super) fn of(error: &Error) -> Refusal {
    let with = |status: u16, code: &str| Refusal::new(status, code, told(error));
    match error.kind() {
        ErrorKind::Denied => with(403, "UnauthorizedOperation"),
        ErrorKind::Unsupported => with(400, "UnsupportedOperation"),
        ErrorKind::Usage => with(400, "InvalidParameterValue"),
        ErrorKind::NotFound | ErrorKind::Exists | ErrorKind::Corrupt => with(400, "InvalidRequest"),
        ErrorKind::Limit => with(503, "RequestLimitExceeded"),
        ErrorKind::Interrupted => Refusal::new(503, "Unavailable", "the server is stopping"),
        ErrorKind::Io if error.fact("attempts").is_some() || error.fact("endpoint").is_some() => {
            with(503, "Unavailable")
        }
        ErrorKind::Io => with(400, "InvalidRequest"),
        _ => with(500, "InternalError"),
    }
}

/// The record of tasks cannot be read or written.
pub(super) fn of_record(error: &Error) -> Refusal {
    Refusal::new(500, "InternalError", told(error))
}

/// An image cannot be stored.
pub(super) fn of_image(id: &ImageId, error: &Error) -> Refusal {
    let code = error.fact("code").filter(|code| code.starts_with("InvalidAMIID."));
    let is_image = error.fact("snapshot_id").is_none();
    match (code, error.fact("state")) {
        (Some(code), _) => {
            Refusal::client(code, error.causes().pop().unwrap_or_else(|| told(error)))
        }
        (None, _) if is_image && error.kind() == ErrorKind::NotFound => not_found(id),
        (None, Some(state)) if is_image => Refusal::client(
            "InvalidAMIID.Unavailable",
            format!("The image id '[{id}]' is not available: its state is {state}"),
        ),
        _ => of(error),
    }
}

fn not_found(id: &ImageId) -> Refusal {
    Refusal::client("InvalidAMIID.NotFound", format!("The image id '[{id}]' does not exist"))
}

/// An object is there already.
pub(super) fn already_stored() -> Refusal {
    Refusal::client(
        "InvalidRequest",
        "The AMI already exists in the bucket. You can't create multiple copies of an AMI in the same S3 bucket.",
    )
}

/// The name of a new image is taken.
pub(super) fn name_taken(name: &str, image_id: &str) -> Refusal {
    Refusal::client(
        "InvalidAMIName.Duplicate",
        format!("AMI name {name} is already in use by AMI {image_id}"),
    )
}

/// The record speaks against a task.
pub(super) fn of_conflict(conflict: Conflict, name: &str) -> Refusal {
    match conflict {
        Conflict::Storing => Refusal::client(
            "InvalidRequest",
            "A CreateStoreImageTask is already in progress for the AMI. You can't run multiple concurrent store image requests for the same AMI.",
        ),
        Conflict::Name(reserved) => name_taken(name, &reserved),
        Conflict::Queued(count) => Refusal::client(
            "ResourceLimitExceeded",
            format!("{count} tasks wait already: ask again when some have ended"),
        ),
        Conflict::Bytes(bytes) => Refusal::client(
            "ResourceLimitExceeded",
            format!(
                "tasks of this kind for {} GB are in progress already: ask again when some have ended",
                bytes >> 30
            ),
        ),
    }
}
