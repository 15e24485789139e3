//! Progress, in four forms behind one trait: a bar, plain lines, JSON lines, nothing.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::super::options::{OutputForm, ProgressForm};
use super::note;
use crate::base::{Event, Observer, Stage, human_bytes};

/// Interval of plain lines. A log of hours should stay readable.
const PLAIN_EVERY: Duration = Duration::from_secs(10);
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

    /// Bytes sent and received, and retries, for people.
    fn network(&self) -> String {
        let part = |bytes: u64, what: &str| {
            if bytes > 0 { format!(", {} {what}", human_bytes(bytes)) } else { String::new() }
        };
        let retries =
            if self.retries > 0 { format!(", {} retries", self.retries) } else { String::new() };
        part(self.sent, "sent") + &part(self.received, "received") + &retries
    }

    /// The counters in a line for people.
    fn line(&self) -> String {
        let eta = self.eta().map(|seconds| format!(", {} to go", human_seconds(seconds)));
        format!(
            "{} of {}, {}/s{}{}",
            human_bytes(self.bytes),
            human_bytes(self.total),
            human_bytes(self.rate()),
            eta.unwrap_or_default(),
            self.network()
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
            Form::Json => note(
                &json!({
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
                })
                .to_string(),
            ),
            Form::Plain if event == "progress" => match counters.stage {
                Stage::Thaw => note("thaw: waiting until the object can be read"),
                stage => note(&format!("{}: {}", stage.name(), counters.line())),
            },
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
                self.count(&mut guard, |counters| counters.received += bytes)
            }
            Event::Retried { error, attempt, delay } => {
                self.count(&mut guard, |counters| counters.retries += 1);
                match self.form {
                    Form::Json => note(
                        &json!({
                            "event": "retry",
                            "message": error.message(),
                            "context": facts(error),
                            "causes": error.causes(),
                            "attempt": attempt,
                            "delay_seconds": milliseconds(*delay),
                        })
                        .to_string(),
                    ),
                    _ if self.verbose => note(&retry_text(error, *attempt, *delay)),
                    _ => {}
                }
            }
            Event::Note { message } => match self.form {
                Form::Json => note(&json!({"event": "note", "message": message}).to_string()),
                Form::JsonWarnings => {}
                _ if self.verbose => note(message),
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
                    note(&line.to_string());
                }
            }
            Event::Warning { message } => match self.form {
                Form::Json | Form::JsonWarnings => {
                    note(&json!({"event": "warning", "message": message}).to_string())
                }
                Form::Plain | Form::WarningsOnly => note(&format!("warning: {message}")),
            },
        }
    }
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

/// A bar with rate and time to go.
struct Bar {
    bar: ProgressBar,
    verbose: bool,
    sent: AtomicU64,
    retries: AtomicU64,
}

impl Bar {
    fn new(verbose: bool) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(5));
        let style = ProgressStyle::with_template(
            "{prefix:<8} [{bar:30}] {binary_bytes} of {binary_total_bytes}, \
             {binary_bytes_per_sec}, {eta} to go{msg}",
        );
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar, verbose, sent: AtomicU64::new(0), retries: AtomicU64::new(0) }
    }

    /// Shows bytes sent and retries behind the bar.
    fn show_network(&self) {
        let (sent, retries) =
            (self.sent.load(Ordering::Relaxed), self.retries.load(Ordering::Relaxed));
        let sent = if sent > 0 { format!(", {} sent", human_bytes(sent)) } else { String::new() };
        let retries = if retries > 0 { format!(", {retries} retries") } else { String::new() };
        self.bar.set_message(sent + &retries);
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
                bar.reset();
                bar.set_prefix(stage.name());
                bar.set_length(total.unwrap_or(0));
                match stage {
                    Stage::Sync => bar.set_message(": making it last"),
                    Stage::Thaw => bar.set_message(": waiting until the object can be read"),
                    _ => {}
                }
            }
            Event::Grew { bytes } => bar.inc_length(*bytes),
            Event::Advanced { bytes, .. } => bar.inc(*bytes),
            Event::Reused { bytes, .. } => {
                bar.inc(*bytes);
                // Bytes of an earlier run say nothing about the rate of this one.
                bar.reset_eta();
            }
            Event::Sent { bytes } => {
                self.sent.fetch_add(*bytes, Ordering::Relaxed);
                self.show_network();
            }
            Event::Received { .. } => {}
            Event::Retried { error, attempt, delay } => {
                self.retries.fetch_add(1, Ordering::Relaxed);
                self.show_network();
                if self.verbose {
                    bar.suspend(|| note(&retry_text(error, *attempt, *delay)));
                }
            }
            Event::Note { message } if self.verbose => bar.suspend(|| note(message)),
            Event::Note { .. } => {}
            Event::Finished { .. } => bar.finish_and_clear(),
            Event::Damage { .. } => bar.set_message(", damage found"),
            Event::Warning { message } => bar.suspend(|| note(&format!("warning: {message}"))),
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
