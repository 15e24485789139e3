//! Options of `serve` for the archives and images that it makes.

use clap::Args;

use super::edits::check_kms_key;
use super::values::tags;
use crate::aws::ec2::Edits;
use crate::base::{Error, Result};

/// Compression of archives; tags and encryption of images.
#[derive(Debug, Args)]
#[command(next_help_heading = "Archives and images that it makes")]
pub(in super::super) struct MadeArgs {
    /// Compression level of archives, 1 (fast) to 19 (small)
    #[arg(
        long,
        default_value_t = 1,
        value_name = "LEVEL",
        env = "AMISTORE_LEVEL",
        hide_env_values = true,
        allow_negative_numbers = true
    )]
    level: i32,
    /// One more tag of restored images and their snapshots; may be repeated. The tags of a request
    /// come before these
    #[arg(long, value_name = "KEY=VALUE")]
    tag: Vec<String>,
    /// Encrypt all restored snapshots [default: those that were encrypted, and those that the
    /// account encrypts by default]
    #[arg(long)]
    encrypted: bool,
    /// ARN of the key to encrypt all restored snapshots with; once for each Region [default: the
    /// account's default key of EBS]
    #[arg(long, value_name = "ARN")]
    kms_key_id: Vec<String>,
    /// Make unencrypted snapshots of encrypted ones, unless the account encrypts by default
    #[arg(long, conflicts_with_all = ["encrypted", "kms_key_id"])]
    allow_unencrypted: bool,
}

impl MadeArgs {
    /// The compression level, checked.
    pub(in super::super) fn level(&self) -> Result<i32> {
        crate::codec::zstd::Encoder::new(self.level)?;
        Ok(self.level)
    }

    /// Tags and encryption of images in a Region. A KMS key belongs to one Region: with keys for
    /// others alone, images of this one would be encrypted with none of them, which is an error.
    pub(in super::super) fn edits(&self, region: &str) -> Result<Edits> {
        self.kms_key_id.iter().try_for_each(|key| check_kms_key(key))?;
        let is_here = |key: &&String| key.split(':').nth(3) == Some(region);
        let mut here = self.kms_key_id.iter().filter(is_here);
        let kms_key_arn = here.next().cloned();
        if here.next().is_some() {
            return Err(
                Error::usage("--kms-key-id names two keys of one Region").at("region", region)
            );
        }
        if kms_key_arn.is_none() && !self.kms_key_id.is_empty() {
            return Err(Error::usage(
                "a KMS key belongs to one Region, and --kms-key-id names none of this Region: give \
                 it once for each Region",
            )
            .at("region", region)
            .at("given", self.kms_key_id.join(", ")));
        }
        let tags = tags(&self.tag, "--tag")?;
        Ok(Edits {
            tags,
            encrypted: self.encrypted,
            kms_key_arn,
            allow_unencrypted: self.allow_unencrypted,
            ..Edits::default()
        })
    }
}
