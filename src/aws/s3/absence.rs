//! Writes that must not replace an object.
//!
//! Two mechanisms prevent it: HeadObject before the write, and the condition `If-None-Match: *` of
//! the write itself. Credentials may lack the permission for the first, and stores other than S3
//! may refuse or ignore the second. A write is refused where neither of the two works.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::super::error::classify;
use super::super::needs_other_credentials;
use super::bucket::{ObjectOptions, S3Store};
use super::checksum::Checksum;
use super::condition::{Condition, same_etag};
use super::upload::{Written, put_object};
use crate::base::{Error, ErrorCode, ErrorKind, Result, Retry, random_id};
use crate::localfs::Overwrite;

/// The body of a probe object, for a person who finds one.
const PROBE: &[u8] = b"amistore tests with this object whether the store honours conditions.\n";
/// The longest key, in bytes.
const MAX_KEY: usize = 1024;
/// An ETag that no object has.
const NO_ETAG: &str = "\"00000000000000000000000000000000\"";

/// The protection of an object that a write could replace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Protection {
    /// None: the object may be replaced.
    Replace,
    /// Only the object with this ETag may be replaced. HeadObject has found it, or is refused, and
    /// the write has the condition if the store supports it.
    Version(String),
    /// HeadObject has found no object, and the write has the condition if the store supports it.
    Absent,
    /// HeadObject is refused: the condition alone protects the object.
    ConditionOnly,
}

impl S3Store {
    /// Fails with `Exists` if the object exists, and with `Denied` if neither HeadObject nor a
    /// condition of the write can tell. May write and delete a probe object beside the key.
    pub fn check_absent(&self, key: &str) -> Result<()> {
        self.connection.wait(self.protection(key, Overwrite::No)).map(drop)
    }

    /// [`check_absent`](Self::check_absent), unless the object may be replaced. Called before the
    /// first byte is read and before the object is made.
    pub(super) async fn protection(&self, key: &str, overwrite: Overwrite) -> Result<Protection> {
        if overwrite == Overwrite::Yes {
            return Ok(Protection::Replace);
        }
        match self.head(key).await {
            Ok(_) => Err(self.located(key)(Error::new(ErrorKind::Exists, "the object exists"))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Protection::Absent),
            Err(error) if is_refusal(&error) => {
                self.require_conditions(key, error).await?;
                Ok(Protection::ConditionOnly)
            }
            Err(error) => Err(error),
        }
    }

    /// The protection of a write that replaces the object with this ETag, and no other.
    pub(super) async fn protection_of_version(&self, key: &str, etag: &str) -> Result<Protection> {
        match self.head(key).await {
            Ok(head) if head.etag.as_deref().is_some_and(|found| !same_etag(found, etag)) => {
                Err(self.replaced(key))
            }
            Ok(_) => Ok(Protection::Version(etag.to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(self.replaced(key)),
            Err(error) if is_refusal(&error) => Ok(Protection::Version(etag.to_owned())),
            Err(error) => Err(error),
        }
    }

    /// The error of an object that is not the one that was read any more.
    pub(super) fn replaced(&self, key: &str) -> Error {
        let error = Error::new(
            ErrorKind::Io,
            "the object was replaced or removed meanwhile: it is not written",
        );
        self.located(key)(error.code_as(ErrorCode::ObjectReplaced))
    }

    /// Calls `write` with the condition of `protection`, and without it if the store does not
    /// support conditions and HeadObject told the same a moment ago.
    pub(super) async fn write_protected<T>(
        &self,
        protection: Protection,
        write: impl AsyncFn(Condition) -> Result<T>,
    ) -> Result<T> {
        let is_known = matches!(protection, Protection::Absent | Protection::Version(_));
        let condition = match protection {
            Protection::Replace => Condition::None,
            Protection::Version(etag) => Condition::Version(etag),
            Protection::Absent | Protection::ConditionOnly => Condition::Absent,
        };
        match write(condition).await {
            Err(error) if is_known && error.kind() == ErrorKind::Unsupported => {
                write(Condition::None).await
            }
            outcome => outcome,
        }
    }

    /// Fails unless the store honours `If-None-Match`. S3 does; another store has to show it with a
    /// probe object. `cause` is the refusal of HeadObject.
    async fn require_conditions(&self, key: &str, cause: Error) -> Result<()> {
        let known = &self.observed.honours_if_none_match;
        if self.connection.endpoint().is_aws() || known.load(Ordering::Relaxed) {
            return Ok(());
        }
        let unknown = |cause: Error, conditions: &'static str| {
            let error = Error::new(
                ErrorKind::Denied,
                "whether the object exists cannot be told: HeadObject is refused, and the store \
                 does not prove that it honours If-None-Match; --force writes without this check",
            );
            let error = error.code_as(ErrorCode::ExistenceUnknown).because(cause);
            self.located(key)(error).at("conditions", conditions)
        };
        match self.probe_if_none_match(key).await {
            Ok(true) => {
                known.store(true, Ordering::Relaxed);
                Ok(())
            }
            Ok(false) => Err(unknown(cause, "ignored")),
            Err(error) if is_refusal(&error) && !needs_other_credentials(&error) => {
                Err(unknown(error, "the probe object was refused, or could not be deleted"))
            }
            Err(error) => Err(error),
        }
    }

    /// Puts a probe object twice with `If-None-Match: *`: true if the second is refused with 412.
    async fn probe_if_none_match(&self, key: &str) -> Result<bool> {
        let store = self.for_probes();
        let probe = probe_key(key)?;
        let (mut written, mut honoured) = (Vec::new(), Ok(false));
        for _ in 0..2 {
            match store.put_probe(&probe, Condition::Absent).await {
                Ok(object) => written.push(object),
                Err(error) => {
                    honoured =
                        if error.is(ErrorCode::PreconditionFailed) { Ok(true) } else { Err(error) };
                    break;
                }
            }
        }
        let removed = store.remove_probe(&probe, &written).await;
        // A store that refuses the first object has nothing to delete.
        if written.is_empty() { honoured } else { removed.and(honoured) }
    }

    /// Whether the store honours `If-Match` of DeleteObject. S3 does; another store has to show it
    /// with a probe object.
    pub(super) async fn honours_conditional_delete(&self, key: &str) -> Result<bool> {
        if self.connection.endpoint().is_aws() {
            return Ok(true);
        }
        let store = self.for_probes();
        let probe = probe_key(key)?;
        let written = store.put_probe(&probe, Condition::None).await?;
        let deleted = store.delete(&probe, None, Some(NO_ETAG)).await;
        store.remove_probe(&probe, &[written]).await?;
        match deleted {
            Ok(()) => Ok(false),
            Err(error) if error.is(ErrorCode::PreconditionFailed) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// This store for probe objects: requests are not cancelled, so that every probe is deleted,
    /// and no storage class bills its least time.
    fn for_probes(&self) -> Self {
        Self {
            connection: self.connection.for_cleaning_up(),
            options: ObjectOptions { storage_class: None, ..self.options.clone() },
            ..self.clone()
        }
    }

    async fn put_probe(&self, probe: &str, condition: Condition) -> Result<Written> {
        let body = Bytes::from_static(PROBE);
        put_object(self, probe, body, &Default::default(), None, &condition, Checksum::Md5).await
    }

    async fn remove_probe(&self, probe: &str, written: &[Written]) -> Result<()> {
        if written.is_empty() {
            // A request without an answer may have succeeded.
            return self.delete(probe, None, None).await;
        }
        for object in written {
            self.delete(probe, object.version_id.as_deref(), None).await?;
        }
        Ok(())
    }

    /// Deletes an object, or one version of it, or only the object with this ETag. A missing object
    /// is no error.
    pub(super) async fn delete(
        &self,
        key: &str,
        version_id: Option<&str>,
        etag: Option<&str>,
    ) -> Result<()> {
        let make = |client: aws_sdk_s3::Client, _| {
            let request = client
                .delete_object()
                .bucket(&self.bucket)
                .key(key)
                .set_version_id(version_id.map(ToOwned::to_owned))
                .set_if_match(etag.map(ToOwned::to_owned))
                .set_request_payer(self.options.payer())
                .set_expected_bucket_owner(self.options.owner());
            async move {
                let sent = request.send().await;
                sent.map_err(|error| classify("cannot delete an object", error))
            }
        };
        match self.connection.request(make).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            deleted => deleted.map(drop).map_err(self.located(key)),
        }
    }
}

/// Whether the service answered, and refused the request for good: by a permission, or because it
/// does not support it.
pub(super) fn is_refusal(error: &Error) -> bool {
    error.answer().is_some()
        && matches!(error.retry(), Retry::No | Retry::Stale)
        && matches!(error.kind(), ErrorKind::Denied | ErrorKind::Unsupported | ErrorKind::Usage)
}

/// The key of a new probe object: that of the object, so that permissions for a prefix suffice,
/// with a suffix of its own.
fn probe_key(key: &str) -> Result<String> {
    let suffix = format!(".amistore-probe-{:032x}", random_id()?);
    let mut end = key.len().min(MAX_KEY - suffix.len());
    while !key.is_char_boundary(end) {
        end -= 1;
    }
    Ok(format!("{}{suffix}", &key[..end]))
}
