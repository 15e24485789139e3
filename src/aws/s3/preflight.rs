//! Checks before the first byte is read: the bucket exists and has the expected owner, uploads can
//! be begun and aborted, and the bucket is not public.

use aws_sdk_s3::Client;

use super::super::error::classify;
use super::bucket::S3Store;
use super::upload::Upload;
use crate::base::{Error, ErrorCode, ErrorKind, Event, Observer, Result};

/// The groups of an access control list that include strangers.
const EVERYBODY: [&str; 2] = [
    "http://acs.amazonaws.com/groups/global/AllUsers",
    "http://acs.amazonaws.com/groups/global/AuthenticatedUsers",
];

/// Facts about a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preflight {
    /// The Region of the bucket, if the store returns it.
    pub region: Option<String>,
    /// Why the bucket is public, if it is.
    pub public: Option<String>,
    /// Operations that the credentials may not call, or the store does not support.
    pub unanswered: Vec<&'static str>,
    /// Whether versioning is enabled.
    pub versioned: bool,
    /// Whether object lock is enabled.
    pub object_lock: bool,
}

impl S3Store {
    /// Checks that an object may be written: the bucket exists, an upload can be begun and aborted,
    /// and, unless `allow_public`, the bucket is not public. Reports what it found as notes.
    pub fn check_writable(
        &self,
        key: &str,
        allow_public: bool,
        observer: &dyn Observer,
    ) -> Result<()> {
        let found = self.preflight(key)?;
        let note = |message: String| observer.note(&Event::Note { message });
        note(format!(
            "bucket {} in {}",
            self.bucket,
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
                    .at("bucket", &self.bucket)
                    .at("because", why));
            }
            observer.note(&Event::Warning { message: format!("the bucket is public: {why}") });
        }
        if found.versioned {
            note(
                "the bucket keeps old versions: replaced archives stay, and are billed".to_owned(),
            );
        }
        if found.object_lock {
            note(
                "the bucket has object lock: an archive may not be deletable for a time".to_owned(),
            );
        }
        if !found.unanswered.is_empty() {
            note(format!(
                "not known of the bucket, because these may not be asked: {}",
                found.unanswered.join(", ")
            ));
        }
        Ok(())
    }

    /// The target that a task is known by: the URL, and the endpoint, because two services may have
    /// buckets of one name.
    pub fn task_target(&self, url: &str) -> String {
        let endpoint = self.connection.endpoint();
        if endpoint.is_custom() { format!("{url} at {endpoint}") } else { url.to_owned() }
    }

    /// Queries the bucket, and begins and aborts an upload of `key`.
    pub fn preflight(&self, key: &str) -> Result<Preflight> {
        let mut found = Preflight::default();
        self.head_bucket(&mut found).map_err(|error| error.at("bucket", &self.bucket))?;
        self.try_upload(key)?;
        self.look_for_public_access(&mut found)?;
        self.look_for_versions(&mut found)?;
        Ok(found)
    }

    fn head_bucket(&self, found: &mut Preflight) -> Result<()> {
        let make = |client: Client, _| {
            let request = client
                .head_bucket()
                .bucket(&self.bucket)
                .set_expected_bucket_owner(self.options.owner());
            async move {
                request.send().await.map_err(|error| classify("cannot look at the bucket", error))
            }
        };
        match self.connection.wait(self.connection.request(make)) {
            Ok(output) => {
                found.region = output.bucket_region().map(ToOwned::to_owned);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Error::new(ErrorKind::NotFound, "there is no such bucket")
                    .code_as(ErrorCode::NoSuchBucket)
                    .because(error))
            }
            // Credentials for some objects only may not call HeadBucket; the upload below decides.
            Err(error)
                if error.kind() == ErrorKind::Denied
                    && self.options.expected_bucket_owner.is_none() =>
            {
                found.unanswered.push("HeadBucket");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Begins an upload and aborts it: without the permission to abort, parts would stay.
    fn try_upload(&self, key: &str) -> Result<()> {
        // Not cancelled in between: the upload that was begun has to be aborted.
        let store = Self { connection: self.connection.for_cleaning_up(), ..self.clone() };
        let upload =
            store.connection.wait(Upload::begin(&store, key, &Default::default(), None))?;
        store.abort_upload(key, &upload.id).map_err(|error| {
            Error::new(
                error.kind(),
                "uploads to this bucket can be begun and not aborted: an interrupted store would \
                 leave parts behind",
            )
            .at("upload_id", &upload.id)
            .because(error)
        })
    }

    fn look_for_public_access(&self, found: &mut Preflight) -> Result<()> {
        let status = |client: Client, _| {
            let request = client
                .get_bucket_policy_status()
                .bucket(&self.bucket)
                .set_expected_bucket_owner(self.options.owner());
            async move {
                request
                    .send()
                    .await
                    .map_err(|error| classify("cannot look at the bucket's policy", error))
            }
        };
        let block = |client: Client, _| {
            let request = client
                .get_public_access_block()
                .bucket(&self.bucket)
                .set_expected_bucket_owner(self.options.owner());
            async move {
                request.send().await.map_err(|error| {
                    classify("cannot look at the bucket's public access block", error)
                })
            }
        };
        let acl = |client: Client, _| {
            let request = client
                .get_bucket_acl()
                .bucket(&self.bucket)
                .set_expected_bucket_owner(self.options.owner());
            async move {
                request.send().await.map_err(|error| {
                    classify("cannot look at the bucket's access control list", error)
                })
            }
        };
        let block = self.ask(
            found,
            "GetPublicAccessBlock",
            self.connection.wait(self.connection.request(block)),
        )?;
        let block = block.and_then(|output| output.public_access_block_configuration);
        let ignores =
            |what: fn(&aws_sdk_s3::types::PublicAccessBlockConfiguration) -> Option<bool>| {
                block.as_ref().and_then(what) == Some(true)
            };
        let (ignores_acls, restricts) = (
            ignores(|block| block.ignore_public_acls()),
            ignores(|block| block.restrict_public_buckets()),
        );
        let policy = self.ask(
            found,
            "GetBucketPolicyStatus",
            self.connection.wait(self.connection.request(status)),
        )?;
        if !restricts
            && policy.is_some_and(|output| {
                output.policy_status().and_then(|status| status.is_public()) == Some(true)
            })
        {
            found.public = Some("its policy lets everybody in".to_owned());
        }
        let acl =
            self.ask(found, "GetBucketAcl", self.connection.wait(self.connection.request(acl)))?;
        let everybody = acl.as_ref().is_some_and(|output| {
            output.grants().iter().any(|grant| {
                grant
                    .grantee()
                    .and_then(|grantee| grantee.uri())
                    .is_some_and(|uri| EVERYBODY.contains(&uri))
            })
        });
        if !ignores_acls && everybody {
            found.public = Some("its access control list lets everybody in".to_owned());
        }
        Ok(())
    }

    fn look_for_versions(&self, found: &mut Preflight) -> Result<()> {
        let versioning = |client: Client, _| {
            let request = client
                .get_bucket_versioning()
                .bucket(&self.bucket)
                .set_expected_bucket_owner(self.options.owner());
            async move {
                request
                    .send()
                    .await
                    .map_err(|error| classify("cannot look at the bucket's versioning", error))
            }
        };
        let lock = |client: Client, _| {
            let request = client
                .get_object_lock_configuration()
                .bucket(&self.bucket)
                .set_expected_bucket_owner(self.options.owner());
            async move {
                request
                    .send()
                    .await
                    .map_err(|error| classify("cannot look at the bucket's object lock", error))
            }
        };
        let versioning = self.ask(
            found,
            "GetBucketVersioning",
            self.connection.wait(self.connection.request(versioning)),
        )?;
        found.versioned = versioning.is_some_and(|output| {
            output.status().is_some_and(|status| status.as_str() == "Enabled")
        });
        let lock = self.ask(
            found,
            "GetObjectLockConfiguration",
            self.connection.wait(self.connection.request(lock)),
        )?;
        found.object_lock = lock
            .and_then(|output| output.object_lock_configuration)
            .and_then(|configuration| configuration.object_lock_enabled)
            .is_some_and(|enabled| enabled.as_str() == "Enabled");
        Ok(())
    }

    /// The answer; `None` if there is no such configuration, or the operation is denied or not
    /// supported. A broken connection is an error.
    fn ask<T>(
        &self,
        found: &mut Preflight,
        operation: &'static str,
        answer: Result<T>,
    ) -> Result<Option<T>> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            // The bucket has no policy, no public access block, no lock.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) if error.answer().is_some() => match error.kind() {
                ErrorKind::Denied | ErrorKind::Unsupported | ErrorKind::Usage | ErrorKind::Io
                    if error.retry() == crate::base::Retry::No =>
                {
                    found.unanswered.push(operation);
                    Ok(None)
                }
                _ => Err(error),
            },
            Err(error) => Err(error),
        }
    }
}
