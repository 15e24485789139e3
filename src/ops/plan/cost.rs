//! Requests of an operation to AWS, their price at the Region, and the least time by the quotas.

use std::fmt;
use std::time::Duration;

use super::calls::{Calls, Service};
use crate::object::ObjectService;

/// The use of AWS by an operation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AwsUse {
    /// Requests to all services.
    pub calls: Calls,
    /// Blocks of EBS that are read or written.
    pub ebs: Option<EbsUse>,
    /// The object in S3 that is written.
    pub s3: Option<S3Use>,
    /// The archive in S3 that is read.
    pub s3_reads: Option<S3Reads>,
    /// Data that is read from services of AWS.
    pub transfers: Vec<Transfer>,
}

/// A price in US dollars, rounded up to a ten-thousandth, so that text and JSON agree, and that
/// nothing looks free that is not.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Dollars(f64);

impl Dollars {
    /// Rounds up; less than a billionth is the error of a calculation.
    pub fn new(exact: f64) -> Self {
        Self((exact * 10_000.0 - 1e-5).ceil().max(0.0) / 10_000.0)
    }

    /// The rounded price.
    pub fn amount(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Dollars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > 0.0 { write!(f, "${:.4}", self.0) } else { f.write_str("$0") }
    }
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
    /// The price of the requests; `None` if the prices of the Region are not known.
    pub dollars: Option<Dollars>,
}

/// An object in S3 that is written.
#[derive(Clone, Debug, PartialEq)]
pub struct S3Use {
    /// The Region.
    pub region: String,
    /// Whether the service is AWS's.
    pub is_aws: bool,
    /// The longest that the object can be, in bytes.
    pub bytes: u64,
    /// The price of the requests; `None` if the prices of the Region are not known, or the service
    /// is not AWS's.
    pub dollars: Option<Dollars>,
    /// The price of a month of storage; `None` also for other storage classes than S3 Standard.
    pub dollars_a_month: Option<Dollars>,
}

/// An archive in S3 that is read.
#[derive(Clone, Debug, PartialEq)]
pub struct S3Reads {
    /// The Region; `None` if the service is not AWS's.
    pub region: Option<String>,
    /// The requests, at most.
    pub requests: u64,
    /// Their price; `None` if the prices of the Region are not known, or the service is not AWS's.
    pub dollars: Option<Dollars>,
}

/// Data that is read from a service of AWS. It is billed where it leaves the Region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The service.
    pub service: Service,
    /// Its Region.
    pub region: String,
    /// Bytes.
    pub bytes: u64,
    /// Whether the target is in another Region. If not, the data leaves the Region only where this
    /// program runs outside of it.
    pub leaves: bool,
}

impl AwsUse {
    /// Whether no request is sent.
    pub fn is_empty(&self) -> bool {
        self.calls == Calls::default()
    }

    /// Adds data that is read; `target` is the Region that it goes to, if it goes to AWS.
    pub(super) fn add_transfer(
        &mut self,
        service: Service,
        region: &str,
        bytes: u64,
        target: Option<&str>,
    ) {
        if bytes > 0 {
            let leaves = target.is_some_and(|target| target != region);
            self.transfers.push(Transfer { service, region: region.to_owned(), bytes, leaves });
        }
    }

    /// Adds the requests that open and read an archive of `bytes` bytes, if it is read from a
    /// service. Called after the requests of the object that is written have their price.
    pub(super) fn add_archive_reads(
        &mut self,
        service: Option<ObjectService>,
        (requests, bytes): (u64, u64),
        target: Option<&str>,
    ) {
        let Some(ObjectService { region }) = service else { return };
        if let Some(region) = &region {
            self.add_transfer(Service::S3, region, bytes, target);
        }
        self.s3_reads = Some(S3Reads { region, requests: 0, dollars: None });
        self.add_source_requests("GetObject", requests);
    }

    /// Adds requests to the service that the archive is read from.
    pub(super) fn add_source_requests(&mut self, action: &'static str, count: u64) {
        let Some(reads) = &mut self.s3_reads else { return };
        reads.requests += count;
        let price = reads.region.as_deref().and_then(price_of_get);
        reads.dollars = price.map(|price| Dollars::new(reads.requests as f64 / 1000.0 * price));
        self.calls.add(Service::S3, action, count);
    }
}

/// The price of 1,000 GET requests to S3.
fn price_of_get(region: &str) -> Option<f64> {
    #[cfg(feature = "aws")]
    return crate::aws::s3_prices(region).map(|prices| prices.get);
    #[cfg(not(feature = "aws"))]
    {
        let _ = region;
        None
    }
}

#[cfg(feature = "aws")]
mod aws {
    use super::super::calls::{Calls, Service};
    use super::super::upload::UploadFacts;
    use super::{AwsUse, Dollars, EbsUse, S3Use};
    use crate::aws::{ebs_prices, s3_prices};
    use crate::base::BLOCK_BYTES;

    /// S3 requests that are billed at the price of PUT.
    const PUTS: [&str; 7] = [
        "PutObject",
        "UploadPartCopy",
        "CreateMultipartUpload",
        "UploadPart",
        "CompleteMultipartUpload",
        "ListObjectsV2",
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
                Dollars::new(
                    of("ListSnapshotBlocks") * prices.list
                        + of("GetSnapshotBlock") * prices.get
                        + of("PutSnapshotBlock") * prices.put,
                )
            });
            let largest = if in_turn { blocks } else { largest };
            let at_least = crate::aws::ebs::least_time(region, account_rate, blocks, largest);
            let bytes = blocks * BLOCK_BYTES;
            self.ebs = Some(EbsUse { region: region.to_owned(), bytes, at_least, dollars });
        }

        /// Adds the price of the S3 requests that are counted, and of an object of `bytes` bytes.
        pub(in super::super) fn add_s3(&mut self, bucket: &UploadFacts, bytes: u64) {
            let prices = s3_prices(&bucket.region).filter(|_| bucket.is_aws);
            let dollars = prices.map(|prices| {
                let price = |action: &str| match action {
                    action if FREE.contains(&action) => 0.0,
                    action if PUTS.contains(&action) => prices.put,
                    _ => prices.get,
                };
                let calls = self.calls.of(Service::S3);
                let sum =
                    calls.map(|(action, count)| count as f64 / 1000.0 * price(action)).sum::<f64>();
                Dollars::new(sum)
            });
            let gib = bytes as f64 / (1u64 << 30) as f64;
            let dollars_a_month = prices
                .filter(|_| bucket.is_standard)
                .map(|prices| Dollars::new(gib * prices.gib_month));
            let (region, is_aws) = (bucket.region.clone(), bucket.is_aws);
            self.s3 = Some(S3Use { region, is_aws, bytes, dollars, dollars_a_month });
        }
    }

    impl Calls {
        /// Adds the ListSnapshotBlocks and GetSnapshotBlock requests of a snapshot of which
        /// `blocks` are read: it is listed twice, and its first block is read once more to see
        /// whether it may be.
        pub(in super::super) fn add_snapshot_reads(&mut self, blocks: u64) {
            self.add(Service::Ebs, "ListSnapshotBlocks", crate::aws::ebs::list_calls(blocks));
            self.add(Service::Ebs, "GetSnapshotBlock", blocks + u64::from(blocks > 0));
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::object::ObjectService;

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
            let dollars =
                |used: &AwsUse| used.ebs.as_ref().and_then(|ebs| ebs.dollars).map(Dollars::amount);
            assert!((dollars(&read).expect("a price") - 0.614).abs() < 0.001);
            assert!((dollars(&write).expect("a price") - 1.229).abs() < 0.001);
            write.add_ebs("mx-central-1", None, (blocks, blocks), true);
            assert_eq!(dollars(&write), None, "no price is guessed");
        }

        #[test]
        fn reads_of_an_archive_have_their_price_and_say_where_they_leave_the_region() {
            let reads = |region: Option<&str>, target: Option<&str>| {
                let mut read = AwsUse::default();
                let service = ObjectService { region: region.map(ToOwned::to_owned) };
                read.add_archive_reads(Some(service), (2000, 10 << 30), target);
                read.add_source_requests("GetObjectTagging", 1);
                read
            };
            let read = reads(Some("eu-west-1"), Some("us-gov-west-1"));
            let dollars = |read: &AwsUse| read.s3_reads.as_ref().and_then(|reads| reads.dollars);
            assert_eq!(dollars(&read), Some(Dollars::new(2.001 * 0.0004)));
            assert!(read.transfers[0].leaves && read.transfers[0].bytes == 10 << 30);
            assert_eq!(read.calls.count(Service::S3, "GetObject"), 2000);
            for target in [None, Some("eu-west-1")] {
                assert!(!reads(Some("eu-west-1"), target).transfers[0].leaves, "{target:?}");
            }
            let compatible = reads(None, Some("eu-west-1"));
            assert_eq!((dollars(&compatible), compatible.transfers.len()), (None, 0));
            let mut local = AwsUse::default();
            local.add_archive_reads(None, (2000, 10 << 30), None);
            assert!(local.is_empty() && local.transfers.is_empty());
        }

        #[test]
        fn a_price_is_rounded_up_and_never_nothing_for_something() {
            for (exact, shown) in [
                (0.0, "$0"),
                (0.000_000_4, "$0.0001"),
                (0.0001, "$0.0001"),
                (0.000_101, "$0.0002"),
                (0.6144, "$0.6144"),
                (117.76, "$117.7600"),
            ] {
                let dollars = Dollars::new(exact);
                assert_eq!(dollars.to_string(), shown);
                assert_eq!(shown.trim_start_matches('$').parse(), Ok(dollars.amount()));
            }
        }
    }
}
