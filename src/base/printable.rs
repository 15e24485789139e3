//! Characters that steer a terminal, and text without them.

use std::fmt::{self, Write};

/// Whether a terminal or text viewer obeys the character instead of showing it: the controls C0,
/// DEL and C1 (line feeds, ESC, CSI), the separators of lines and paragraphs, and the invisible
/// characters that change the direction or the order of the text beside them.
///
/// The joiners U+200C and U+200D belong to words of several scripts and do neither.
pub fn steers_terminal(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{061C}'
                | '\u{200B}'
                | '\u{200E}'
                | '\u{200F}'
                | '\u{2028}'..='\u{202E}'
                | '\u{2060}'..='\u{206F}'
                | '\u{FEFF}'
                | '\u{FFF9}'..='\u{FFFB}'
                | '\u{E0000}'..='\u{E007F}'
        )
}

/// Displays a value as one line that steers no terminal: escapes such as `\n` and `\u{1b}` stand
/// for the characters of [`steers_terminal`].
#[derive(Clone, Copy, Debug)]
pub struct Printable<T>(pub T);

impl<T: fmt::Display> fmt::Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(steers_terminal) {
            self.0.write_str(&rest[..at])?;
            let mut chars = rest[at..].chars();
            if let Some(steering) = chars.next() {
                write!(self.0, "{}", steering.escape_default())?;
            }
            rest = chars.as_str();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown_as_an_escape() {
        for (text, shown) in [
            ("a\nb\r\tc\0", r"a\nb\r\tc\u{0}"),
            ("\u{1b}[31mred\u{7f}", r"\u{1b}[31mred\u{7f}"),
            ("\u{9b}2J\u{85}", r"\u{9b}2J\u{85}"),
            ("gpj.\u{202e}exe\u{2066}\u{061c}", r"gpj.\u{202e}exe\u{2066}\u{61c}"),
            ("\u{2028}\u{2029}\u{feff}\u{200b}", r"\u{2028}\u{2029}\u{feff}\u{200b}"),
            ("\u{e0041}", r"\u{e0041}"),
        ] {
            assert_eq!(Printable(text).to_string(), shown);
            assert!(!shown.contains(steers_terminal));
        }
    }

    #[test]
    fn words_of_all_scripts_stay_as_they_are() {
        for text in ["näme (v1) 'x' \\n", "ไทย עברית", "می\u{200c}خواهم", "👩\u{200d}🚀", ""]
        {
            assert_eq!(Printable(text).to_string(), text);
        }
    }
}
