//! State of the server: accounts and their keys, images, snapshots, tasks, and the settings of its
//! behaviour.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use super::Shared;
use super::auth::{Key, hex};
use super::blocks::sha256;
use super::limits::{Buckets as TokenBuckets, Rate};
use super::model::{Image, Snapshot, VisibleAfter};
use super::tasks::{Buckets, StoreTask};

/// Makes ids unique across the servers of a process.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Settings of the server. Every field can be changed at any time.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time from the arrival of a request to its answer. Other requests proceed meanwhile.
    pub latency: Duration,
    /// Time from the arrival of a request for a block to its answer, if it is longer.
    pub block_latency: Duration,
    /// Maximum of entries in one answer of ListSnapshotBlocks and ListChangedBlocks; `maxResults`
    /// cannot raise it.
    pub page_cap: Option<usize>,
    /// Pages without entries, but with a token, before each page.
    pub empty_pages: u32,
    /// A new list invalidates the block tokens of earlier lists.
    pub relist_replaces_tokens: bool,
    pub block_token_life: Duration,
    pub page_token_life: Duration,
    /// Snapshots that may be pending at a time.
    pub pending_limit: usize,
    /// Requests until a new resource is visible.
    pub settle: VisibleAfter,
    /// Descriptions that show a snapshot as pending after CompleteSnapshot. At 0 it is completed at
    /// once.
    pub completion_polls: u32,
    /// Lists of a snapshot that are refused after it is completed.
    pub not_listable: u32,
    /// Puts check length and headers and store no bytes, only the announced checksums.
    pub discard: bool,
    /// Request rates of gets and puts of blocks, for each snapshot, and for each account.
    pub snapshot_rate: Option<Rate>,
    pub account_rate: Option<Rate>,
    /// Request rates of other operations for each account, by name: `RegisterImage` or
    /// `ListSnapshotBlocks`.
    pub rates: BTreeMap<String, Rate>,
    /// Whether EBS says `ThrottlingException` instead of `RequestThrottledException`.
    pub plain_throttling: bool,
    /// Whether `x-amzn-errortype` has a URL behind the name.
    pub long_error_types: bool,
    /// Maximum of entries in one answer of the Describe operations of EC2; `MaxResults` cannot
    /// raise it.
    pub ec2_page_cap: Option<usize>,
    /// Descriptions that show a store task as in progress.
    pub store_polls: u32,
    /// Descriptions that show a restored image as pending.
    pub restore_polls: u32,
    /// Whether a restored image whose name is taken fails later, instead of being refused at once.
    pub restore_fails_late: bool,
    /// GB in progress that CreateStoreImageTask and CreateRestoreImageTask take.
    pub store_quota_gb: u64,
    pub restore_quota_gb: u64,
    /// RegisterImage judges permissions before it looks at the snapshots.
    pub rights_before_snapshots: bool,
    /// StartSnapshot makes plain snapshots, whatever its parameters say, as some emulators do.
    pub ignores_encryption: bool,
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
            settle: VisibleAfter::default(),
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
            rights_before_snapshots: false,
            ignores_encryption: false,
        }
    }
}

/// Settings of an account.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// EBS encryption by default.
    pub encrypts: bool,
    /// None is the key that AWS manages.
    pub default_kms_key: Option<String>,
}

/// State of the server.
pub struct World {
    pub region: String,
    pub partition: String,
    /// The account of keys and of what is added without one.
    pub account: String,
    pub accounts: BTreeMap<String, Account>,
    pub keys: BTreeMap<String, Key>,
    /// Operations that are refused to all keys.
    pub denied: BTreeSet<String>,
    /// KMS keys that no account may use.
    pub denied_kms: BTreeSet<String>,
    pub settings: Settings,
    pub images: BTreeMap<String, Image>,
    /// Images that were deregistered.
    pub deregistered: BTreeSet<String>,
    pub snapshots: BTreeMap<String, Snapshot>,
    /// By account and client token: the fingerprint of the request, and the snapshot.
    pub client_tokens: BTreeMap<(String, String), (String, String)>,
    pub tasks: Vec<StoreTask>,
    pub store_failure: Option<String>,
    pub buckets: Option<Arc<dyn Buckets>>,
    pub throttles: TokenBuckets,
    /// Seals tokens.
    pub secret: [u8; 32],
    /// How far `advance` has set the time forward.
    pub ahead: Duration,
    /// Seconds that the clock for signatures is ahead of the system clock.
    pub skew: i64,
    /// Servers whose requests arrive at this endpoint as well.
    pub peers: Vec<Weak<Shared>>,
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
            peers: Vec::new(),
        }
    }

    /// A new unique id: `ami-` or `snap-` and 17 digits.
    pub fn unique(&self, prefix: &str) -> String {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let mixed = sha256(format!("{serial} {}", hex(&self.secret)).as_bytes());
        format!("{prefix}-0{}", hex(&mixed[..8]))
    }

    /// Time of the clock for tokens and dates.
    pub fn now(&self) -> SystemTime {
        SystemTime::now() + self.ahead
    }

    /// Time of the clock for signatures.
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

    /// Whether the key is denied the operation. The name is that of the operation alone, or with
    /// its service: `ec2:RegisterImage`.
    pub fn denies(&self, access_key: &str, service: &str, operation: &str) -> bool {
        let names =
            [operation.to_owned(), format!("{service}:{operation}"), format!("{service}:*")];
        let key = self.keys.get(access_key);
        names.iter().any(|name| {
            self.denied.contains(name) || key.is_some_and(|key| key.denied.contains(name))
        })
    }

    /// The reason to throttle a request, if its rate is exceeded. Blocks have token buckets of
    /// their own.
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

    /// Fails snapshots that were not completed before their deadline.
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
