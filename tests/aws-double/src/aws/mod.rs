//! An EC2 with the EBS direct APIs in memory that behave like those of AWS, for tests.
//!
//! It listens on a port of this machine, and answers both services there: EC2 (forms and XML) and
//! EBS direct (JSON). A server is one Region of one partition; a test with two Regions starts two.
//! `together` gives them one endpoint: the scope of a signature chooses the server.
//!
//! * `model` is images and snapshots, `world` all state, `blocks` the contents of snapshots,
//!   `resources` direct access of tests;
//! * `ebs` and `ec2` are the operations, `tasks` the store and restore tasks of AWS itself;
//! * `auth` checks signatures, `limits` counts requests, `clock` writes dates;
//! * `router` takes each request: logs it, injects `faults`, authenticates it, and routes it to its
//!   operation.
//!
//! It has the operations that the store and the restore of an image need, and no more: there are no
//! instances and no volumes, KMS is a list of denied keys, and policies are denied operations.
//! Changes that take time at AWS (snapshots become completed, images available, tasks done) happen
//! by descriptions, or by `advance`.
//!
//! Known to differ from AWS, or guessed because AWS does not say: codes and texts of the errors of
//! store and restore tasks beyond the two that are known, and of deregistration protection; the
//! reason of reads of snapshots that are pending, archived or public; a wrong count of blocks fails
//! the snapshot at once; a deregistered image is unavailable for ever; no account is a member of an
//! organization; the blocks of encrypted snapshots are not encrypted; the request is read to its
//! end before it is answered; a snapshot that is shared cannot be registered; movements between the
//! tiers take no time.

mod auth;
mod blocks;
mod clock;
mod ebs;
mod ec2;
mod faults;
mod limits;
mod model;
mod resources;
mod router;
mod tasks;
mod world;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

pub use blocks::{BLOCK, Content, Pattern};
pub use clock::iso;
pub use ebs::linear;
pub use faults::{Call, Count, Fault, FaultKind};
pub use limits::Rate;
pub use model::{Ebs, Image, Mapping, Permissions, Snapshot, Tags, VisibleAfter};
pub use tasks::{Buckets, Object, StoreTask};
pub use world::Settings;

use super::wire::Server;
use auth::Key;
use faults::CallLog;
use world::World;

type Shared = super::shared::Shared<World, CallLog>;

/// Configuration of a server.
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

    /// The account of the first key, and of resources without an owner.
    pub fn account(mut self, account: &str) -> Self {
        account.clone_into(&mut self.account);
        self
    }

    /// The buckets of store and restore tasks.
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
        let shared = Arc::new(Shared::new(world));
        let served = Arc::clone(&shared);
        let server = Server::start("aws-double", move |connection, request| {
            router::answer(Arc::clone(&served), connection, request)
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

/// Both services have the endpoint of the server.
impl Deref for TestAws {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
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

    /// Has each of these servers answer the requests for all of them: by the Region of the
    /// signature, and of servers of one Region by the access key.
    pub fn together(servers: &[&Self]) {
        for server in servers {
            let others = servers.iter().filter(|other| !Arc::ptr_eq(&other.shared, &server.shared));
            server.shared.world().peers =
                others.map(|other| Arc::downgrade(&other.shared)).collect();
        }
    }

    pub fn region(&self) -> String {
        self.shared.world().region.clone()
    }

    pub fn account(&self) -> String {
        self.shared.world().account.clone()
    }

    /// Changes settings: `aws.set(|settings| settings.page_cap = Some(3))`.
    pub fn set(&self, change: impl FnOnce(&mut Settings)) {
        let mut world = self.shared.world();
        change(&mut world.settings);
        // Tokens of the old rates are dropped.
        world.throttles.reset();
    }

    /// Adds a key of the account of the server.
    pub fn add_key(&self, id: &str, secret: &str, session_token: Option<&str>) {
        let account = self.account();
        self.add_key_of(&account, id, secret, session_token);
    }

    /// Adds a key of another account, which exists from now on.
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

    /// From now on requests that are signed with the key are answered as those of an expired
    /// session.
    pub fn expire_key(&self, id: &str) {
        self.change_key(id, |key| key.expired = true);
    }

    /// Denies an operation: `RegisterImage`, `ec2:RegisterImage` or `ebs:*`.
    pub fn deny(&self, operation: &str) {
        self.shared.world().denied.insert(operation.to_owned());
    }

    pub fn allow(&self, operation: &str) {
        self.shared.world().denied.remove(operation);
    }

    /// Denies an operation to one key.
    pub fn deny_key(&self, id: &str, operation: &str) {
        self.change_key(id, |key| key.denied.extend([operation.to_owned()]));
    }

    fn change_key(&self, id: &str, change: impl FnOnce(&mut Key)) {
        let known = self.shared.world().keys.get_mut(id).map(change).is_some();
        // After the lock was released: a panic must not poison it.
        assert!(known, "there is no key {id}");
    }

    /// Denies the KMS key: snapshots that it encrypts can neither be read nor written.
    pub fn deny_kms_key(&self, arn: &str) {
        self.shared.world().denied_kms.insert(arn.to_owned());
    }

    /// Allows a KMS key again.
    pub fn allow_kms_key(&self, arn: &str) {
        self.shared.world().denied_kms.remove(arn);
    }

    /// Sets EBS encryption by default of the account; none is the key that AWS manages.
    pub fn encrypt_by_default(&self, account: &str, encrypts: bool, kms_key: Option<&str>) {
        let mut world = self.shared.world();
        let account = world.accounts.entry(account.to_owned()).or_default();
        account.encrypts = encrypts;
        account.default_kms_key = kms_key.map(str::to_owned);
    }

    /// Sets the clock for tokens, tasks and dates forward. The clock for signatures stays.
    pub fn advance(&self, time: Duration) {
        let mut world = self.shared.world();
        world.ahead += time;
        world.tick();
    }

    /// Sets the clock for signatures `seconds` ahead of the system clock.
    pub fn set_clock_skew(&self, seconds: i64) {
        self.shared.world().skew = seconds;
    }

    /// All calls, in the order of their arrival.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.log().calls()
    }

    /// Number of calls of an operation.
    pub fn count(&self, operation: &str) -> u64 {
        self.counts().get(operation).copied().unwrap_or_default().calls
    }

    /// Requests and bytes of each operation.
    pub fn counts(&self) -> BTreeMap<String, Count> {
        self.shared.log().counts()
    }

    /// Forgets the calls; the next one is number 1.
    pub fn reset_calls(&self) {
        self.shared.log().reset();
    }

    /// Whether calls are logged, or only counted.
    pub fn keep_calls(&self, keep: bool) {
        self.shared.log().counts_only = !keep;
    }

    /// Adds a fault. Of several faults that match a call, the first one happens.
    pub fn fail(&self, fault: Fault) {
        self.shared.log().faults.push(fault);
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.shared.log().faults.clear();
    }
}
