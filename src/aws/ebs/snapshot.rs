//! StartSnapshot and CompleteSnapshot.

use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::{EbsConnection, failure, is_unknown, odd, print_digest};
use crate::base::{BLOCK_BYTES, Error, Result, SnapshotId, VolumeSize};
use crate::format::Digest;

/// Minutes without a request after which EBS cancels a pending snapshot: the longest that it
/// allows, so that a resumed restore finds the snapshot; and an hour for a snapshot without a task.
const TIMEOUT: i32 = 4320;
const SHORT_TIMEOUT: i32 = 60;
/// The longest time for which CompleteSnapshot may not know a snapshot whose blocks were confirmed.
const UNKNOWN_FOR: Duration = Duration::from_secs(30);
/// The longest description, in characters.
const MAX_DESCRIPTION: usize = 255;

/// The parameters of StartSnapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewSnapshot {
    /// Whole GiB.
    pub volume_gib: u32,
    /// Makes a repeated request return the same snapshot.
    pub client_token: String,
    /// The description.
    pub description: Option<String>,
    /// Tags.
    pub tags: Vec<(String, String)>,
    /// Encrypts the snapshot; if false, the account's default decides.
    pub encrypted: bool,
    /// The ARN of the key that encrypts the snapshot; the account's default key if absent.
    pub kms_key_arn: Option<String>,
    /// Whether a later process may continue the snapshot.
    pub continuable: bool,
}

/// The answer of StartSnapshot.
#[derive(Clone, Debug)]
pub struct StartedSnapshot {
    /// Its id.
    pub snapshot_id: SnapshotId,
    /// Bytes of its blocks.
    pub block_size: u64,
}

/// Number and checksum of the blocks of a snapshot that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompletedSnapshot {
    /// Blocks that were written.
    pub blocks: u64,
    /// SHA-256 of their digests, in the order of the blocks: EBS's LINEAR checksum.
    pub checksum: Digest,
}

impl NewSnapshot {
    /// The size that a volume of `size` bytes has in EBS.
    pub fn gib_of(size: VolumeSize) -> Result<u32> {
        let gib = crate::base::gib_rounded_up(size.bytes());
        u32::try_from(gib).ok().filter(|gib| (1..=65_536).contains(gib)).ok_or_else(|| {
            Error::new(
                crate::base::ErrorKind::Limit,
                "the volume is larger than EBS volumes can be (64 TiB)",
            )
            .at("size", size.bytes())
        })
    }
}

/// Begins a snapshot.
pub fn start_snapshot(connection: &EbsConnection, new: &NewSnapshot) -> Result<StartedSnapshot> {
    let tags: Vec<_> = new
        .tags
        .iter()
        .map(|(key, value)| aws_sdk_ebs::types::Tag::builder().key(key).value(value).build())
        .collect();
    let description =
        new.description.as_ref().map(|text| text.chars().take(MAX_DESCRIPTION).collect::<String>());
    let make = |client: aws_sdk_ebs::Client, _| {
        let request = client
            .start_snapshot()
            .volume_size(i64::from(new.volume_gib))
            .client_token(&new.client_token)
            .timeout(if new.continuable { TIMEOUT } else { SHORT_TIMEOUT })
            .set_description(description.clone())
            .set_tags(Some(tags.clone()).filter(|tags| !tags.is_empty()))
            .set_encrypted(new.encrypted.then_some(true))
            .set_kms_key_arn(new.kms_key_arn.clone());
        async move {
            let sent = request.send().await;
            sent.map_err(|error| failure("cannot begin a snapshot", error))
        }
    };
    // Without a task no later run finds a snapshot whose answer was lost.
    let connection = connection.until_answered();
    let output = connection.wait(connection.request(make))?;
    let block_size = output.block_size().map_or(BLOCK_BYTES, |bytes| bytes as u64);
    let id = output.snapshot_id().ok_or_else(|| odd("the answer of EBS has no snapshot id"))?;
    Ok(StartedSnapshot { snapshot_id: SnapshotId::parse(id)?, block_size })
}

/// Completes a snapshot: EBS compares count and checksum with the blocks that it has. The snapshot
/// can be used as soon as EC2 reports it as completed, which is later.
pub fn complete_snapshot(
    connection: &EbsConnection,
    id: &SnapshotId,
    what: &CompletedSnapshot,
) -> Result<()> {
    let count = i32::try_from(what.blocks)
        .map_err(|_| Error::internal("a volume has more blocks than it can have"))?;
    let make = |client: aws_sdk_ebs::Client, _| {
        let request =
            client.complete_snapshot().snapshot_id(id.as_str()).changed_blocks_count(count);
        // EBS takes no checksum for a snapshot without blocks.
        let request = if count == 0 {
            request
        } else {
            request
                .checksum(print_digest(&what.checksum))
                .checksum_algorithm(aws_sdk_ebs::types::ChecksumAlgorithm::ChecksumAlgorithmSha256)
                .checksum_aggregation_method(
                    aws_sdk_ebs::types::ChecksumAggregationMethod::ChecksumAggregationLinear,
                )
        };
        async move {
            request.send().await.map_err(|error| failure("cannot complete the snapshot", error))
        }
    };
    let begun = Instant::now();
    let completed = loop {
        match connection.wait(connection.slow_request(&make)) {
            // All blocks were confirmed, so the snapshot exists: EBS is eventually consistent.
            Err(error) if is_unknown(&error) && begun.elapsed() < UNKNOWN_FOR => {
                connection.wait(async {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    Ok(())
                })?;
            }
            completed => break completed.map_err(|error| error.at("snapshot_id", id))?,
        }
    };
    match completed.status().map(|status| status.as_str()) {
        Some("error") => Err(odd("EBS says that the snapshot failed").at("snapshot_id", id)),
        _ => Ok(()),
    }
}

/// Counts and digests the blocks of a snapshot, in ascending order.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    blocks: u64,
    digests: Sha256,
}

impl Sum {
    pub(super) fn add(&mut self, digest: &Digest) {
        self.blocks += 1;
        self.digests.update(digest);
    }

    pub(super) fn total(&self) -> CompletedSnapshot {
        CompletedSnapshot { blocks: self.blocks, checksum: self.digests.clone().finalize().into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::sha256;

    #[test]
    fn the_checksum_is_that_of_the_raw_digests_in_order() {
        let mut sum = Sum::default();
        for byte in [1, 0, 2] {
            sum.add(&sha256::digest(&vec![byte; 524_288]));
        }
        let total = sum.total();
        assert_eq!(
            (total.blocks, print_digest(&total.checksum).as_str()),
            (3, "4I/ae0Alk5AgZesnP3iVEqrbZbMrbA5NxGKsx37qIjI=")
        );
    }

    #[test]
    fn a_volume_has_whole_gib() {
        let gib = |bytes| NewSnapshot::gib_of(VolumeSize::new(bytes).expect("a size"));
        assert_eq!(
            (
                gib(512).expect("one"),
                gib(1 << 30).expect("one"),
                gib((1 << 30) + 512).expect("two")
            ),
            (1, 1, 2)
        );
    }
}
