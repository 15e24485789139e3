//! An error in one line: the failure reason of a task.

use crate::base::{Error, ErrorCode, ErrorKind, steers_terminal};

/// The longest reason in characters: about the length of AWS's own.
const LONGEST: usize = 500;
/// Facts that are part of the reason.
const FACTS: [&str; 15] = [
    "image_id",
    "name",
    "snapshot_id",
    "kms_key_id",
    "bucket",
    "object",
    "action",
    "code",
    "state",
    "because",
    "looks_like",
    "content",
    "also",
    "registered",
    "state_directory",
];

/// Message, facts and causes.
pub fn one_line_of(error: &Error) -> String {
    let facts: Vec<String> = error
        .context()
        .iter()
        .filter(|(key, _)| FACTS.contains(key))
        .map(|(key, value)| format!("{} {value}", key.replace('_', " ")))
        .collect();
    let mut text = error.message().to_owned();
    if !facts.is_empty() {
        text.push_str(&format!(" ({})", facts.join(", ")));
    }
    for cause in error.causes() {
        text.push_str(&format!(": {cause}"));
    }
    one_line(&text)
}

/// Message, facts and causes of a failed task, and advice: at most 500 characters.
pub fn failure_reason(error: &Error) -> String {
    let advice = match error.kind() {
        ErrorKind::Denied => "allow it to these credentials, and ask again: what was done is kept",
        ErrorKind::Limit
            if matches!(
                error.code(),
                Some(
                    ErrorCode::MemoryForIndexes
                        | ErrorCode::MemoryForLevel
                        | ErrorCode::MemoryForParts
                        | ErrorCode::PartsTooSmall
                )
            ) =>
        {
            "give it more memory, or let fewer tasks run at once"
        }
        ErrorKind::Io | ErrorKind::Limit | ErrorKind::Interrupted => {
            "ask again: what was done is kept, and is not done twice"
        }
        ErrorKind::NotFound => {
            "see whether it was deleted meanwhile, or is in another Region or account"
        }
        ErrorKind::Exists => "remove it, or choose another target or name",
        ErrorKind::Corrupt if error.is(ErrorCode::SnapshotBlockDamaged) => {
            "ask again; if it stays so, the snapshot is damaged"
        }
        ErrorKind::Corrupt => "`amistore verify` tells what is damaged",
        ErrorKind::Unsupported | ErrorKind::Usage => "it will fail again as it is",
        _ => "this should not happen: report it",
    };
    let text = one_line_of(error);
    let room = LONGEST - advice.chars().count() - 2;
    format!("{}; {advice}", cut(&text, room))
}

fn one_line(text: &str) -> String {
    text.split(|c: char| steers_terminal(c) || c.is_whitespace())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        text.to_owned()
    } else {
        text.chars().take(room - 1).chain(['…']).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_of_what_where_why_and_what_to_do() {
        let cause = Error::new(ErrorKind::Io, "the other\nside is\r\ngone");
        let error = Error::new(ErrorKind::Denied, "cannot read")
            .at("snapshot_id", "snap-1")
            .at("request_id", "r")
            .because(cause);
        let reason = failure_reason(&error);
        assert_eq!(
            reason,
            [
                "cannot read (snapshot id snap-1): the other side is gone; ",
                "allow it to these credentials, and ask again: what was done is kept",
            ]
            .concat()
        );
        let hostile =
            Error::new(ErrorKind::Io, "a\u{202e}b\u{9b}2J\u{2028}c").at("name", "\u{2066}d");
        let reason = one_line_of(&hostile);
        assert_eq!(reason, "a b 2J c (name d)", "no character steers a terminal");
        let long = failure_reason(&Error::new(ErrorKind::Io, "ä".repeat(2000)));
        assert!(long.chars().count() == LONGEST && long.contains("…; ask again"), "{long}");
    }
}
