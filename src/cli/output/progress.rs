//! Progress, in four forms behind one trait: a bar, plain lines, JSON lines, nothing.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::super::args::{OutputForm, ProgressForm};
use super::note;
use crate::base::{Event, Observer, Stage, human_bytes};

/// How often plain lines come. A log of hours should stay readable.
const PLAIN_EVERY: Duration = Duration::from_secs(10);
/// How often JSON lines come.
const JSON_EVERY: Duration = Duration::from_secs(1);

/// The observer for a form.
pub(super) fn observer(form: ProgressForm, quiet: bool, output: OutputForm) -> Box<dyn Observer> {
    let terminal = std::io::stderr().is_terminal();
    match form {
        // Whoever reads errors as JSON should not meet text between them.
        ProgressForm::None | ProgressForm::Auto if output == OutputForm::Json && !quiet => {
            Box::new(Lines::new(Form::JsonWarnings, JSON_EVERY))
        }
        ProgressForm::Json => Box::new(Lines::new(Form::Json, JSON_EVERY)),
        _ if quiet => Box::new(crate::base::NullObserver),
        ProgressForm::Bar => Box::new(Bar::new()),
        ProgressForm::Auto if terminal => Box::new(Bar::new()),
        ProgressForm::Auto | ProgressForm::Plain => Box::new(Lines::new(Form::Plain, PLAIN_EVERY)),
        ProgressForm::None => Box::new(Lines::new(Form::WarningsOnly, PLAIN_EVERY)),
    }
}

/// What has been counted since a stage began.
struct Counters {
    stage: Stage,
    started: Instant,
    shown: Instant,
    bytes: u64,
    stored: u64,
    total: u64,
}

impl Counters {
    fn new(stage: Stage, total: u64) -> Self {
        let now = Instant::now();
        Self { stage, started: now, shown: now, bytes: 0, stored: 0, total }
    }

    /// Bytes a second since the stage began.
    fn rate(&self) -> u64 {
        (self.bytes as f64 / self.started.elapsed().as_secs_f64().max(1e-3)) as u64
    }

    /// Seconds to go, if a rate and an end are known.
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

/// A line now and then.
struct Lines {
    form: Form,
    every: Duration,
    counters: Mutex<Option<Counters>>,
}

impl Lines {
    fn new(form: Form, every: Duration) -> Self {
        Self { form, every, counters: Mutex::new(None) }
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
                    "bytes_per_second": counters.rate(),
                    "eta_seconds": counters.eta(),
                    "elapsed_seconds": (counters.started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
                })
                .to_string(),
            ),
            Form::Plain if event == "progress" => {
                let eta = counters.eta().map_or_else(String::new, |seconds| format!(", {} to go", human_seconds(seconds)));
                let (bytes, total, rate) = (human_bytes(counters.bytes), human_bytes(counters.total), human_bytes(counters.rate()));
                note(&format!("{}: {bytes} of {total}, {rate}/s{eta}", counters.stage.name()));
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
            Event::Advanced { bytes, stored } => {
                let Some(counters) = guard.as_mut() else { return };
                counters.bytes += bytes;
                counters.stored += stored;
                if counters.shown.elapsed() >= self.every {
                    counters.shown = Instant::now();
                    self.show(counters, "progress");
                }
            }
            Event::Finished { .. } => {
                if let Some(counters) = guard.take() {
                    self.show(&counters, "finished");
                }
            }
            Event::Damage { error } => {
                if self.form == Form::Json {
                    note(&json!({"event": "damage", "message": error.message(), "context": facts(error)}).to_string());
                }
            }
            Event::Warning { message } => match self.form {
                Form::Json | Form::JsonWarnings => note(&json!({"event": "warning", "message": message}).to_string()),
                Form::Plain | Form::WarningsOnly => note(&format!("warning: {message}")),
            },
        }
    }
}

fn facts(error: &crate::base::Error) -> serde_json::Value {
    serde_json::Value::Object(error.context().iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect())
}

/// A bar with rate and time to go.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(5));
        let style = ProgressStyle::with_template(
            "{prefix:<8} [{bar:30}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} to go{msg}",
        );
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        Self(bar)
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Observer for Bar {
    fn note(&self, event: &Event<'_>) {
        let bar = &self.0;
        match event {
            Event::Started { stage, total } => {
                bar.reset();
                bar.set_prefix(stage.name());
                bar.set_length(total.unwrap_or(0));
                if *stage == Stage::Sync {
                    bar.set_message(": waiting for the disk");
                }
            }
            Event::Grew { bytes } => bar.inc_length(*bytes),
            Event::Advanced { bytes, .. } => bar.inc(*bytes),
            Event::Finished { .. } => bar.finish_and_clear(),
            Event::Damage { .. } => bar.set_message(", damage found"),
            Event::Warning { message } => bar.suspend(|| note(&format!("warning: {message}"))),
        }
    }
}

fn human_seconds(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}
