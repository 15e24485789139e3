//! The writer of text for people, on stdout and stderr: the only place where a line ends and where
//! a color begins.

use std::fmt::Display;
use std::io::{self, Write};

use crate::base::Printable;

/// Lines for people. Names, messages and values in them come from archives, services and file
/// systems, so characters that steer a terminal are replaced by escapes, line feeds among them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct SafeText(String);

impl SafeText {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds one line.
    pub(in super::super) fn line(&mut self, line: impl Display) {
        self.0.push_str(&Printable(line).to_string());
        self.0.push('\n');
    }

    /// Adds an empty line.
    pub(super) fn blank(&mut self) {
        self.0.push('\n');
    }

    /// The lines, each with its line feed.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Writes the lines to stderr. A closed stderr is no error.
    pub(super) fn to_stderr(&self) {
        let _ = io::stderr().write_all(self.0.as_bytes());
    }

    /// Writes the lines to stderr as an error: after the word "error:", which may be in color.
    pub(in super::super) fn to_stderr_as_error(&self, color: bool) {
        let (on, off) = if color { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        let _ = io::stderr().write_all(format!("{on}error:{off} {}", self.0).as_bytes());
    }

    /// Writes the lines to stderr, then a question on a line that stays open.
    pub(super) fn ask_on_stderr(&self, question: &str) -> io::Result<()> {
        let mut stderr = io::stderr().lock();
        write!(stderr, "{}{} ", self.0, Printable(question))?;
        stderr.flush()
    }
}

/// One line.
impl From<String> for SafeText {
    fn from(line: String) -> Self {
        let mut text = Self::new();
        text.line(line);
        text
    }
}

/// All lines of an iterator.
impl<T: Display> FromIterator<T> for SafeText {
    fn from_iter<I: IntoIterator<Item = T>>(lines: I) -> Self {
        let mut text = Self::new();
        lines.into_iter().for_each(|line| text.line(line));
        text
    }
}

/// Bytes of a result on stderr, as they are: stdout carries an archive.
pub(super) fn bytes_to_stderr(bytes: &[u8]) {
    let _ = io::stderr().write_all(bytes);
}

/// One line of JSON on stderr. JSON is for programs, and carries every character.
pub(super) fn json_to_stderr(json: &serde_json::Value) {
    let _ = writeln!(io::stderr(), "{json}");
}

/// The columns of the terminal behind stderr; `None` if it is no terminal.
pub(super) fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok()?;
    Some(usize::from(size.ws_col)).filter(|width| *width > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_no_line() {
        let mut text = SafeText::from("a\nb".to_owned());
        text.blank();
        text.line(format_args!("{:<4}|{}", "\u{9b}", "c\r"));
        assert_eq!(text.as_str(), "a\\nb\n\n\\u{9b}   |c\\r\n");
    }
}
