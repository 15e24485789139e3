//! Refusals that the task service states in EC2's words. Failures of other services become
//! refusals by `Refusal::from`.

use super::super::Refusal;
use crate::base::{Error, ErrorCode};
use crate::engine::is_other_object;
use crate::taskdb::Conflict;
use crate::taskdb::one_line_of;

/// The refusal if the task database cannot be read or written.
pub(super) fn of_record(error: &Error) -> Refusal {
    Refusal::from(&error.duplicate().code_as(ErrorCode::TaskDatabaseUnusable))
}

/// The refusal of a signature whose use may be forgotten. Clients sign again, at the time of the
/// server.
pub(super) fn of_forgotten_signature() -> Refusal {
    Refusal::client(
        "RequestExpired",
        "Request has expired: the clock of this server was ahead, and the record of the requests \
         of this time is gone; sign it again",
    )
}

/// The refusal for an object that is not a sound archive.
pub(super) fn of_archive(error: &Error) -> Refusal {
    let refusal = Refusal::from(error);
    if !is_other_object(error) {
        return refusal;
    }
    let message = format!(
        "The object is not an archive of amistore, and only those are restored here; EC2 itself \
         restores its own, to which --forward hands it: {}",
        one_line_of(error)
    );
    Refusal { message, ..refusal }
}

/// The refusal if the object exists.
pub(super) fn already_stored() -> Refusal {
    Refusal::client(
        "InvalidRequest",
        "The AMI already exists in the bucket. You can't create multiple copies of an AMI in the \
         same S3 bucket.",
    )
}

/// The refusal of a conflict with recorded tasks.
pub(super) fn of_conflict(conflict: Conflict, name: &str) -> Refusal {
    match conflict {
        Conflict::Storing => Refusal::client(
            "InvalidRequest",
            "A CreateStoreImageTask is already in progress for the AMI. You can't run multiple \
             concurrent store image requests for the same AMI.",
        ),
        Conflict::Name(reserved) => Refusal::client(
            "InvalidAMIName.Duplicate",
            format!("AMI name {name} is already in use by AMI {reserved}"),
        ),
        Conflict::Queued(count) => Refusal::client(
            "ResourceLimitExceeded",
            format!("{count} tasks wait already: ask again when some have ended"),
        ),
        Conflict::Bytes(bytes) => Refusal::client(
            "ResourceLimitExceeded",
            format!(
                "tasks of this kind for {} GB are in progress already: ask again when some have \
                 ended",
                bytes >> 30
            ),
        ),
    }
}
