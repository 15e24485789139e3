//! Requests of an operation to AWS, their price at the Region, and the least time by the quotas.

use std::time::Duration;

use super::calls::Calls;

/// The use of AWS by an operation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AwsUse {
    /// Requests to all services.
    pub calls: Calls,
    /// Blocks of EBS that are read or written.
    pub ebs: Option<EbsUse>,
    /// The object in S3 that is written.
    pub s3: Option<S3Use>,
}

/// Blocks of EBS that are read or written.
#[derive(Clone, Debug, PartialEq)]
pub struct EbsUse {
    /// The Region.
    pub region: String,
    /// Bytes of the blocks.
    pub bytes: u64,
    /// The least time, by the quotas of snapshots and account.
    pub at_least: Duration,
    /// The price of the requests in US dollars; `None` if the prices of the Region are not known.
    pub dollars: Option<f64>,
}

/// An object in S3 that is written.
#[derive(Clone, Debug, PartialEq)]
pub struct S3Use {
    /// The Region.
    pub region: String,
    /// The longest that the object can be, in bytes.
    pub bytes: u64,
    /// The price of the requests in US dollars; `None` if the prices of the Region are not known,
    /// or the service is not AWS.
    pub dollars: Option<f64>,
    /// The price of a month of storage in US dollars; `None` also for other storage classes than
    /// S3 Standard.
    pub dollars_a_month: Option<f64>,
}

impl AwsUse {
    /// Whether no request is sent.
    pub fn is_empty(&self) -> bool {
        self.calls == Calls::default()
    }
}

#[cfg(feature = "aws")]
mod aws {
    use super::super::calls::{Calls, Service};
    use super::super::upload::UploadFacts;
    use super::{AwsUse, EbsUse, S3Use};
    use crate::aws::{ebs_prices, s3_prices};
    use crate::base::BLOCK_BYTES;

    /// S3 requests that are billed at the price of PUT.
    const PUTS: [&str; 6] = [
        "PutObject",
        "UploadPartCopy",
        "CreateMultipartUpload",
        "UploadPart",
        "CompleteMultipartUpload",
        "ListParts",
    ];
    /// S3 requests that are free.
    const FREE: [&str; 2] = ["AbortMultipartUpload", "DeleteObject"];

    impl AwsUse {
        /// Adds the price and the least time of the EBS requests that are counted: `blocks` are
        /// read or written, at most `largest` of one snapshot. `in_turn`: one snapshot after the
        /// other.
        pub(in super::super) fn add_ebs(
            &mut self,
            region: &str,
            account_rate: Option<u32>,
            (blocks, largest): (u64, u64),
            in_turn: bool,
        ) {
            let of = |action: &str| self.calls.count(Service::Ebs, action) as f64 / 1000.0;
            let dollars = ebs_prices(region).map(|prices| {
                of("ListSnapshotBlocks") * prices.list
                    + of("GetSnapshotBlock") * prices.get
                    + of("PutSnapshotBlock") * prices.put
            });
            let largest = if in_turn { blocks } else { largest };
            let at_least = crate::aws::ebs::least_time(region, account_rate, blocks, largest);
            let bytes = blocks * BLOCK_BYTES;
            self.ebs = Some(EbsUse { region: region.to_owned(), bytes, at_least, dollars });
        }

        /// Adds the price of the S3 requests that are counted, and of an object of `bytes` bytes.
        pub(in super::super) fn add_s3(&mut self, bucket: &UploadFacts, bytes: u64) {
            let prices = s3_prices(&bucket.region).filter(|_| !bucket.is_compatible);
            let dollars = prices.map(|prices| {
                let price = |action: &str| match action {
                    action if FREE.contains(&action) => 0.0,
                    action if PUTS.contains(&action) => prices.put,
                    _ => prices.get,
                };
                let calls = self.calls.of(Service::S3);
                calls.map(|(action, count)| count as f64 / 1000.0 * price(action)).sum()
            });
            let gib = bytes as f64 / (1u64 << 30) as f64;
            let dollars_a_month =
                prices.filter(|_| bucket.is_standard).map(|prices| gib * prices.gib_month);
            let region = bucket.region.clone();
            self.s3 = Some(S3Use { region, bytes, dollars, dollars_a_month });
        }
    }

    impl Calls {
        /// Adds the ListSnapshotBlocks and GetSnapshotBlock requests of a snapshot of which
        /// `blocks` are read: it is listed twice, and its first block is read once more to see
        /// whether it may be.
        pub(in super::super) fn add_snapshot_reads(&mut self, blocks: u64) {
            self.add(Service::Ebs, "ListSnapshotBlocks", 2 * crate::aws::ebs::list_pages(blocks));
            self.add(Service::Ebs, "GetSnapshotBlock", blocks + u64::from(blocks > 0));
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_price_of_a_hundred_gib_is_that_of_the_list() {
            let blocks = (100u64 << 30) / BLOCK_BYTES;
            let mut read = AwsUse::default();
            read.calls.add_snapshot_reads(blocks);
            let count = |action| read.calls.count(Service::Ebs, action);
            assert_eq!((count("GetSnapshotBlock"), count("ListSnapshotBlocks")), (204_801, 42));
            read.add_ebs("us-east-1", None, (blocks, blocks), true);
            let mut write = AwsUse::default();
            write.calls.add(Service::Ebs, "PutSnapshotBlock", blocks);
            write.add_ebs("us-east-1", None, (blocks, blocks), true);
            let dollars = |used: &AwsUse| used.ebs.as_ref().and_then(|ebs| ebs.dollars);
            assert!((dollars(&read).expect("a price") - 0.614).abs() < 0.001);
            assert!((dollars(&write).expect("a price") - 1.229).abs() < 0.001);
            write.add_ebs("mx-central-1", None, (blocks, blocks), true);
            assert_eq!(dollars(&write), None, "no price is guessed");
        }
    }
}
