//! The encryption of restored snapshots: which become encrypted, and under which key.
//!
//! A snapshot that was encrypted becomes an encrypted one, unless the options allow a plain one.
//! EC2 has no request that tells whether a KMS key may be used: EBS tells it when a snapshot is
//! begun. All snapshots are begun before the first block is sent; for a stream, whose snapshots are
//! begun one after the other, a trial snapshot is.

use serde_json::Value;

use super::Ec2Connection;
use super::describe::text;
use super::edits::Edits;
use super::partition_of;
use super::snapshot_items::was_encrypted;
use crate::aws::ec2_query::Params;
use crate::base::{Error, ErrorCode, ErrorKind, Event, Observer, Result, SnapshotId};
use crate::image::ImageDocument;

/// The name of the key that AWS manages for EBS, in the answer of GetEbsDefaultKmsKeyId.
const MANAGED_KEY: &str = "alias/aws/ebs";
/// Stands for the key of the account where the credentials may not read its name.
const UNREADABLE_KEY: &str = "the account's default key of EBS";

/// The encryption of the snapshots of a restore.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncryptionPlan {
    /// The snapshots of the archive whose restored snapshots are encrypted.
    pub encrypted: Vec<SnapshotId>,
    /// The snapshots of the archive that were encrypted, and whose restored snapshots are not.
    pub decrypted: Vec<SnapshotId>,
    /// The ARN of the key, or `alias/aws/ebs`; `None` if no snapshot is encrypted, or if the
    /// credentials may not read the account's default key.
    pub kms_key_id: Option<String>,
}

impl EncryptionPlan {
    /// Asks EC2 for the account's defaults, and decides about every snapshot. Warns of defaults
    /// that cannot be read, and of a key whose images cannot be shared.
    pub(super) fn new(
        ec2: &Ec2Connection,
        document: &ImageDocument,
        edits: &Edits,
        observer: &dyn Observer,
    ) -> Result<Self> {
        check_key(ec2, edits)?;
        let by_default = encrypts_by_default(ec2, observer)?;
        let mut plan = Self::default();
        for snapshot in document.snapshots() {
            let id = &snapshot.id;
            if by_default || is_requested(document, id, edits) {
                plan.encrypted.push(id.clone());
            } else if was_encrypted(document, id) == Some(true) {
                plan.decrypted.push(id.clone());
            }
        }
        if plan.encrypted.is_empty() {
            return Ok(plan);
        }
        plan.kms_key_id = match &edits.kms_key_arn {
            Some(key) => Some(key.clone()),
            None => default_key(ec2)?,
        };
        let unless = match plan.kms_key_id.as_deref() {
            Some(MANAGED_KEY) => "",
            None => ", unless the account has chosen another key (ec2:GetEbsDefaultKmsKeyId)",
            Some(_) => return Ok(plan),
        };
        let message = format!(
            "the new snapshots are encrypted under {MANAGED_KEY}{unless}: an image under that key \
             cannot be shared with other accounts. --kms-key-id names a key that can"
        );
        observer.note(&Event::Warning { message });
        Ok(plan)
    }

    /// Whether the restored snapshot is encrypted.
    pub fn encrypts(&self, id: &SnapshotId) -> bool {
        self.encrypted.contains(id)
    }

    /// The key, for messages.
    pub(super) fn key(&self) -> &str {
        self.kms_key_id.as_deref().unwrap_or(UNREADABLE_KEY)
    }

    /// Names KMS, key and permissions in the error of a request about an encrypted snapshot, if KMS
    /// is its cause.
    pub(super) fn explain(&self, error: Error) -> Error {
        let message = match error.code() {
            Some(ErrorCode::KmsKeyDenied) => {
                "the new snapshot is encrypted, and KMS refuses its key: kms:DescribeKey, \
                 kms:CreateGrant, kms:GenerateDataKey*, kms:ReEncrypt*, kms:Encrypt and \
                 kms:Decrypt are needed"
            }
            Some(ErrorCode::DependencyNotFound) => {
                "the new snapshot is encrypted, and KMS has no such key in this Region"
            }
            _ => return error,
        };
        let explained = Error::new(error.kind(), message).at("kms_key_id", self.key());
        match error.code() {
            Some(code) => explained.code_as(code).because(error),
            None => explained.because(error),
        }
    }
}

/// Whether the restored snapshot is begun as an encrypted one, regardless of the account's default.
pub(super) fn is_requested(document: &ImageDocument, id: &SnapshotId, edits: &Edits) -> bool {
    edits.encrypted
        || edits.kms_key_arn.is_some()
        || (!edits.allow_unencrypted && was_encrypted(document, id) == Some(true))
}

/// Refuses a key of another Region or partition: EBS would refuse it when the restore begins.
pub(super) fn check_key(ec2: &Ec2Connection, edits: &Edits) -> Result<()> {
    let Some(arn) = edits.kms_key_arn.as_deref() else { return Ok(()) };
    let fields: Vec<&str> = arn.splitn(6, ':').collect();
    let [_, partition, "kms", region, _, resource] = fields[..] else {
        return Err(Error::usage("not the ARN of a KMS key").at("kms_key_id", arn));
    };
    if !resource.starts_with("key/") {
        return Err(Error::usage(
            "EBS takes the ARN of a key, and not that of an alias: `aws kms describe-key` shows it",
        )
        .at("kms_key_id", arn));
    }
    let here = ec2.region();
    if region != here || partition != partition_of(&here).name {
        return Err(Error::usage("the key belongs to another Region than the new image")
            .at("kms_key_id", arn)
            .at("region", here));
    }
    Ok(())
}

/// Whether the account encrypts new snapshots. Credentials that may not read it, or a service that
/// does not know it, count as no.
fn encrypts_by_default(ec2: &Ec2Connection, observer: &dyn Observer) -> Result<bool> {
    let answer = ec2.call(
        "cannot read the default encryption of EBS",
        "GetEbsEncryptionByDefault",
        Params::new(),
    );
    if let Err(error) = &answer
        && is_unreadable(error)
    {
        let message = "whether the account encrypts new snapshots cannot be read \
                       (ec2:GetEbsEncryptionByDefault), and is taken for no";
        observer.note(&Event::Warning { message: message.to_owned() });
        return Ok(false);
    }
    Ok(answer?.get("EbsEncryptionByDefault").and_then(Value::as_bool).unwrap_or(false))
}

/// The account's default key; `None` if the credentials may not read it.
fn default_key(ec2: &Ec2Connection) -> Result<Option<String>> {
    let answer =
        ec2.call("cannot read the default key of EBS", "GetEbsDefaultKmsKeyId", Params::new());
    match answer {
        Err(error) if is_unreadable(&error) => Ok(None),
        answer => Ok(text(&answer?, "KmsKeyId").map(ToOwned::to_owned)),
    }
}

/// Whether the answer is a refusal of the action, and not a failure to answer.
fn is_unreadable(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Denied | ErrorKind::Unsupported)
        && !crate::aws::needs_other_credentials(error)
}
