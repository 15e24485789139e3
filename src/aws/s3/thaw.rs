//! Restores objects from an archive tier of S3, before they can be read.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::types::{GlacierJobParameters, RestoreRequest, Tier};

use super::super::error::classify;
use super::bucket::{Head, S3Store};
use crate::base::{Error, ErrorCode, ErrorKind, Event, Result, Stage, StageGuard};

/// The retrieval tier: speed and price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThawTier {
    /// Minutes; not from Deep Archive.
    Expedited,
    /// 3 to 5 hours, 12 from Deep Archive.
    Standard,
    /// 5 to 12 hours, 48 from Deep Archive.
    Bulk,
}

impl ThawTier {
    /// AWS's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Expedited => "Expedited",
            Self::Standard => "Standard",
            Self::Bulk => "Bulk",
        }
    }
}

/// Options for an object in an archive tier.
#[derive(Clone, Copy, Debug)]
pub struct Thaw {
    /// The retrieval tier.
    pub tier: ThawTier,
    /// Days for which the restored copy stays.
    pub days: u32,
    /// Whether to wait until the object is restored.
    pub wait: bool,
    /// The poll interval.
    pub poll: Duration,
}

/// The error of an object that is not restored yet.
pub(super) fn frozen(cause: Error) -> Error {
    Error::new(
        ErrorKind::Io,
        "the object is in an archive tier, and has to be thawed before it can be read",
    )
    .code_as(ErrorCode::ObjectFrozen)
    .at("frozen", "true")
    .because(cause)
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Readable,
    Frozen,
    Thawing,
}

fn state(head: &Head) -> State {
    let archived = head
        .storage_class
        .as_deref()
        .is_some_and(|class| matches!(class, "GLACIER" | "DEEP_ARCHIVE"));
    match head.restore.as_deref() {
        Some(restore) if restore.contains("ongoing-request=\"true\"") => State::Thawing,
        Some(restore) if restore.contains("ongoing-request=\"false\"") => State::Readable,
        _ if archived => State::Frozen,
        _ => State::Readable,
    }
}

impl S3Store {
    /// Requests the restoration of an object in an archive tier, and waits for it if the options
    /// say so; otherwise an object that is not readable yet is an error. Does nothing for a
    /// readable object.
    pub fn thaw(&self, key: &str, thaw: Thaw) -> Result<()> {
        let look = || {
            self.connection
                .wait(self.head(key))
                .map(|head| (state(&head), head.storage_class.unwrap_or_default()))
        };
        let options = self.connection.options();
        let (mut now, class) = look()?;
        if now == State::Readable {
            return Ok(());
        }
        if now == State::Frozen {
            self.connection.wait(self.request_thaw(key, thaw))?;
            let message = format!(
                "requested a readable copy of {} ({class}, {}) for {} days",
                self.url(key),
                thaw.tier.name(),
                thaw.days
            );
            options.observer.note(&Event::Note { message });
            now = State::Thawing;
        }
        if !thaw.wait {
            let thawing = Error::new(
                ErrorKind::Io,
                "a readable copy of the object was requested, and is not there yet",
            )
            .code_as(ErrorCode::ObjectThawing);
            return Err(self.located(key)(thawing)
                .at("storage_class", class)
                .at("tier", thaw.tier.name()));
        }
        let stage = StageGuard::begin(options.observer.as_ref(), Stage::Thaw, None);
        while now != State::Readable {
            self.connection.wait(async {
                tokio::time::sleep(thaw.poll).await;
                Ok(())
            })?;
            now = look()?.0;
            // Shows that the program is alive.
            options.observer.note(&Event::Advanced { bytes: 0, stored: 0 });
            if now == State::Frozen {
                return Err(self.located(key)(Error::new(
                    ErrorKind::Io,
                    "the object is still in its archive tier although a copy was requested",
                )));
            }
        }
        stage.finish();
        Ok(())
    }

    async fn request_thaw(&self, key: &str, thaw: Thaw) -> Result<()> {
        let parameters = GlacierJobParameters::builder().tier(Tier::from(thaw.tier.name())).build();
        let parameters = parameters
            .map_err(|cause| Error::internal("cannot describe the request").because(cause))?;
        let request = RestoreRequest::builder()
            .days(thaw.days as i32)
            .glacier_job_parameters(parameters)
            .build();
        let make = |client: Client, _| {
            let request = client
                .restore_object()
                .bucket(&self.bucket)
                .key(key)
                .restore_request(request.clone())
                .set_request_payer(self.options.payer())
                .set_expected_bucket_owner(self.options.owner());
            async move {
                request.send().await.map_err(|error| {
                    classify("cannot request a readable copy of the object", error)
                })
            }
        };
        match self.connection.request(make).await {
            Err(error) if error.is(ErrorCode::RestoreInProgress) => Ok(()),
            result => result.map(|_| ()).map_err(self.located(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_an_object_follows_from_its_headers() {
        let head = |class: Option<&str>, restore: Option<&str>| Head {
            storage_class: class.map(ToOwned::to_owned),
            restore: restore.map(ToOwned::to_owned),
            ..Head::default()
        };
        assert_eq!(state(&head(None, None)), State::Readable);
        assert_eq!(state(&head(Some("GLACIER_IR"), None)), State::Readable);
        assert_eq!(state(&head(Some("GLACIER"), None)), State::Frozen);
        assert_eq!(
            state(&head(Some("DEEP_ARCHIVE"), Some("ongoing-request=\"true\""))),
            State::Thawing
        );
        let done = "ongoing-request=\"false\", expiry-date=\"Fri, 21 Dec 2026 00:00:00 GMT\"";
        assert_eq!(state(&head(Some("GLACIER"), Some(done))), State::Readable);
    }
}
