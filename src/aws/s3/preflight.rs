//! Checks before the first byte is read: the bucket exists and has the expected owner, uploads can
//! be begun and aborted, and the bucket is not public.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_bucket_acl::GetBucketAclOutput;
use aws_sdk_s3::operation::get_bucket_policy_status::GetBucketPolicyStatusOutput;
use aws_sdk_s3::operation::get_public_access_block::GetPublicAccessBlockOutput;
use aws_sdk_s3::types::PublicAccessBlockConfiguration;

use super::super::error::classify;
use super::bucket::S3Store;
use super::open_uploads::abort;
use super::upload::Upload;
use crate::base::{Error, ErrorCode, ErrorKind, Event, Observer, Result, Retry};
use crate::object::UploadJournal;

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
    /// and, unless `allow_public`, the bucket is not public. Reports what it found as notes. The
    /// intent to begin the upload is reported to the journal.
    pub fn check_writable(
        &self,
        key: &str,
        allow_public: bool,
        journal: Option<&dyn UploadJournal>,
        observer: &dyn Observer,
    ) -> Result<()> {
        let found = self.examine(key, journal)?;
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

    /// Queries the bucket, and begins and aborts an upload of `key`. The requests are sent in
    /// parallel: two round trips. Of several errors the first in their order is returned.
    #[cfg(feature = "internals")]
    pub fn preflight(&self, key: &str) -> Result<Preflight> {
        self.examine(key, None)
    }

    /// [`preflight`](Self::preflight), with the intent to begin the upload in the journal.
    fn examine(&self, key: &str, journal: Option<&dyn UploadJournal>) -> Result<Preflight> {
        if let Some(journal) = journal {
            self.intend(key, journal)?;
        }
        // Not cancelled in between: the upload that was begun has to be aborted. The other requests
        // end by themselves when the operation is cancelled.
        let store = Self { connection: self.connection.for_cleaning_up(), ..self.clone() };
        store.connection.wait(async {
            let (bucket, upload, block, policy, acl, versioning, lock) = tokio::join!(
                self.head_bucket(),
                store.try_upload(key),
                self.ask("GetPublicAccessBlock", |client, bucket, owner| async move {
                    let request = client.get_public_access_block().bucket(bucket);
                    request.set_expected_bucket_owner(owner).send().await
                }),
                self.ask("GetBucketPolicyStatus", |client, bucket, owner| async move {
                    let request = client.get_bucket_policy_status().bucket(bucket);
                    request.set_expected_bucket_owner(owner).send().await
                }),
                self.ask("GetBucketAcl", |client, bucket, owner| async move {
                    let request = client.get_bucket_acl().bucket(bucket);
                    request.set_expected_bucket_owner(owner).send().await
                }),
                self.ask("GetBucketVersioning", |client, bucket, owner| async move {
                    let request = client.get_bucket_versioning().bucket(bucket);
                    request.set_expected_bucket_owner(owner).send().await
                }),
                self.ask("GetObjectLockConfiguration", |client, bucket, owner| async move {
                    let request = client.get_object_lock_configuration().bucket(bucket);
                    request.set_expected_bucket_owner(owner).send().await
                }),
            );
            let mut found = Preflight::default();
            let bucket = bucket.map_err(|error| error.at("bucket", &self.bucket))?;
            found.region = found.answered("HeadBucket", bucket).flatten();
            upload?;
            let block = found.answered("GetPublicAccessBlock", block?);
            let policy = found.answered("GetBucketPolicyStatus", policy?);
            let acl = found.answered("GetBucketAcl", acl?);
            found.public = why_public(block.flatten(), policy.flatten(), acl.flatten().as_ref());
            let versioning = found.answered("GetBucketVersioning", versioning?);
            found.versioned = versioning.flatten().is_some_and(|output| {
                output.status().is_some_and(|status| status.as_str() == "Enabled")
            });
            let lock = found.answered("GetObjectLockConfiguration", lock?);
            found.object_lock = lock
                .flatten()
                .and_then(|output| output.object_lock_configuration)
                .and_then(|configuration| configuration.object_lock_enabled)
                .is_some_and(|enabled| enabled.as_str() == "Enabled");
            Ok(found)
        })
    }

    /// The Region of the bucket, if the store returns it.
    async fn head_bucket(&self) -> Result<Answered<Option<String>>> {
        let make = |client: Client, _| {
            let request = client
                .head_bucket()
                .bucket(&self.bucket)
                .set_expected_bucket_owner(self.options.owner());
            async move {
                request.send().await.map_err(|error| classify("cannot look at the bucket", error))
            }
        };
        match self.connection.request(make).await {
            Ok(output) => Ok(Answered::Yes(output.bucket_region().map(ToOwned::to_owned))),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Error::new(ErrorKind::NotFound, "there is no such bucket")
                    .code_as(ErrorCode::NoSuchBucket)
                    .because(error))
            }
            // Credentials for some objects only may not call HeadBucket; the upload decides.
            Err(error)
                if error.kind() == ErrorKind::Denied
                    && self.options.expected_bucket_owner.is_none() =>
            {
                Ok(Answered::Refused)
            }
            Err(error) => Err(error),
        }
    }

    /// Begins an upload and aborts it: without the permission to abort, parts would stay.
    async fn try_upload(&self, key: &str) -> Result<()> {
        let upload = Upload::begin(self, key, &Default::default(), None).await?;
        abort(self, key, &upload.id).await.map_err(|error| {
            Error::new(
                error.kind(),
                "uploads to this bucket can be begun and not aborted: an interrupted store would \
                 leave parts behind",
            )
            .at("upload_id", &upload.id)
            .because(error)
        })
    }

    /// Sends a request about the bucket: `send` gets the client, the bucket and its expected owner.
    /// `None` if the bucket has no such configuration. A broken connection is an error.
    async fn ask<T, E, R>(
        &self,
        operation: &'static str,
        send: impl Fn(Client, String, Option<String>) -> R,
    ) -> Result<Answered<Option<T>>>
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
        match self.connection.request(make).await {
            Ok(answer) => Ok(Answered::Yes(Some(answer))),
            // The bucket has no policy, no public access block, no lock.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Answered::Yes(None)),
            Err(error) if error.answer().is_some() => match error.kind() {
                ErrorKind::Denied | ErrorKind::Unsupported | ErrorKind::Usage | ErrorKind::Io
                    if error.retry() == Retry::No =>
                {
                    Ok(Answered::Refused)
                }
                _ => Err(error.at("action", operation)),
            },
            Err(error) => Err(error.at("action", operation)),
        }
    }
}

/// The answer to a request about the bucket.
enum Answered<T> {
    Yes(T),
    /// The credentials may not call the operation, or the store does not support it.
    Refused,
}

impl Preflight {
    /// The answer; without one, `operation` is named as unanswered.
    fn answered<T>(&mut self, operation: &'static str, answer: Answered<T>) -> Option<T> {
        match answer {
            Answered::Yes(answer) => Some(answer),
            Answered::Refused => {
                self.unanswered.push(operation);
                None
            }
        }
    }
}

/// The reason for which a bucket is public.
fn why_public(
    block: Option<GetPublicAccessBlockOutput>,
    policy: Option<GetBucketPolicyStatusOutput>,
    acl: Option<&GetBucketAclOutput>,
) -> Option<String> {
    let block = block.and_then(|output| output.public_access_block_configuration);
    let is_set = |setting: fn(&PublicAccessBlockConfiguration) -> Option<bool>| {
        block.as_ref().and_then(setting) == Some(true)
    };
    let has_public_policy = policy.is_some_and(|output| {
        output.policy_status().and_then(|status| status.is_public()) == Some(true)
    });
    let has_public_acl = acl.is_some_and(|output| {
        let mut groups = output.grants().iter().filter_map(|grant| grant.grantee()?.uri());
        groups.any(|group| PUBLIC_GROUPS.contains(&group))
    });
    if has_public_acl && !is_set(|block| block.ignore_public_acls()) {
        Some("its access control list allows public access".to_owned())
    } else if has_public_policy && !is_set(|block| block.restrict_public_buckets()) {
        Some("its policy allows public access".to_owned())
    } else {
        None
    }
}
