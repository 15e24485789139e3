//! Options of objects in S3 that are written.

use clap::Args;

use super::values::{parse_size, tags};
use crate::aws::s3::{Checksum, ObjectOptions};
use crate::base::{Error, Result};
use crate::object::Attributes;

/// Options of an object in S3 that is written.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Object in S3")]
pub(in super::super) struct ObjectArgs {
    /// Such as STANDARD_IA, GLACIER_IR, DEEP_ARCHIVE [default: that of the bucket]
    #[arg(long, value_name = "CLASS")]
    storage_class: Option<String>,
    /// Encryption by the service: AES256, aws:kms, aws:kms:dsse [default: that of the bucket]
    #[arg(long, value_name = "KIND")]
    sse: Option<String>,
    /// The key of aws:kms
    #[arg(long, value_name = "KEY", requires = "sse")]
    sse_kms_key_id: Option<String>,
    /// A tag of the object; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    s3_object_tag: Vec<String>,
    /// Checksum of every part: CRC64NVME, CRC32C, CRC32, SHA256, MD5 [default: CRC64NVME; MD5 for
    /// volumes that are stored in parallel]
    #[arg(long, value_name = "NAME")]
    checksum_algorithm: Option<String>,
    /// Size of parts, 5MiB to 5GiB [default: as small as 10,000 of them allow, from 5 MiB]
    #[arg(long, value_name = "SIZE", env = "AMISTORE_PART_SIZE", hide_env_values = true)]
    part_size: Option<String>,
    /// Write to a bucket that is open to the public
    #[arg(long)]
    pub(in super::super) allow_public_bucket: bool,
}

impl ObjectArgs {
    /// The options of an object; `volumes_at_once` limits parallel uploads of volumes.
    pub(in super::super) fn options(
        &self,
        volumes_at_once: Option<usize>,
    ) -> Result<ObjectOptions> {
        Ok(ObjectOptions {
            storage_class: self.storage_class.clone(),
            sse: self.sse.clone(),
            sse_kms_key_id: self.sse_kms_key_id.clone(),
            checksum: self.checksum_algorithm.as_deref().map(Checksum::parse).transpose()?,
            part_size: self.part_size.as_deref().map(parse_size).transpose()?,
            part_memory: 0,
            parallel_segments: volumes_at_once,
            ..ObjectOptions::default()
        })
    }

    /// Refuses tags where each request has its own.
    pub(in super::super) fn refuse_tags(&self) -> Result<()> {
        if self.s3_object_tag.is_empty() {
            return Ok(());
        }
        Err(Error::usage(
            "tags of objects come with each request: as S3ObjectTags, and not as --s3-object-tag",
        ))
    }

    /// The tags of the object.
    pub(in super::super) fn attributes(&self) -> Result<Attributes> {
        let tags = tags(&self.s3_object_tag, "--s3-object-tag")?.into_iter().collect();
        Ok(Attributes { tags, ..Attributes::default() })
    }
}
