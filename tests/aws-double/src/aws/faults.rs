//! What is to go wrong, and when; and the log of what was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How a request goes wrong. Where nothing else is said, it is refused before anything is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// An error as the service writes it. The reason is that of EBS, and left out when it is empty.
    Error { status: u16, code: String, reason: String },
    /// The same, but everything was done.
    ErrorAfter { status: u16, code: String },
    /// The block did not arrive in time, as EBS says it: a ValidationException that is worth
    /// another try.
    BlockNotRead,
    /// Too many requests, as the service says it.
    Throttle,
    /// 503 without a body.
    Unavailable,
    /// 502 with a page for people, as a proxy makes it.
    BadGateway,
    /// The session is over, as the service says it.
    ExpiredToken,
    /// The right status, and a body that nobody understands.
    Garbage,
    /// Done, and answered so much later.
    Delay(Duration),
    /// No answer for so long; nothing is done, the connection is reset at the end.
    Hang(Duration),
    /// The connection is reset before anything is done.
    Reset,
    /// Everything is done, and the connection is reset instead of an answer.
    ResetAfter,
    /// The answer announces its length, and stops in the middle.
    Truncated,
    /// The answer stops in the middle, and the connection stays open for so long.
    Stall(Duration),
    /// One bit of the body of the answer is wrong; headers are those of the right one.
    FlipBit,
    /// `x-amz-Checksum` is that of something else.
    WrongChecksum,
    /// The block ends too early, and so does the answer, which says nothing about it.
    ShortBlock,
    /// `x-amz-Data-Length` is not the length of the block.
    WrongLength,
    /// One bit of the body of the request arrives wrong.
    CorruptUpload,
    /// The snapshot is deleted at this moment. What was asked for is done afterwards, as far as it
    /// can be.
    Vanish,
}

impl FaultKind {
    pub fn error(status: u16, code: &str) -> Self {
        Self::Error { status, code: code.to_owned(), reason: String::new() }
    }
}

/// Which of the requests that a fault could meet it does meet. They are counted from 1, from when
/// the fault was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Nth(u64),
    First(u64),
    Every(u64),
}

/// Something that goes wrong.
#[derive(Clone, Debug)]
pub struct Fault {
    kind: FaultKind,
    /// None is any operation.
    operation: Option<String>,
    snapshot: Option<String>,
    block: Option<u32>,
    which: Which,
    seen: u64,
}

impl Fault {
    /// Meets the next request of the operation; `*` is any operation.
    pub fn on(operation: &str, kind: FaultKind) -> Self {
        let operation = Some(operation.to_owned()).filter(|operation| operation != "*");
        Self { kind, operation, snapshot: None, block: None, which: Which::First(1), seen: 0 }
    }

    /// Meets the nth one from now on, and no other.
    pub fn nth(mut self, nth: u64) -> Self {
        self.which = Which::Nth(nth);
        self
    }

    /// Meets the next ones, so many of them.
    pub fn times(mut self, times: u64) -> Self {
        self.which = Which::First(times);
        self
    }

    /// Meets every nth one.
    pub fn every(mut self, step: u64) -> Self {
        self.which = Which::Every(step);
        self
    }

    pub fn always(self) -> Self {
        self.every(1)
    }

    /// Meets requests for this snapshot only.
    pub fn snapshot(mut self, id: &str) -> Self {
        self.snapshot = Some(id.to_owned());
        self
    }

    /// Meets requests for the blocks of this index only.
    pub fn block(mut self, index: u32) -> Self {
        self.block = Some(index);
        self
    }

    fn meets(&mut self, call: &Call) -> bool {
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

/// A request, and what became of it.
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
    /// The access key it was signed with.
    pub access_key: Option<String>,
    /// The number of its connection, from 1.
    pub connection: u64,
    pub bytes_in: u64,
    /// Bytes of the answer's body that the connection took.
    pub bytes_out: u64,
    /// 0 until it is answered, and for ever if it never is.
    pub status: u16,
    /// The code of the error it was answered with.
    pub error: Option<String>,
    /// The fault that it met.
    pub fault: Option<FaultKind>,
    pub started: Instant,
    /// When the answer began.
    pub answered: Option<Instant>,
}

/// Numbers of requests and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub calls: u64,
    /// Those that were answered with an error, or not at all.
    pub failed: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// A call while it is under way.
pub type Log = Arc<Mutex<Call>>;

/// The log of calls, and the faults to come.
#[derive(Default)]
pub struct Ledger {
    calls: Vec<Log>,
    begun: u64,
    counts: BTreeMap<String, Count>,
    pub faults: Vec<Fault>,
    /// Calls are counted, but not kept: benchmarks make millions of them.
    pub counts_only: bool,
}

impl Ledger {
    /// Numbers a call and finds the fault that it meets. Of several, the first one happens.
    pub fn begin(&mut self, mut call: Call) -> (Log, Option<FaultKind>) {
        self.begun += 1;
        call.number = self.begun;
        // All of them count, also those that come too late.
        let met: Vec<FaultKind> = self
            .faults
            .iter_mut()
            .filter_map(|fault| fault.meets(&call).then(|| fault.kind.clone()))
            .collect();
        let fault = met.into_iter().next();
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
