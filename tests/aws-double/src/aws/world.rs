//! What there is: accounts and their keys, images, snapshots and tasks, and how the server is told
//! to behave.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::auth::{Key, hex};
use super::blocks::sha256;
use super::limits::{Buckets as TokenBuckets, Rate};
use super::model::{Image, Snapshot, Unseen};
use super::tasks::{Buckets, StoreTask};

/// Tells servers, and what they make, from each other.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// How the server behaves. Every field can be changed at any time.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Every answer comes so long after its request has arrived. Other requests go on meanwhile.
    pub latency: Duration,
    /// Blocks are answered so long after their request has arrived, if it is more.
    pub block_latency: Duration,
    /// Entries in one answer of ListSnapshotBlocks and ListChangedBlocks, whatever is asked for.
    pub page_cap: Option<usize>,
    /// So many pages without entries, but with a token, come before each page.
    pub empty_pages: u32,
    /// A list that is asked for anew makes the block tokens of earlier ones worthless.
    pub relist_replaces_tokens: bool,
    pub block_token_life: Duration,
    pub page_token_life: Duration,
    /// Snapshots that may be pending at a time.
    pub pending_limit: usize,
    /// What is new is not there yet for so many requests.
    pub settle: Unseen,
    /// So many descriptions find a snapshot pending after CompleteSnapshot. At 0 it is completed at
    /// once.
    pub completion_polls: u32,
    /// So many lists of a snapshot are refused after it is completed.
    pub not_listable: u32,
    /// Puts check length and headers, and keep no bytes: only the checksums that they are said to
    /// have.
    pub discard: bool,
    /// Gets and puts of blocks, for each snapshot, and for each account.
    pub snapshot_rate: Option<Rate>,
    pub account_rate: Option<Rate>,
    /// Other operations, by name, for each account; `RegisterImage` or `ListSnapshotBlocks`.
    pub rates: BTreeMap<String, Rate>,
    /// Whether EBS says `ThrottlingException` instead of `RequestThrottledException`.
    pub plain_throttling: bool,
    /// Whether `x-amzn-errortype` has a URL behind the name.
    pub long_error_types: bool,
    /// Entries in one answer of the Describe operations of EC2, whatever is asked for.
    pub ec2_page_cap: Option<usize>,
    /// So many descriptions find a store task in progress.
    pub store_polls: u32,
    /// So many descriptions find a restored image pending.
    pub restore_polls: u32,
    /// Images that other services hold are refused with this at once, or are found failed later.
    pub restore_fails_late: bool,
    /// GB in progress that CreateStoreImageTask and CreateRestoreImageTask take.
    pub store_quota_gb: u64,
    pub restore_quota_gb: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            block_latency: Duration::ZERO,
            page_cap: None,
            empty_pages: 0,
            relist_replaces_tokens: true,
            block_token_life: Duration::from_secs(7 * 86_400),
            page_token_life: Duration::from_secs(3600),
            pending_limit: 100,
            settle: Unseen::default(),
            completion_polls: 0,
            not_listable: 0,
            discard: false,
            snapshot_rate: None,
            account_rate: None,
            rates: BTreeMap::new(),
            plain_throttling: false,
            long_error_types: false,
            ec2_page_cap: None,
            store_polls: 2,
            restore_polls: 2,
            restore_fails_late: false,
            store_quota_gb: 1200,
            restore_quota_gb: 600,
        }
    }
}

/// What an account has set.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// EBS encryption by default.
    pub encrypts: bool,
    /// None is the key that AWS manages.
    pub default_kms_key: Option<String>,
}

/// Everything there is.
pub struct World {
    pub region: String,
    pub partition: String,
    /// The account of keys and of what is added without one.
    pub account: String,
    pub accounts: BTreeMap<String, Account>,
    pub keys: BTreeMap<String, Key>,
    /// Operations that are refused to everybody.
    pub denied: BTreeSet<String>,
    /// KMS keys that nobody may use.
    pub denied_kms: BTreeSet<String>,
    pub settings: Settings,
    pub images: BTreeMap<String, Image>,
    /// Images that were deregistered.
    pub deregistered: BTreeSet<String>,
    pub snapshots: BTreeMap<String, Snapshot>,
    /// Account and client token: what was asked for with it, and the snapshot.
    pub client_tokens: BTreeMap<(String, String), (String, String)>,
    pub tasks: Vec<StoreTask>,
    pub store_failure: Option<String>,
    pub buckets: Option<Arc<dyn Buckets>>,
    pub throttles: TokenBuckets,
    /// What tokens are made with.
    pub secret: [u8; 32],
    /// How far time has been set forward.
    pub ahead: Duration,
    /// Seconds that the clock by which signatures are judged is ahead of ours.
    pub skew: i64,
}

impl World {
    pub fn new(region: &str, partition: &str, account: &str) -> Self {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            region: region.to_owned(),
            partition: partition.to_owned(),
            account: account.to_owned(),
            accounts: BTreeMap::from([(account.to_owned(), Account::default())]),
            keys: BTreeMap::new(),
            denied: BTreeSet::new(),
            denied_kms: BTreeSet::new(),
            settings: Settings::default(),
            images: BTreeMap::new(),
            deregistered: BTreeSet::new(),
            snapshots: BTreeMap::new(),
            client_tokens: BTreeMap::new(),
            tasks: Vec::new(),
            store_failure: None,
            buckets: None,
            throttles: TokenBuckets::default(),
            secret: sha256(format!("{serial} {}", now.as_nanos()).as_bytes()),
            ahead: Duration::ZERO,
            skew: 0,
        }
    }

    /// An id that was not given before: `ami-` or `snap-` and 17 digits.
    pub fn unique(&self, prefix: &str) -> String {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let mixed = sha256(format!("{serial} {}", hex(&self.secret)).as_bytes());
        format!("{prefix}-0{}", hex(&mixed[..8]))
    }

    /// What the clock shows by which tokens and dates are judged.
    pub fn now(&self) -> SystemTime {
        SystemTime::now() + self.ahead
    }

    /// What the clock shows by which signatures are judged.
    pub fn signing_time(&self) -> SystemTime {
        let skew = Duration::from_secs(self.skew.unsigned_abs());
        if self.skew < 0 { SystemTime::now() - skew } else { SystemTime::now() + skew }
    }

    pub fn account_settings(&self, account: &str) -> Account {
        self.accounts.get(account).cloned().unwrap_or_default()
    }

    /// The key that AWS manages for EBS, or the one that the account chose.
    pub fn default_kms_key(&self, account: &str) -> String {
        self.account_settings(account)
            .default_kms_key
            .unwrap_or_else(|| self.managed_kms_key(account))
    }

    pub fn managed_kms_key(&self, account: &str) -> String {
        format!(
            "arn:{}:kms:{}:{account}:key/00000000-aaaa-4bbb-8ccc-0123456789ab",
            self.partition, self.region
        )
    }

    /// Whether the key may do this. The name may be that of the operation alone, or with its
    /// service: `ec2:RegisterImage`.
    pub fn denies(&self, access_key: &str, service: &str, operation: &str) -> bool {
        let names =
            [operation.to_owned(), format!("{service}:{operation}"), format!("{service}:*")];
        let key = self.keys.get(access_key);
        names.iter().any(|name| {
            self.denied.contains(name) || key.is_some_and(|key| key.denied.contains(name))
        })
    }

    /// Whether a request has to wait. Blocks have buckets of their own.
    pub fn throttled(
        &mut self,
        account: &str,
        operation: &str,
        snapshot: Option<&str>,
    ) -> Option<&'static str> {
        let now = Instant::now();
        let block = matches!(operation, "GetSnapshotBlock" | "PutSnapshotBlock");
        if let (true, Some(rate), Some(snapshot)) = (block, self.settings.snapshot_rate, snapshot)
            && !self.throttles.take(&format!("{operation} {snapshot}"), rate, now)
        {
            return Some("RESOURCE_LEVEL_THROTTLE");
        }
        if let (true, Some(rate)) = (block, self.settings.account_rate)
            && !self.throttles.take(&format!("{operation} of {account}"), rate, now)
        {
            return Some("ACCOUNT_THROTTLED");
        }
        let rate = self.settings.rates.get(operation).copied()?;
        (!self.throttles.take(&format!("{account} {operation}"), rate, now))
            .then_some("ACCOUNT_THROTTLED")
    }

    /// What time does by itself: snapshots that nobody completed fail.
    pub fn tick(&mut self) {
        let now = self.now();
        for snapshot in self.snapshots.values_mut() {
            let late = snapshot.deadline.is_some_and(|deadline| deadline <= now);
            if late && snapshot.state == "pending" && snapshot.completing.is_none() {
                "error".clone_into(&mut snapshot.state);
                snapshot.state_message = Some("The snapshot was not completed in time.".to_owned());
            }
        }
    }
}
