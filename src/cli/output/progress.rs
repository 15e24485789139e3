//! Progress, in four forms behind one trait: a bar, plain lines, JSON lines, nothing.

use std::fmt;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde_json::json;

use super::super::options::{OutputForm, ProgressForm};
use super::safe_text::{SafeText, json_to_stderr, terminal_width};
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
    /// Whether damage was found.
    damaged: bool,
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
            damaged: false,
        }
    }

    /// Bytes a second since the stage began, without those of an earlier run.
    fn rate(&self) -> u64 {
        ((self.bytes - self.reused) as f64 / self.started.elapsed().as_secs_f64().max(1e-3)) as u64
    }

    /// The counters in a line for people, with as much as fits into `width` columns; all of it
    /// where the width is not known.
    fn line(&self, with_bar: bool, width: Option<usize>) -> String {
        let lines = match self.stage {
            Stage::Sync => vec!["sync: making it last".to_owned()],
            Stage::Thaw => vec![
                "thaw: waiting until the object can be read".to_owned(),
                "thaw: waiting".to_owned(),
            ],
            _ => self.lines(with_bar),
        };
        let fits = |line: &&String| width.is_none_or(|width| line.chars().count() <= width);
        let line = lines.iter().find(fits).or(lines.last());
        line.map(|line| line.chars().take(width.unwrap_or(usize::MAX)).collect())
            .unwrap_or_default()
    }

    /// Lines about the work, from the longest to the shortest.
    fn lines(&self, with_bar: bool) -> Vec<String> {
        let (stage, done) = (self.stage.name(), self.bytes - self.reused);
        let bytes = human_bytes(self.bytes);
        let amount = match self.total {
            0 => bytes.clone(),
            total => format!("{bytes} of {}", human_bytes(total)),
        };
        let percent = self.percent().map_or(bytes, |percent| format!("{percent} %"));
        let left = left(done, self.rate(), self.eta());
        let mut network = network(self.sent, self.received, self.retries);
        if self.damaged {
            network.push_str(", damage found");
        }
        let mut lines = Vec::new();
        if let (true, Some(percent)) = (with_bar, self.percent()) {
            let [wide, narrow] = [30, 10].map(|width| bar(percent, width));
            lines.push(format!("{stage:<8} {wide} {amount}{left}{network}"));
            lines.push(format!("{stage:<8} {wide} {amount}{left}"));
            lines.push(format!("{stage:<8} {narrow} {amount}{left}"));
        }
        lines.push(format!("{stage}: {amount}{left}{network}"));
        lines.push(format!("{stage}: {amount}{left}"));
        lines.push(format!("{stage}: {percent}{left}"));
        lines.push(format!("{stage} {percent}{}", left.replace(',', "").replace(" to go", "")));
        lines.push(format!("{stage} {percent}"));
        lines
    }

    /// From 0 to 100, if the total is known.
    fn percent(&self) -> Option<u64> {
        let percent = (u128::from(self.bytes) * 100).checked_div(u128::from(self.total))?;
        Some(percent.min(100) as u64)
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
                say(counters.line(false, terminal_width()));
            }
            Form::Plain | Form::WarningsOnly | Form::JsonWarnings => {}
        }
    }
}

impl Observer for Lines {
    fn note(&self, event: &Event<'_>) {
        let mut guard = lock(&self.counters);
        match event {
            Event::Started { stage, total } => {
                let counters = Counters::new(*stage, total.unwrap_or(0));
                self.show(&counters, "started");
                *guard = Some(counters);
            }
            Event::Grew { bytes } => {
                if let Some(counters) = guard.as_mut() {
                    counters.total += *bytes;
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

/// A bar of `width` columns.
fn bar(percent: u64, width: usize) -> String {
    let full = width * percent as usize / 100;
    let head = if full < width { ">" } else { "" };
    format!("[{}{head}{}]", "=".repeat(full), " ".repeat(width - full - head.len()))
}

/// A line with a spinner that is drawn anew while a stage lasts.
struct Bar {
    bar: ProgressBar,
    verbose: bool,
    counters: Arc<Mutex<Option<Counters>>>,
}

/// Columns of the spinner and its space, and of the last column, which makes some terminals begin
/// a new line.
const BESIDE_LINE: usize = 3;

impl Bar {
    fn new(verbose: bool) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(5));
        let counters: Arc<Mutex<Option<Counters>>> = Arc::default();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {line}") {
            let counters = counters.clone();
            let line = move |_: &ProgressState, out: &mut dyn fmt::Write| {
                let width = terminal_width().map(|width| width.saturating_sub(BESIDE_LINE));
                if let Some(counters) = lock(&counters).as_ref() {
                    let _ = out.write_str(&counters.line(true, width));
                }
            };
            bar.set_style(style.with_key("line", line));
        }
        Self { bar, verbose, counters }
    }

    /// Counts. The line is drawn at the next tick, and not here: drawing locks the counters.
    fn count(&self, count: impl FnOnce(&mut Counters)) {
        if let Some(counters) = lock(&self.counters).as_mut() {
            count(counters);
        }
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
                *lock(&self.counters) = Some(Counters::new(*stage, total.unwrap_or(0)));
                bar.reset();
                bar.enable_steady_tick(TICK);
            }
            Event::Grew { bytes } => self.count(|counters| counters.total += *bytes),
            Event::Advanced { bytes, .. } => self.count(|counters| counters.bytes += *bytes),
            Event::Reused { bytes, .. } => self.count(|counters| {
                counters.bytes += *bytes;
                counters.reused += *bytes;
            }),
            Event::Sent { bytes } => self.count(|counters| counters.sent += *bytes),
            Event::Received { bytes } => self.count(|counters| counters.received += *bytes),
            Event::Retried { error, attempt, delay } => {
                self.count(|counters| counters.retries += 1);
                if self.verbose {
                    bar.suspend(|| say(retry_text(error, *attempt, *delay)));
                }
            }
            Event::Note { message } if self.verbose => bar.suspend(|| say(message)),
            Event::Note { .. } => {}
            Event::Finished { .. } => {
                bar.finish_and_clear();
                *lock(&self.counters) = None;
            }
            Event::Damage { .. } => self.count(|counters| counters.damaged = true),
            Event::Warning { message } => bar.suspend(|| say(format_args!("warning: {message}"))),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        let line = |counters: &Counters| counters.line(false, None);
        assert_eq!(line(&counters), "store: 0 B of 8.0 MiB");
        counters.received = 1 << 20;
        assert_eq!(line(&counters), "store: 0 B of 8.0 MiB, 1.0 MiB received", "yet it moves");
        // Pieces of an earlier run say nothing of the rate of this one.
        (counters.bytes, counters.reused) = (4 << 20, 4 << 20);
        assert_eq!((line(&counters).contains("to go"), counters.eta()), (false, None));
        counters.bytes += 1 << 20;
        assert!(line(&counters).contains("/s, 1 s to go"), "{}", line(&counters));
    }

    #[test]
    fn a_line_has_as_much_as_fits() {
        let mut counters = Counters::new(Stage::Restore, 2 << 40);
        counters.started -= Duration::from_millis(999_500);
        (counters.bytes, counters.received, counters.retries) = (1 << 40, 1 << 40, 7);
        let line = |width| counters.line(true, width);
        let whole = line(None);
        assert!(
            whole.starts_with(
                "restore  [===============>              ] 1.0 TiB of 2.0 TiB, 1.0 GiB/s"
            ) && whole.ends_with("16 min 40 s to go, 1.0 TiB received, 7 retries"),
            "{whole}"
        );
        for width in 1..130 {
            let line = line(Some(width));
            assert!(line.chars().count() <= width, "{width}: {line}");
            if width >= 37 {
                assert!(
                    line.contains("1.0 GiB/s") && line.contains("16 min 40 s"),
                    "{width}: {line}"
                );
            }
            if width >= 10 {
                assert!(line.starts_with("restore"), "{width}: {line}");
            }
        }
        assert_eq!(line(Some(37)), "restore 50 % 1.0 GiB/s 16 min 40 s");
        assert_eq!(line(Some(44)), "restore: 50 %, 1.0 GiB/s, 16 min 40 s to go");
        let thaw = Counters::new(Stage::Thaw, 0);
        assert_eq!(thaw.line(true, Some(37)), "thaw: waiting");
        // A stream, whose length is not known.
        let mut stream = Counters::new(Stage::Verify, 0);
        stream.started -= Duration::from_secs(1);
        stream.bytes = 1 << 20;
        assert!(
            stream.line(true, Some(37)).starts_with("verify: 1.0 MiB, "),
            "{}",
            stream.line(true, None)
        );
    }

    #[test]
    fn a_bar_is_as_full_as_the_work_is_done() {
        assert_eq!(bar(0, 10), "[>         ]");
        assert_eq!(bar(55, 10), "[=====>    ]");
        assert_eq!(bar(100, 10), "[==========]");
    }

    #[test]
    fn rate_and_time_left_follow_the_first_piece() {
        assert_eq!(left(0, 0, Some(0)), "");
        assert_eq!(left(1 << 20, 2 << 20, Some(65)), ", 2.0 MiB/s, 1 min 5 s to go");
        assert_eq!(left(1 << 20, 2 << 20, None), ", 2.0 MiB/s");
    }
}
