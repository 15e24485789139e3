//! Progress, in four forms behind one trait: a bar, plain lines, JSON lines, nothing.

use std::fmt;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde_json::json;

use super::super::options::{OutputForm, ProgressForm};
use super::safe_text::{SafeText, json_to_stderr};
use crate::base::{Event, Observer, Stage, human_bytes};

/// Interval of plain lines. A log of hours should stay readable.
const PLAIN_EVERY: Duration = Duration::from_secs(10);
/// Interval of drawing the bar.
const TICK: Duration = Duration::from_millis(200);
/// Interval of JSON lines.
const JSON_EVERY: Duration = Duration::from_secs(1);

/// The observer for a form.
pub(super) fn observer(
    form: ProgressForm,
    quiet: bool,
    verbose: bool,
    output: OutputForm,
) -> Arc<dyn Observer> {
    let terminal = std::io::stderr().is_terminal();
    match form {
        // A program that reads errors as JSON gets no text between them.
        ProgressForm::None | ProgressForm::Auto if output == OutputForm::Json && !quiet => {
            Arc::new(Lines::new(Form::JsonWarnings, JSON_EVERY, verbose))
        }
        ProgressForm::Json => Arc::new(Lines::new(Form::Json, JSON_EVERY, verbose)),
        _ if quiet => Arc::new(crate::base::NullObserver),
        ProgressForm::Bar => Arc::new(Bar::new(verbose)),
        ProgressForm::Auto if terminal => Arc::new(Bar::new(verbose)),
        ProgressForm::Auto | ProgressForm::Plain => {
            Arc::new(Lines::new(Form::Plain, PLAIN_EVERY, verbose))
        }
        ProgressForm::None => Arc::new(Lines::new(Form::WarningsOnly, PLAIN_EVERY, verbose)),
    }
}

/// Counters since a stage began.
struct Counters {
    stage: Stage,
    started: Instant,
    shown: Instant,
    bytes: u64,
    stored: u64,
    total: u64,
    /// Volume bytes of `bytes` that an earlier run had done.
    reused: u64,
    sent: u64,
    received: u64,
    retries: u64,
}

impl Counters {
    fn new(stage: Stage, total: u64) -> Self {
        let now = Instant::now();
        Self {
            stage,
            started: now,
            shown: now,
            bytes: 0,
            stored: 0,
            total,
            reused: 0,
            sent: 0,
            received: 0,
            retries: 0,
        }
    }

    /// Bytes a second since the stage began, without those of an earlier run.
    fn rate(&self) -> u64 {
        ((self.bytes - self.reused) as f64 / self.started.elapsed().as_secs_f64().max(1e-3)) as u64
    }

    /// The counters in a line for people.
    fn line(&self) -> String {
        if self.stage == Stage::Thaw {
            return "thaw: waiting until the object can be read".to_owned();
        }
        let (bytes, total) = (human_bytes(self.bytes), human_bytes(self.total));
        let left = left(self.bytes - self.reused, self.rate(), self.eta());
        format!(
            "{}: {bytes} of {total}{left}{}",
            self.stage.name(),
            network(self.sent, self.received, self.retries)
        )
    }

    /// Remaining seconds, if rate and total are known.
    fn eta(&self) -> Option<u64> {
        let left = self.total.saturating_sub(self.bytes);
        (self.rate() > 0 && self.total > 0).then(|| left.div_ceil(self.rate()))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Json,
    WarningsOnly,
    JsonWarnings,
}

/// Prints a line at fixed intervals.
struct Lines {
    form: Form,
    every: Duration,
    verbose: bool,
    counters: Mutex<Option<Counters>>,
}

impl Lines {
    fn new(form: Form, every: Duration, verbose: bool) -> Self {
        Self { form, every, verbose, counters: Mutex::new(None) }
    }

    /// Counts, and prints the counters if the interval has passed.
    fn count(&self, guard: &mut Option<Counters>, count: impl FnOnce(&mut Counters)) {
        let Some(counters) = guard.as_mut() else { return };
        count(counters);
        if counters.shown.elapsed() >= self.every {
            counters.shown = Instant::now();
            self.show(counters, "progress");
        }
    }

    fn show(&self, counters: &Counters, event: &str) {
        match self.form {
            Form::Json => json_to_stderr(&json!({
                "event": event,
                "stage": counters.stage.name(),
                "bytes": counters.bytes,
                "total_bytes": (counters.total > 0).then_some(counters.total),
                "archive_bytes": counters.stored,
                "kept_bytes": counters.reused,
                "sent_bytes": counters.sent,
                "received_bytes": counters.received,
                "retries": counters.retries,
                "bytes_per_second": counters.rate(),
                "eta_seconds": counters.eta(),
                "elapsed_seconds": milliseconds(counters.started.elapsed()),
            })),
            Form::Plain if event == "progress" => {
                say(counters.line());
            }
            Form::Plain | Form::WarningsOnly | Form::JsonWarnings => {}
        }
    }
}

impl Observer for Lines {
    fn note(&self, event: &Event<'_>) {
        let mut guard = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started { stage, total } => {
                let counters = Counters::new(*stage, total.unwrap_or(0));
                self.show(&counters, "started");
                *guard = Some(counters);
            }
            Event::Grew { bytes } => {
                if let Some(counters) = guard.as_mut() {
                    counters.total += bytes;
                }
            }
            Event::Advanced { bytes, stored } => self.count(&mut guard, |counters| {
                counters.bytes += bytes;
                counters.stored += stored;
            }),
            Event::Reused { bytes, stored } => self.count(&mut guard, |counters| {
                counters.bytes += bytes;
                counters.reused += bytes;
                counters.stored += stored;
            }),
            Event::Sent { bytes } => self.count(&mut guard, |counters| counters.sent += bytes),
            Event::Received { bytes } => {
                self.count(&mut guard, |counters| counters.received += bytes);
            }
            Event::Retried { error, attempt, delay } => {
                self.count(&mut guard, |counters| counters.retries += 1);
                match self.form {
                    Form::Json => json_to_stderr(&json!({
                        "event": "retry",
                        "message": error.message(),
                        "context": facts(error),
                        "causes": error.causes(),
                        "attempt": attempt,
                        "delay_seconds": milliseconds(*delay),
                    })),
                    _ if self.verbose => say(retry_text(error, *attempt, *delay)),
                    _ => {}
                }
            }
            Event::Note { message } => match self.form {
                Form::Json => json_to_stderr(&json!({"event": "note", "message": message})),
                Form::JsonWarnings => {}
                _ if self.verbose => say(message),
                _ => {}
            },
            Event::Finished { .. } => {
                if let Some(counters) = guard.take() {
                    self.show(&counters, "finished");
                }
            }
            Event::Damage { error } => {
                if self.form == Form::Json {
                    let (message, context) = (error.message(), facts(error));
                    let line = json!({"event": "damage", "message": message, "context": context});
                    json_to_stderr(&line);
                }
            }
            Event::Warning { message } => match self.form {
                Form::Json | Form::JsonWarnings => {
                    json_to_stderr(&json!({"event": "warning", "message": message}));
                }
                Form::Plain | Form::WarningsOnly => say(format_args!("warning: {message}")),
            },
        }
    }
}

/// One line for people on stderr.
fn say(line: impl std::fmt::Display) {
    SafeText::from_iter([line]).to_stderr();
}

fn facts(error: &crate::base::Error) -> serde_json::Value {
    serde_json::Value::Object(
        error.context().iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect(),
    )
}

/// The reason of a retry, in a line.
fn retry_text(error: &crate::base::Error, attempt: u32, delay: Duration) -> String {
    let causes: String = error.causes().iter().map(|cause| format!(": {cause}")).collect();
    let code = error
        .answer()
        .and_then(|answer| answer.code.as_ref())
        .map(|code| format!(" ({code})"))
        .unwrap_or_default();
    format!(
        "attempt {attempt} failed, next in {:.1} s: {}{code}{causes}",
        delay.as_secs_f64(),
        error.message()
    )
}

/// Bytes that went over the network, and repeated requests.
fn network(sent: u64, received: u64, retries: u64) -> String {
    let part = |bytes: u64, what: &str| {
        if bytes > 0 { format!(", {} {what}", human_bytes(bytes)) } else { String::new() }
    };
    let retries = if retries > 0 { format!(", {retries} retries") } else { String::new() };
    part(sent, "sent") + &part(received, "received") + &retries
}

/// Rate and time to go. Before this run has done a first piece neither is known.
fn left(done: u64, rate: u64, eta: Option<u64>) -> String {
    if done == 0 {
        return String::new();
    }
    let eta = eta.map(|seconds| format!(", {} to go", human_seconds(seconds)));
    format!(", {}/s{}", human_bytes(rate), eta.unwrap_or_default())
}

/// A bar with rate and time to go.
struct Bar {
    bar: ProgressBar,
    verbose: bool,
    /// Bytes that this run has done in the stage.
    done: Arc<AtomicU64>,
    sent: AtomicU64,
    received: AtomicU64,
    retries: AtomicU64,
}

impl Bar {
    fn new(verbose: bool) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(5));
        let style = ProgressStyle::with_template(
            "{spinner} {prefix:<8} [{bar:30}] {binary_bytes} of {binary_total_bytes}{left}{msg}",
        );
        let done = Arc::new(AtomicU64::new(0));
        if let Ok(style) = style {
            let done = done.clone();
            let left = move |state: &ProgressState, out: &mut dyn fmt::Write| {
                let eta = state.len().is_some_and(|len| len > 0).then(|| state.eta().as_secs());
                let done = done.load(Ordering::Relaxed);
                let _ = out.write_str(&left(done, state.per_sec() as u64, eta));
            };
            bar.set_style(style.with_key("left", left).progress_chars("=> "));
        }
        let [sent, received, retries] = [0; 3].map(AtomicU64::new);
        Self { bar, verbose, done, sent, received, retries }
    }

    /// Counts, and shows behind the bar the bytes that went over the network and the requests that
    /// were repeated: they move while the first piece is under way.
    fn count_network(&self, counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
        let [sent, received, retries] = [&self.sent, &self.received, &self.retries]
            .map(|counter| counter.load(Ordering::Relaxed));
        self.bar.set_message(network(sent, received, retries));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for Bar {
    fn note(&self, event: &Event<'_>) {
        let bar = &self.bar;
        match event {
            Event::Started { stage, total } => {
                self.done.store(0, Ordering::Relaxed);
                bar.reset();
                // Its spinner moves between two events, too.
                bar.enable_steady_tick(TICK);
                bar.set_prefix(stage.name());
                bar.set_length(total.unwrap_or(0));
                match stage {
                    Stage::Sync => bar.set_message(": making it last"),
                    Stage::Thaw => bar.set_message(": waiting until the object can be read"),
                    _ => {}
                }
            }
            Event::Grew { bytes } => bar.inc_length(*bytes),
            Event::Advanced { bytes, .. } => {
                self.done.fetch_add(*bytes, Ordering::Relaxed);
                bar.inc(*bytes);
            }
            Event::Reused { bytes, .. } => {
                bar.inc(*bytes);
                // Bytes of an earlier run say nothing about the rate of this one.
                bar.reset_eta();
            }
            Event::Sent { bytes } => self.count_network(&self.sent, *bytes),
            Event::Received { bytes } => self.count_network(&self.received, *bytes),
            Event::Retried { error, attempt, delay } => {
                self.count_network(&self.retries, 1);
                if self.verbose {
                    bar.suspend(|| say(retry_text(error, *attempt, *delay)));
                }
            }
            Event::Note { message } if self.verbose => bar.suspend(|| say(message)),
            Event::Note { .. } => {}
            Event::Finished { .. } => bar.finish_and_clear(),
            Event::Damage { .. } => bar.set_message(", damage found"),
            Event::Warning { message } => bar.suspend(|| say(format_args!("warning: {message}"))),
        }
    }
}

/// Seconds, rounded to milliseconds.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

fn human_seconds(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters() -> Counters {
        Counters::new(Stage::Store, 8 << 20)
    }

    #[test]
    fn before_the_first_piece_is_done_nothing_is_said_of_the_time_left() {
        let mut counters = counters();
        assert_eq!(counters.line(), "store: 0 B of 8.0 MiB");
        counters.received = 1 << 20;
        assert_eq!(counters.line(), "store: 0 B of 8.0 MiB, 1.0 MiB received", "yet it moves");
        // Pieces of an earlier run say nothing of the rate of this one.
        (counters.bytes, counters.reused) = (4 << 20, 4 << 20);
        assert_eq!((counters.line().contains("to go"), counters.eta()), (false, None));
        counters.bytes += 1 << 20;
        assert!(counters.line().contains("/s, 1 s to go"), "{}", counters.line());
    }

    #[test]
    fn rate_and_time_left_follow_the_first_piece() {
        assert_eq!(left(0, 0, Some(0)), "");
        assert_eq!(left(1 << 20, 2 << 20, Some(65)), ", 2.0 MiB/s, 1 min 5 s to go");
        assert_eq!(left(1 << 20, 2 << 20, None), ", 2.0 MiB/s");
    }
}
