//! Faults to inject, and the log of calls.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Kinds of faults. If nothing else is said, the operation is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// An error as the service writes it. The reason is that of EBS, and omitted if it is empty.
    Error { status: u16, code: String, reason: String },
    /// An error after the operation was carried out.
    ErrorAfter { status: u16, code: String },
    /// The block did not arrive in time, as EBS says it: a ValidationException that is retryable.
    BlockNotRead,
    /// The throttling error of the service.
    Throttle,
    /// 503 without a body.
    Unavailable,
    /// 502 with a page for people, as a proxy makes it.
    BadGateway,
    /// The expired-session error of the service.
    ExpiredToken,
    /// The right status, and a body that no parser accepts.
    Garbage,
    /// The operation is carried out, and its answer is delayed.
    Delay(Duration),
    /// No operation and no answer for this time; then the connection is reset.
    Hang(Duration),
    /// The connection is reset before the operation.
    Reset,
    /// The connection is reset after the operation, before the answer.
    ResetAfter,
    /// The body ends in the middle of its announced length.
    Truncated,
    /// The body stops in the middle, and the connection stays open for this time.
    Stall(Duration),
    /// One bit of the body of the answer is wrong; headers are those of the right one.
    FlipBit,
    /// `x-amz-Checksum` is that of other bytes.
    WrongChecksum,
    /// The block is too short, and `Content-Length` agrees with its length.
    ShortBlock,
    /// `x-amz-Data-Length` is not the length of the block.
    WrongLength,
    /// One bit of the body of the request is wrong.
    CorruptUpload,
    /// The snapshot is deleted before the operation is carried out.
    Vanish,
}

impl FaultKind {
    pub fn error(status: u16, code: &str) -> Self {
        Self::Error { status, code: code.to_owned(), reason: String::new() }
    }
}

/// Selects among the matching requests, counted from 1 since the fault was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Nth(u64),
    First(u64),
    Every(u64),
}

/// A fault.
#[derive(Clone, Debug)]
pub struct Fault {
    kind: FaultKind,
    /// None matches any operation.
    operation: Option<String>,
    snapshot: Option<String>,
    block: Option<u32>,
    which: Which,
    seen: u64,
}

impl Fault {
    /// Matches the next request of the operation; `*` is any operation.
    pub fn on(operation: &str, kind: FaultKind) -> Self {
        let operation = Some(operation.to_owned()).filter(|operation| operation != "*");
        Self { kind, operation, snapshot: None, block: None, which: Which::First(1), seen: 0 }
    }

    /// Matches only the nth request from now on.
    pub fn nth(mut self, nth: u64) -> Self {
        self.which = Which::Nth(nth);
        self
    }

    /// Matches the next `times` requests.
    pub fn times(mut self, times: u64) -> Self {
        self.which = Which::First(times);
        self
    }

    /// Matches every nth request.
    pub fn every(mut self, step: u64) -> Self {
        self.which = Which::Every(step);
        self
    }

    pub fn always(self) -> Self {
        self.every(1)
    }

    /// Matches only requests for this snapshot.
    pub fn snapshot(mut self, id: &str) -> Self {
        self.snapshot = Some(id.to_owned());
        self
    }

    /// Matches only requests for blocks of this index.
    pub fn block(mut self, index: u32) -> Self {
        self.block = Some(index);
        self
    }

    fn matches(&mut self, call: &Call) -> bool {
        let other = self.operation.as_ref().is_some_and(|operation| *operation != call.operation)
            || self.snapshot.is_some() && self.snapshot != call.snapshot
            || self.block.is_some() && self.block != call.block;
        if other {
            return false;
        }
        self.seen += 1;
        match self.which {
            Which::Nth(nth) => self.seen == nth,
            Which::First(times) => self.seen <= times,
            Which::Every(step) => self.seen.is_multiple_of(step),
        }
    }
}

/// A request and its outcome.
#[derive(Clone, Debug)]
pub struct Call {
    /// 1 is the first request since the start or since `reset_calls`.
    pub number: u64,
    /// `ec2` or `ebs`.
    pub service: &'static str,
    /// The name of the operation in the API, or `Unknown`.
    pub operation: String,
    pub snapshot: Option<String>,
    pub block: Option<u32>,
    /// The parameters of an EC2 request, or those in the query of an EBS request, as they were
    /// sent.
    pub parameters: BTreeMap<String, String>,
    /// The access key that signed it.
    pub access_key: Option<String>,
    /// The number of its connection, from 1.
    pub connection: u64,
    pub bytes_in: u64,
    /// Bytes of the answer's body that the connection took.
    pub bytes_out: u64,
    /// 0 until it is answered.
    pub status: u16,
    /// The code of an error answer.
    pub error: Option<String>,
    /// The fault that was injected.
    pub fault: Option<FaultKind>,
    pub started: Instant,
    /// When the answer began.
    pub answered: Option<Instant>,
}

/// Numbers of requests and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub calls: u64,
    /// Calls with an error or without an answer.
    pub failed: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// A call in progress.
pub type Log = Arc<Mutex<Call>>;

/// The log of calls, and the faults to inject.
#[derive(Default)]
pub struct CallLog {
    calls: Vec<Log>,
    begun: u64,
    counts: BTreeMap<String, Count>,
    pub faults: Vec<Fault>,
    /// Calls are counted, but not logged: benchmarks make millions of them.
    pub counts_only: bool,
}

impl CallLog {
    /// Numbers a call and finds its fault. Of several, the first one happens.
    pub fn begin(&mut self, mut call: Call) -> (Log, Option<FaultKind>) {
        self.begun += 1;
        call.number = self.begun;
        // All matching faults count the call, also those behind the first.
        let matching: Vec<FaultKind> = self
            .faults
            .iter_mut()
            .filter_map(|fault| fault.matches(&call).then(|| fault.kind.clone()))
            .collect();
        let fault = matching.into_iter().next();
        call.fault.clone_from(&fault);
        let count = self.counts.entry(call.operation.clone()).or_default();
        count.calls += 1;
        // Until it is answered.
        count.failed += 1;
        let call = Arc::new(Mutex::new(call));
        if !self.counts_only {
            self.calls.push(Arc::clone(&call));
        }
        (call, fault)
    }

    /// Counts an answer.
    pub fn answered(&mut self, log: &Log) {
        let call = log.lock().expect("no panic").clone();
        let count = self.counts.entry(call.operation).or_default();
        count.bytes_in += call.bytes_in;
        if (200..300).contains(&call.status) {
            count.failed = count.failed.saturating_sub(1);
        }
    }

    /// Counts bytes of an answer that went out.
    pub fn sent(&mut self, log: &Log, bytes: usize) {
        let mut call = log.lock().expect("no panic");
        call.bytes_out += bytes as u64;
        self.counts.entry(call.operation.clone()).or_default().bytes_out += bytes as u64;
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.iter().map(|call| call.lock().expect("no panic").clone()).collect()
    }

    pub fn counts(&self) -> BTreeMap<String, Count> {
        self.counts.clone()
    }

    pub fn reset(&mut self) {
        self.calls.clear();
        self.counts.clear();
        self.begun = 0;
    }
}
