//! Checks before the first byte is read: the bucket exists and has the expected owner, uploads can
//! be begun and aborted, and the bucket is not public.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::super::error::classify;
use super::bucket::S3Store;
use super::upload::Upload;
use crate::base::{Error, ErrorCode, ErrorKind, Event, Observer, Result, Retry};

/// The groups of an access control list that have members outside of the owner's account.
const PUBLIC_GROUPS: [&str; 2] = [
    "http://acs.amazonaws.com/groups/global/AllUsers",
    "http://acs.amazonaws.com/groups/global/AuthenticatedUsers",
];

/// Facts about a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preflight {
    /// The Region of the bucket, if the store returns it.
    pub region: Option<String>,
    /// The reason for which the bucket is public; `None` if it is not.
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
            found.region.as_deref().unwrap_or("an unknown Region")
        ));
        if let Some(why) = found.public {
            if !allow_public {
                let refused = Error::new(
                    ErrorKind::Denied,
                    "the bucket is public: every account could read the disks of this image",
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
                "settings of the bucket that could not be read: {}",
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
        let block =
            self.ask(found, "GetPublicAccessBlock", |client, bucket, owner| async move {
                let request = client.get_public_access_block().bucket(bucket);
                request.set_expected_bucket_owner(owner).send().await
            })?;
        let block = block.and_then(|output| output.public_access_block_configuration);
        let is_set =
            |setting: fn(&aws_sdk_s3::types::PublicAccessBlockConfiguration) -> Option<bool>| {
                block.as_ref().and_then(setting) == Some(true)
            };
        let ignores_acls = is_set(|block| block.ignore_public_acls());
        let restricts_policies = is_set(|block| block.restrict_public_buckets());
        let policy =
            self.ask(found, "GetBucketPolicyStatus", |client, bucket, owner| async move {
                let request = client.get_bucket_policy_status().bucket(bucket);
                request.set_expected_bucket_owner(owner).send().await
            })?;
        let has_public_policy = policy.is_some_and(|output| {
            output.policy_status().and_then(|status| status.is_public()) == Some(true)
        });
        if has_public_policy && !restricts_policies {
            found.public = Some("its policy allows public access".to_owned());
        }
        let acl = self.ask(found, "GetBucketAcl", |client, bucket, owner| async move {
            let request = client.get_bucket_acl().bucket(bucket);
            request.set_expected_bucket_owner(owner).send().await
        })?;
        let has_public_acl = acl.as_ref().is_some_and(|output| {
            let mut groups = output.grants().iter().filter_map(|grant| grant.grantee()?.uri());
            groups.any(|group| PUBLIC_GROUPS.contains(&group))
        });
        if has_public_acl && !ignores_acls {
            found.public = Some("its access control list allows public access".to_owned());
        }
        Ok(())
    }

    fn look_for_versions(&self, found: &mut Preflight) -> Result<()> {
        let versioning =
            self.ask(found, "GetBucketVersioning", |client, bucket, owner| async move {
                let request = client.get_bucket_versioning().bucket(bucket);
                request.set_expected_bucket_owner(owner).send().await
            })?;
        found.versioned = versioning.is_some_and(|output| {
            output.status().is_some_and(|status| status.as_str() == "Enabled")
        });
        let lock =
            self.ask(found, "GetObjectLockConfiguration", |client, bucket, owner| async move {
                let request = client.get_object_lock_configuration().bucket(bucket);
                request.set_expected_bucket_owner(owner).send().await
            })?;
        found.object_lock = lock
            .and_then(|output| output.object_lock_configuration)
            .and_then(|configuration| configuration.object_lock_enabled)
            .is_some_and(|enabled| enabled.as_str() == "Enabled");
        Ok(())
    }

    /// Sends a request about the bucket: `send` gets the client, the bucket and its expected owner.
    /// `None` if the bucket has no such configuration, or the request is denied or not supported;
    /// then `found` names `operation`. A broken connection is an error.
    fn ask<T, E, R>(
        &self,
        found: &mut Preflight,
        operation: &'static str,
        send: impl Fn(Client, String, Option<String>) -> R,
    ) -> Result<Option<T>>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
        R: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let make = |client: Client, _| {
            let sent = send(client, self.bucket.clone(), self.options.owner());
            async move {
                sent.await
                    .map_err(|error| classify("cannot read the settings of the bucket", error))
            }
        };
        match self.connection.wait(self.connection.request(make)) {
            Ok(answer) => Ok(Some(answer)),
            // The bucket has no policy, no public access block, no lock.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) if error.answer().is_some() => match error.kind() {
                ErrorKind::Denied | ErrorKind::Unsupported | ErrorKind::Usage | ErrorKind::Io
                    if error.retry() == Retry::No =>
                {
                    found.unanswered.push(operation);
                    Ok(None)
                }
                _ => Err(error.at("action", operation)),
            },
            Err(error) => Err(error.at("action", operation)),
        }
    }
}
