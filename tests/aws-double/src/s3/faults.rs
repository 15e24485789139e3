//! Faults to inject, and the log of calls.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// 503 in XML: too many requests.
    SlowDown,
    /// 500 in XML.
    InternalError,
    /// 503 without a body.
    ServiceUnavailable,
    /// 502 with a page for people, as a proxy makes it.
    BadGateway,
    /// 400: the body did not come in time.
    RequestTimeout,
    /// 400: the session is expired.
    ExpiredToken,
    /// 403.
    AccessDenied,
    /// 403, with the server's clock in `Date`.
    RequestTimeTooSkewed,
    /// 404, and the upload is removed.
    NoSuchUpload,
    /// 409: another write of the key was faster. The upload can never be completed.
    ConditionalRequestConflict,
    /// An error inside of an answer with status 200.
    ErrorIn200,
    /// The connection is reset before the operation.
    Reset,
    /// The connection is reset after the operation, before the answer.
    ResetAfter,
    /// The operation is carried out, and its answer is delayed.
    Late(Duration),
    /// The body ends in the middle of its announced length.
    TruncatedBody,
    /// The body stops in the middle, and the connection stays open for this time.
    Stall(Duration),
    /// No operation and no answer for this time; then the connection is reset.
    Hang(Duration),
    /// One bit of the body of the answer is wrong.
    FlipBit,
    /// One bit of the body of the request is wrong.
    CorruptUpload,
}

/// The requests that a fault matches. Numbers are those of [`Call`]: they count from 1, from the
/// start or from `reset_calls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The nth request.
    Call(u64),
    /// The nth request of an operation.
    CallOf(&'static str, u64),
    /// Every nth request.
    Every(u64),
    /// Every nth request of an operation.
    EveryOf(&'static str, u64),
    /// The next requests of an operation, up to this number.
    Next(&'static str, u64),
    /// The next requests for a part, up to this number.
    NextPart(u32, u64),
}

/// A fault.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub kind: FaultKind,
    pub when: When,
}

impl Fault {
    pub fn new(kind: FaultKind, when: When) -> Self {
        Self { kind, when }
    }

    /// Returns whether the fault matches the call, the `nth` of its operation. Counts `Next` and
    /// `NextPart` down.
    fn matches(&mut self, call: &Call, nth: u64) -> bool {
        let left = match &mut self.when {
            When::Call(number) => return *number == call.number,
            When::CallOf(operation, number) => {
                return *operation == call.operation && *number == nth;
            }
            When::Every(step) => return call.number.is_multiple_of(*step),
            When::EveryOf(operation, step) => {
                return *operation == call.operation && nth.is_multiple_of(*step);
            }
            When::Next(operation, left) if *operation == call.operation => left,
            When::NextPart(part, left) if Some(*part) == call.part_number => left,
            When::Next(..) | When::NextPart(..) => return false,
        };
        let matching = *left > 0;
        *left = left.saturating_sub(1);
        matching
    }
}

/// A request and its outcome.
#[derive(Clone, Debug)]
pub struct Call {
    /// 1 is the first request since the start or since `reset_calls`.
    pub number: u64,
    /// The name of the operation in the API, or `Unknown`.
    pub operation: &'static str,
    pub bucket: String,
    pub key: String,
    pub part_number: Option<u32>,
    pub upload_id: Option<String>,
    /// The `Range` (or the range to be copied) as it was sent.
    pub range: Option<String>,
    /// The access key that signed it.
    pub access_key: Option<String>,
    /// The names of its headers that are about checksums.
    pub checksum_headers: Vec<String>,
    /// Bytes of the body, with the frames of `aws-chunked` around them.
    pub bytes_in: u64,
    /// Bytes of the answer's body that the connection took.
    pub bytes_out: u64,
    /// 0 until it is answered.
    pub status: u16,
    /// The fault that was injected.
    pub fault: Option<FaultKind>,
    pub started: Instant,
    /// When the answer began.
    pub answered: Option<Instant>,
}

/// The log of calls, and the faults to inject.
#[derive(Default)]
pub struct CallLog {
    calls: Vec<Arc<Mutex<Call>>>,
    /// Calls of each operation.
    counts: BTreeMap<&'static str, u64>,
    pub faults: Vec<Fault>,
}

impl CallLog {
    /// Numbers a call and finds its fault.
    pub fn begin(&mut self, mut call: Call) -> (Arc<Mutex<Call>>, Option<FaultKind>) {
        call.number = self.calls.len() as u64 + 1;
        let count = self.counts.entry(call.operation).or_default();
        *count += 1;
        let nth = *count;
        let fault = self
            .faults
            .iter_mut()
            .find_map(|fault| fault.matches(&call, nth).then_some(fault.kind));
        call.fault = fault;
        let call = Arc::new(Mutex::new(call));
        self.calls.push(Arc::clone(&call));
        (call, fault)
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.iter().map(|call| call.lock().expect("no panic").clone()).collect()
    }

    pub fn reset(&mut self) {
        self.calls.clear();
        self.counts.clear();
    }
}
