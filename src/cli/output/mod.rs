//! Output for people and programs. Results go to stdout, everything else to stderr.

mod archives;
mod ec2;
mod foreign;
mod json;
mod plan;
mod progress;
mod safe_text;
mod salvage;
mod table;
mod tasks;
mod text;
mod warnings;

use std::io::{BufRead, IsTerminal, Write};

use serde_json::Value;

use super::hints::hint;
use super::options::{GlobalArgs, OutputForm, ProgressForm, Settings};
use crate::base::{Error, ErrorCode, Observer, Result};
use crate::engine::Plan;
use safe_text::{bytes_to_stderr, json_to_stderr};
use warnings::Warnings;

pub(super) use archives::{listed, listed_text};
pub(super) use ec2::{
    Restoration, aws_restore_plan, aws_restore_plan_text, aws_restored, aws_restored_text,
    aws_stored, aws_stored_text, restoration, restoration_text, retired, retired_text,
};
pub(super) use foreign::{
    copied_object, copied_object_text, foreign_copy_plan, foreign_copy_plan_text,
};
pub(super) use json::{cleaned, copied, extracted, inspection, metadata, stored, verified};
pub(super) use plan::{
    copy_plan, copy_plan_text, restore_plan, restore_plan_text, store_plan, store_plan_text,
    stream_copy_plan, stream_copy_plan_text, stream_restore_plan, stream_restore_plan_text,
};
pub(super) use safe_text::SafeText;
pub(super) use salvage::{SalvageTarget, salvaged, salvaged_text};
pub(super) use tasks::{tasks, tasks_text};
pub(super) use text::{
    cleaned_text, copied_text, extracted_text, inspection_text, metadata_text, stored_text,
    verified_text,
};

/// Prints results, decisions and errors in the selected form.
pub(super) struct Console {
    form: OutputForm,
    progress: ProgressForm,
    quiet: bool,
    verbose: bool,
    color: bool,
    /// Results go to stderr, because stdout carries an archive.
    stdout_is_taken: std::sync::atomic::AtomicBool,
    warnings: Warnings,
}

impl Console {
    pub(super) fn new(args: &GlobalArgs) -> Self {
        let color = is_colored(args.no_color);
        Self {
            form: args.output,
            progress: args.progress,
            quiet: args.quiet,
            verbose: args.verbose,
            color,
            stdout_is_taken: std::sync::atomic::AtomicBool::new(false),
            warnings: Warnings::default(),
        }
    }

    /// From now on results go to stderr.
    pub(super) fn give_up_stdout(&self) {
        self.stdout_is_taken.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// The observer that prints progress and warnings.
    pub(super) fn observer(&self) -> std::sync::Arc<dyn Observer> {
        let shown = progress::observer(self.progress, self.quiet, self.verbose, self.form);
        self.warnings.collected_from(shown)
    }

    /// Prints text before the result, for people only.
    pub(super) fn say(&self, text: &SafeText) {
        if !self.quiet && self.form == OutputForm::Text {
            text.to_stderr();
        }
    }

    /// Prints a plan, and reads whether to carry it out. `--quiet` does not silence a question.
    pub(super) fn ask(&self, plan: &SafeText, question: &str) -> Result<bool> {
        let failed = |cause| Error::io("cannot ask", cause);
        plan.ask_on_stderr(question).map_err(failed)?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer).map_err(failed)?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }

    /// Prints a result in the selected form. JSON gets the member `Warnings`.
    pub(super) fn result(
        &self,
        text: impl FnOnce() -> SafeText,
        json: impl FnOnce() -> Value,
    ) -> Result<()> {
        match self.form {
            OutputForm::Text => self.write(text().as_str().as_bytes()),
            OutputForm::Json => {
                let mut members = json();
                members["Warnings"] = self.warnings.all().into();
                let is_for_people = self.result_is_on_terminal();
                self.write(printed(&members, is_for_people).as_bytes())
            }
        }
    }

    fn result_is_on_terminal(&self) -> bool {
        if self.stdout_is_taken.load(std::sync::atomic::Ordering::Relaxed) {
            std::io::stderr().is_terminal()
        } else {
            std::io::stdout().is_terminal()
        }
    }

    /// Prints one line, in either form, while work goes on: for programs that read line by line.
    pub(super) fn line(
        &self,
        text: impl FnOnce() -> String,
        json: impl FnOnce() -> Value,
    ) -> Result<()> {
        match self.form {
            OutputForm::Text => self.write(SafeText::from(text()).as_str().as_bytes()),
            OutputForm::Json => self.write(format!("{}\n", json()).as_bytes()),
        }
    }

    /// Writes bytes as the result, as they are.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<()> {
        if self.stdout_is_taken.load(std::sync::atomic::Ordering::Relaxed) {
            if !self.quiet {
                bytes_to_stderr(bytes);
            }
            return Ok(());
        }
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|cause| {
            Error::io("cannot write to standard output", cause).code_as(ErrorCode::OutputFailed)
        })
    }

    /// Prints a decision, if `--verbose` is given.
    pub(super) fn explain<T: Into<SafeText>>(&self, text: impl FnOnce() -> T) {
        if self.verbose {
            text().into().to_stderr();
        }
    }

    /// Prints the division of the memory of an operation, if `--verbose` is given.
    pub(super) fn explain_plan(&self, plan: &Plan, settings: &Settings) {
        self.explain(|| {
            format!(
                "{} threads, {} of {} bytes for data in flight",
                plan.threads, plan.in_flight, settings.resources.memory
            )
        });
    }

    /// Prints an error, with `--quiet` as well.
    pub(super) fn error(&self, error: &Error) {
        match self.form {
            OutputForm::Json => print_json_error(error),
            OutputForm::Text => print_error(error, self.color),
        }
    }
}

/// Prints an error for people: its facts, causes and hint.
pub(super) fn print_error(error: &Error, color: bool) {
    let mut text = SafeText::from(error.message().to_owned());
    // Their commands are in the hint.
    let is_in_hint = |key: &str| ["resume_with", "convert_with"].contains(&key);
    for (key, value) in error.context().iter().filter(|(key, _)| !is_in_hint(key)) {
        text.line(format_args!("  {}: {value}", key.replace('_', " ")));
    }
    for cause in error.causes() {
        text.line(format_args!("  caused by: {cause}"));
    }
    if let Some(hint) = hint(error) {
        text.line(format_args!("  hint: {hint}"));
    }
    text.to_stderr_as_error(color);
}

/// Whether errors are in color: on a terminal, unless `--no-color` or `NO_COLOR` says otherwise.
pub(super) fn is_colored(no_color: bool) -> bool {
    !no_color
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::io::stderr().is_terminal()
}

/// A result in JSON: indented for people, one line for programs that read line by line.
fn printed(result: &Value, is_for_people: bool) -> String {
    if is_for_people { format!("{result:#}\n") } else { format!("{result}\n") }
}

/// An error as one JSON object on stderr.
pub(super) fn print_json_error(error: &Error) {
    json_to_stderr(&json::error(error));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_result_is_one_line_unless_people_read_it() {
        let result = json!({"Archive": "a\nb", "Volumes": [1]});
        assert_eq!(printed(&result, false), "{\"Archive\":\"a\\nb\",\"Volumes\":[1]}\n");
        assert_eq!(printed(&result, true).lines().count(), 6);
    }
}
