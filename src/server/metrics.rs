//! Metrics of the endpoint, in the text format 0.0.4 of Prometheus.
//!
//! The text is written here: a library that writes OpenMetrics ends it with `# EOF`, names the
//! types of counters without `_total` and prints `le` as shortest floats, so that every series of
//! the histogram would begin anew.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Overview;

/// Upper ends of the buckets of durations, in milliseconds.
const BUCKETS: [u64; 10] = [5, 10, 25, 50, 100, 250, 500, 1000, 5000, 30_000];
/// Pairs of action and code with a counter each; further codes count as `other`. EC2 sends codes of
/// its own, and this bounds the memory for them.
const MAX_PAIRS: usize = 500;

/// Counters of the endpoint itself.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, String), u64>>,
    durations: Mutex<BTreeMap<&'static str, Durations>>,
    open: AtomicU64,
    connections: AtomicU64,
    rejected: AtomicU64,
    evicted: AtomicU64,
}

#[derive(Clone, Debug, Default)]
struct Durations {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    millis: u64,
}

/// A connection, for as long as it is open.
pub(super) struct OpenConnection(Arc<Metrics>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts a connection.
    pub(super) fn opened(self: Arc<Self>) -> OpenConnection {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.connections.fetch_add(1, Ordering::Relaxed);
        OpenConnection(self)
    }

    /// Counts a connection above the limit.
    pub(super) fn rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an idle connection that was closed for a new one.
    pub(super) fn evicted(&self) {
        self.evicted.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request. `action` is one of this program's constants, of which there are few.
    pub(super) fn answered(&self, action: &'static str, code: &str, took: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let code = if requests.len() < MAX_PAIRS { code } else { "other" };
        *requests.entry((action, code.to_owned())).or_default() += 1;
        drop(requests);
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let mut durations = self.durations.lock().unwrap_or_else(PoisonError::into_inner);
        let of_action = durations.entry(action).or_default();
        for (count, end) in of_action.buckets.iter_mut().zip(BUCKETS) {
            *count += u64::from(millis <= end);
        }
        of_action.count += 1;
        of_action.millis = of_action.millis.saturating_add(millis);
    }

    /// All metrics as text.
    pub(super) fn text(&self, overview: &Overview) -> String {
        let mut text = String::new();
        family(&mut text, "build_info", "gauge", "The version of the server.");
        _ = writeln!(text, "amistore_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
        family(&mut text, "tasks", "gauge", "Tasks that wait or run.");
        for (state, count) in [("queued", overview.queued), ("running", overview.running)] {
            _ = writeln!(text, "amistore_tasks{{state=\"{state}\"}} {count}");
        }
        family(
            &mut text,
            "tasks_ended_total",
            "counter",
            "Tasks that ended since the server started.",
        );
        for (state, count) in [("completed", overview.completed), ("failed", overview.failed)] {
            _ = writeln!(text, "amistore_tasks_ended_total{{state=\"{state}\"}} {count}");
        }
        for (name, kind, help, value) in [
            ("volume_bytes_total", "counter", "Bytes of volumes read or written.", overview.bytes),
            (
                "transferred_bytes_total",
                "counter",
                "Bytes sent to and received from AWS.",
                overview.transferred,
            ),
            ("retries_total", "counter", "Requests to AWS that were repeated.", overview.retries),
            ("http_connections", "gauge", "Open connections.", self.open.load(Ordering::Relaxed)),
            (
                "http_connections_total",
                "counter",
                "Accepted connections.",
                self.connections.load(Ordering::Relaxed),
            ),
            (
                "http_connections_refused_total",
                "counter",
                "Connections above the limit.",
                self.rejected.load(Ordering::Relaxed),
            ),
            (
                "http_connections_evicted_total",
                "counter",
                "Idle connections that were closed for new ones.",
                self.evicted.load(Ordering::Relaxed),
            ),
        ] {
            family(&mut text, name, kind, help);
            _ = writeln!(text, "amistore_{name} {value}");
        }
        family(&mut text, "http_requests_total", "counter", "Requests by action and code.");
        for ((action, code), count) in
            self.requests.lock().unwrap_or_else(PoisonError::into_inner).iter()
        {
            let code: String =
                code.chars().filter(|char| char.is_ascii_alphanumeric() || *char == '.').collect();
            _ = writeln!(
                text,
                "amistore_http_requests_total{{action=\"{action}\",code=\"{code}\"}} {count}"
            );
        }
        family(
            &mut text,
            "http_request_duration_seconds",
            "histogram",
            "Time until the head of the reply.",
        );
        for (action, durations) in
            self.durations.lock().unwrap_or_else(PoisonError::into_inner).iter()
        {
            histogram(&mut text, action, durations);
        }
        text
    }
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    _ = writeln!(text, "# HELP amistore_{name} {help}\n# TYPE amistore_{name} {kind}");
}

fn histogram(text: &mut String, action: &str, durations: &Durations) {
    let name = "amistore_http_request_duration_seconds";
    for (end, count) in BUCKETS.iter().zip(durations.buckets) {
        _ = writeln!(text, "{name}_bucket{{action=\"{action}\",le=\"{}\"}} {count}", seconds(*end));
    }
    _ = writeln!(text, "{name}_bucket{{action=\"{action}\",le=\"+Inf\"}} {}", durations.count);
    _ = writeln!(text, "{name}_sum{{action=\"{action}\"}} {}", seconds(durations.millis));
    _ = writeln!(text, "{name}_count{{action=\"{action}\"}} {}", durations.count);
}

fn seconds(millis: u64) -> String {
    format!("{}.{:03}", millis / 1000, millis % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_printed() {
        let metrics = Arc::new(Metrics::default());
        metrics.answered("CreateStoreImageTask", "ok", Duration::from_millis(7));
        metrics.answered("CreateStoreImageTask", "a\"\n}b", Duration::from_secs(60));
        let open = metrics.clone().opened();
        let text = metrics.text(&Overview { queued: 3, ..Overview::default() });
        for line in [
            "amistore_tasks{state=\"queued\"} 3",
            "amistore_http_connections 1",
            "amistore_http_requests_total{action=\"CreateStoreImageTask\",code=\"ok\"} 1",
            "amistore_http_requests_total{action=\"CreateStoreImageTask\",code=\"ab\"} 1",
            "amistore_http_request_duration_seconds_bucket\
             {action=\"CreateStoreImageTask\",le=\"0.005\"} 0",
            "amistore_http_request_duration_seconds_bucket\
             {action=\"CreateStoreImageTask\",le=\"0.010\"} 1",
            "amistore_http_request_duration_seconds_bucket\
             {action=\"CreateStoreImageTask\",le=\"+Inf\"} 2",
            "amistore_http_request_duration_seconds_sum\
             {action=\"CreateStoreImageTask\"} 60.007",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        drop(open);
        assert!(metrics.text(&Overview::default()).contains("amistore_http_connections 0\n"));
    }
}
