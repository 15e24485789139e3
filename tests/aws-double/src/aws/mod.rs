//! An EC2 with the EBS direct APIs in memory that behave like those of AWS, for tests.
//!
//! It listens on a port of this machine, and answers both services there: EC2 (forms and XML) and
//! EBS direct (JSON). What it holds is one Region of one partition, as its accounts see it; who
//! needs two Regions starts two.
//!
//! * `model` is images and snapshots, `world` all there is, `blocks` what snapshots hold;
//! * `ebs` and `ec2` are the operations, `tasks` the store and restore tasks of AWS itself;
//! * `auth` checks signatures, `limits` counts requests, `clock` writes dates;
//! * `front` is what every request goes through: it is logged, goes wrong as `faults` says, is
//!   believed, and answered.
//!
//! It does what the store and the restore of an image ask for, and not more: nothing is launched,
//! volumes do not exist, KMS is a list of keys that may not be used, and policies are operations
//! that are refused. What only time does at AWS (snapshots become completed, images available,
//! tasks done) is done by looks at it, or by `advance`.
//!
//! Known to differ from AWS, or guessed because AWS does not say: codes and texts of the errors of
//! store and restore tasks beyond the two that are known, and of deregistration protection; the
//! reason of reads of snapshots that are pending, archived or public; a wrong count of blocks fails
//! the snapshot at once; a deregistered image is unavailable for ever; nobody is a member of an
//! organization; the blocks of encrypted snapshots are not encrypted; the request is read to its
//! end before it is answered; a snapshot that is shared cannot be registered; movements between the
//! tiers take no time.

mod auth;
mod blocks;
mod clock;
mod ebs;
mod ec2;
mod faults;
mod front;
mod handles;
mod limits;
mod model;
mod tasks;
mod world;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub use blocks::{BLOCK, Content, Pattern};
pub use clock::iso;
pub use ebs::linear;
pub use faults::{Call, Count, Fault, FaultKind};
pub use limits::Rate;
pub use model::{Ebs, Image, Mapping, Permissions, Snapshot, Tags, Unseen};
pub use tasks::{Buckets, Object, StoreTask};
pub use world::Settings;

use super::wire::Server;
use auth::Key;
use faults::Ledger;
use world::World;

/// What all connections share.
pub struct Shared {
    world: Mutex<World>,
    ledger: Mutex<Ledger>,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no panic")
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no panic")
    }
}

/// How a server is to be.
pub struct Builder {
    region: String,
    partition: String,
    account: String,
    buckets: Option<Arc<dyn Buckets>>,
    settings: Settings,
}

impl Builder {
    /// The Region, which brings its partition with it.
    pub fn region(mut self, region: &str) -> Self {
        let partitions = [
            ("cn-", "aws-cn"),
            ("us-gov-", "aws-us-gov"),
            ("us-iso-", "aws-iso"),
            ("us-isob-", "aws-iso-b"),
            ("eusc-", "aws-eusc"),
        ];
        let partition = partitions
            .iter()
            .find(|(prefix, _)| region.starts_with(prefix))
            .map_or("aws", |(_, partition)| partition);
        partition.clone_into(&mut self.partition);
        region.clone_into(&mut self.region);
        self
    }

    /// The account of keys, and of what is added without one.
    pub fn account(mut self, account: &str) -> Self {
        account.clone_into(&mut self.account);
        self
    }

    /// Where store tasks write, and restore tasks read.
    pub fn buckets(mut self, buckets: Arc<dyn Buckets>) -> Self {
        self.buckets = Some(buckets);
        self
    }

    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    pub fn start(self) -> TestAws {
        let mut world = World::new(&self.region, &self.partition, &self.account);
        world.buckets = self.buckets;
        world.settings = self.settings;
        let shared = Arc::new(Shared { world: Mutex::new(world), ledger: Mutex::default() });
        let served = Arc::clone(&shared);
        let server = Server::start("aws-double", move |connection, request| {
            front::answer(Arc::clone(&served), connection, request)
        });
        let aws = TestAws { shared, server };
        aws.add_key(TestAws::ACCESS_KEY, TestAws::SECRET_KEY, None);
        aws
    }
}

/// The server. It stops, with all of its connections and threads, when it is dropped.
pub struct TestAws {
    shared: Arc<Shared>,
    server: Server,
}

impl TestAws {
    pub const ACCESS_KEY: &str = "AKIATESTAWSTESTAWSTE";
    pub const SECRET_KEY: &str = "secret/secret+secret/secret+secret/secre";
    pub const REGION: &str = "us-east-1";
    pub const ACCOUNT: &str = "123456789012";

    /// Starts a server in `us-east-1` with nothing in it, and with one key.
    pub fn start() -> Self {
        Self::builder().start()
    }

    pub fn builder() -> Builder {
        Builder {
            region: Self::REGION.to_owned(),
            partition: "aws".to_owned(),
            account: Self::ACCOUNT.to_owned(),
            buckets: None,
            settings: Settings::default(),
        }
    }

    /// Where it listens, for both services: `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        self.server.endpoint()
    }

    pub fn region(&self) -> String {
        self.shared.world().region.clone()
    }

    pub fn account(&self) -> String {
        self.shared.world().account.clone()
    }

    /// Changes how it behaves: `aws.set(|settings| settings.page_cap = Some(3))`.
    pub fn set(&self, change: impl FnOnce(&mut Settings)) {
        let mut world = self.shared.world();
        change(&mut world.settings);
        // What flowed into a bucket before says nothing about a new rate.
        world.throttles.reset();
    }

    /// A key of the account of the server.
    pub fn add_key(&self, id: &str, secret: &str, session_token: Option<&str>) {
        let account = self.account();
        self.add_key_of(&account, id, secret, session_token);
    }

    /// A key of another account, which exists from now on.
    pub fn add_key_of(&self, account: &str, id: &str, secret: &str, session_token: Option<&str>) {
        let mut world = self.shared.world();
        world.accounts.entry(account.to_owned()).or_default();
        let key = Key {
            secret: secret.to_owned(),
            account: account.to_owned(),
            session_token: session_token.map(str::to_owned),
            expired: false,
            denied: Default::default(),
        };
        world.keys.insert(id.to_owned(), key);
    }

    /// From now on requests that are signed with the key are answered as those of a session that is
    /// over.
    pub fn expire_key(&self, id: &str) {
        self.change_key(id, |key| key.expired = true);
    }

    /// From now on the operation is refused: `RegisterImage`, `ec2:RegisterImage` or `ebs:*`.
    pub fn deny(&self, operation: &str) {
        self.shared.world().denied.insert(operation.to_owned());
    }

    pub fn allow(&self, operation: &str) {
        self.shared.world().denied.remove(operation);
    }

    /// The same for one key.
    pub fn deny_key(&self, id: &str, operation: &str) {
        self.change_key(id, |key| key.denied.extend([operation.to_owned()]));
    }

    fn change_key(&self, id: &str, change: impl FnOnce(&mut Key)) {
        let known = self.shared.world().keys.get_mut(id).map(change).is_some();
        // Not while the lock is held: the server goes on.
        assert!(known, "there is no key {id}");
    }

    /// From now on what is encrypted with the KMS key cannot be read or written.
    pub fn deny_kms_key(&self, arn: &str) {
        self.shared.world().denied_kms.insert(arn.to_owned());
    }

    /// Whether new snapshots of the account are encrypted unless it says otherwise; none is the key
    /// that AWS manages.
    pub fn encrypt_by_default(&self, account: &str, encrypts: bool, kms_key: Option<&str>) {
        let mut world = self.shared.world();
        let account = world.accounts.entry(account.to_owned()).or_default();
        account.encrypts = encrypts;
        account.default_kms_key = kms_key.map(str::to_owned);
    }

    /// Sets the time forward by which tokens, tasks and dates are judged. Signatures are not.
    pub fn advance(&self, time: Duration) {
        let mut world = self.shared.world();
        world.ahead += time;
        world.tick();
    }

    /// Sets the clock by which signatures are judged so many seconds ahead of ours.
    pub fn set_clock_skew(&self, seconds: i64) {
        self.shared.world().skew = seconds;
    }

    /// What was asked so far, in the order in which it arrived.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.ledger().calls()
    }

    /// How often an operation was asked for.
    pub fn count(&self, operation: &str) -> u64 {
        self.counts().get(operation).copied().unwrap_or_default().calls
    }

    /// Requests and bytes of each operation.
    pub fn counts(&self) -> BTreeMap<String, Count> {
        self.shared.ledger().counts()
    }

    /// Forgets the calls; the next one is number 1.
    pub fn reset_calls(&self) {
        self.shared.ledger().reset();
    }

    /// Whether calls are kept, or only counted.
    pub fn keep_calls(&self, keep: bool) {
        self.shared.ledger().counts_only = !keep;
    }

    /// Lets something go wrong. Of several faults that meet a call, the first one happens.
    pub fn fail(&self, fault: Fault) {
        self.shared.ledger().faults.push(fault);
    }

    /// Nothing goes wrong any more.
    pub fn clear_faults(&self) {
        self.shared.ledger().faults.clear();
    }

    /// The network is gone: connections are closed, and new ones refused.
    pub fn stop_accepting(&self) {
        self.server.accept(false);
    }

    /// The network is back.
    pub fn resume(&self) {
        self.server.accept(true);
    }

    pub fn open_connections(&self) -> usize {
        self.server.open_connections()
    }
}
