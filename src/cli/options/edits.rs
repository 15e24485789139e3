//! Options of the new image of a restore to EC2.

use clap::Args;

use super::values::tags;
use crate::aws::ec2::{DeviceChange, DeviceEdit, Edits};
use crate::base::{DeviceName, Error, Result, check_image_name};

/// Changes to the attributes of an image that is restored to EC2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "The new image (with the target ec2)")]
pub(in super::super) struct EditArgs {
    /// Another name [default: the recorded one]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Another description; empty for none
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// One more tag of image and snapshots, or another value; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    tag: Vec<String>,
    /// Leave the recorded tags away
    #[arg(long)]
    no_tags: bool,
    /// Tag the image with the id and the Region of the stored one: amistore:source-image-id and
    /// amistore:source-image-region
    #[arg(long)]
    tag_source: bool,
    /// Another volume type, of all volumes or of one: gp3, /dev/sdb=io2; may be repeated
    #[arg(long, value_name = "[DEVICE=]TYPE")]
    volume_type: Vec<String>,
    /// I/O operations a second, of all volumes or of one
    #[arg(long, value_name = "[DEVICE=]N")]
    iops: Vec<String>,
    /// MiB a second (gp3), of all volumes or of one
    #[arg(long, value_name = "[DEVICE=]N")]
    throughput: Vec<String>,
    /// GiB, not less than the snapshot has, of all volumes or of one
    #[arg(long, value_name = "[DEVICE=]GIB")]
    volume_size: Vec<String>,
    /// Whether the volume goes with its instance: true or false, of all volumes or of one
    #[arg(long, value_name = "[DEVICE=]BOOL")]
    delete_on_termination: Vec<String>,
    /// The root device, if the recorded one has no volume
    #[arg(long, value_name = "DEVICE")]
    root_device: Option<String>,
    /// Another boot mode
    #[arg(long, value_name = "MODE", value_parser = ["legacy-bios", "uefi", "uefi-preferred"])]
    boot_mode: Option<String>,
    /// Have instances require IMDSv2
    #[arg(long, value_name = "VERSION", value_parser = ["v2.0"])]
    imds_support: Option<String>,
    /// Encrypt all snapshots [default: those that were encrypted, and those that the account
    /// encrypts by default]
    #[arg(long)]
    encrypted: bool,
    /// ARN of the key to encrypt all snapshots with [default: the account's default key of EBS]
    #[arg(long, value_name = "ARN")]
    kms_key_id: Option<String>,
    /// Make unencrypted snapshots of encrypted ones, unless the account encrypts by default
    #[arg(long, conflicts_with_all = ["encrypted", "kms_key_id"])]
    allow_unencrypted: bool,
    /// Give the recorded launch permissions
    #[arg(long)]
    launch_permissions: bool,
    /// Deprecate the image at the recorded time
    #[arg(long)]
    deprecation: bool,
    /// Protect the image against deregistration if that was recorded
    #[arg(long)]
    deregistration_protection: bool,
    /// Make snapshots only, and register no image
    #[arg(long)]
    snapshots_only: bool,
}

impl EditArgs {
    /// The changes.
    pub(in super::super) fn edits(&self) -> Result<Edits> {
        let tags = tags(&self.tag, "--tag")?;
        if let Some(name) = &self.name {
            check_image_name(name)?;
        }
        self.kms_key_id.as_deref().map_or(Ok(()), check_kms_key)?;
        Ok(Edits {
            name: self.name.clone(),
            description: self.description.clone(),
            tags,
            image_tags: Vec::new(),
            snapshot_tags: Vec::new(),
            no_tags: self.no_tags,
            tag_source: self.tag_source,
            root_device: self.root_device.as_deref().map(DeviceName::parse).transpose()?,
            devices: self.devices()?,
            boot_mode: self.boot_mode.clone(),
            imds_support: self.imds_support.clone(),
            encrypted: self.encrypted,
            kms_key_arn: self.kms_key_id.clone(),
            allow_unencrypted: self.allow_unencrypted,
            launch_permissions: self.launch_permissions,
            deprecation: self.deprecation,
            deregistration_protection: self.deregistration_protection,
            snapshots_only: self.snapshots_only,
        })
    }

    fn devices(&self) -> Result<Vec<DeviceEdit>> {
        let number = |flag: &str, text: &str| {
            text.parse::<u64>().map_err(|_| {
                Error::usage(format!("{flag} has to be a whole number, or DEVICE=number"))
                    .at("given", text)
            })
        };
        let mut edits = Vec::new();
        let mut add = |flag: &'static str,
                       given: &[String],
                       change: &dyn Fn(&str) -> Result<DeviceChange>|
         -> Result<()> {
            for text in given {
                let (device, value) = match text.rsplit_once('=') {
                    Some((device, value)) => (Some(DeviceName::parse(device)?), value),
                    None => (None, text.as_str()),
                };
                if value.is_empty() {
                    return Err(Error::usage(format!("{flag} has to be VALUE or DEVICE=VALUE"))
                        .at("given", text));
                }
                edits.push(DeviceEdit { device, change: change(value)? });
            }
            Ok(())
        };
        add("--volume-type", &self.volume_type, &|kind| {
            Ok(DeviceChange::VolumeType(kind.to_owned()))
        })?;
        add("--iops", &self.iops, &|text| number("--iops", text).map(DeviceChange::Iops))?;
        add("--throughput", &self.throughput, &|text| {
            number("--throughput", text).map(DeviceChange::Throughput)
        })?;
        add("--volume-size", &self.volume_size, &|text| {
            number("--volume-size", text).map(DeviceChange::VolumeSize)
        })?;
        add("--delete-on-termination", &self.delete_on_termination, &|text| match text {
            "true" => Ok(DeviceChange::DeleteOnTermination(true)),
            "false" => Ok(DeviceChange::DeleteOnTermination(false)),
            _ => {
                Err(Error::usage("--delete-on-termination has to be true or false, or DEVICE=true")
                    .at("given", text))
            }
        })?;
        Ok(edits)
    }

    /// Refuses changes that CreateRestoreImageTask does not take: all but name and tags.
    pub(in super::super) fn refuse_for_aws(&self) -> Result<()> {
        let others = Self { name: None, tag: Vec::new(), ..self.clone() };
        if others == Self::default() {
            return Ok(());
        }
        Err(Error::usage(
            "AWS's own restore takes only --name and --tag: change the image afterwards, or \
             restore without --via-aws from an archive of amistore",
        ))
    }
}

/// Checks that a KMS key is named by its ARN.
pub(super) fn check_kms_key(key: &str) -> Result<()> {
    if key.starts_with("arn:") {
        return Ok(());
    }
    Err(Error::usage("--kms-key-id has to be the ARN of a key: EBS takes no other name")
        .at("given", key)
        .at(
            "such_as",
            "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        ))
}
