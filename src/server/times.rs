//! Times as the protocols write and read them.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::base::rfc3339;

/// As EC2 prints it: `2026-01-01T01:01:01.001Z`.
pub(super) fn milliseconds(time: SystemTime) -> String {
    let millis = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_millis());
    format!("{}.{millis:03}Z", rfc3339(time).trim_end_matches('Z'))
}

/// As signatures have it, `20260101T010101Z`, in seconds since 1970.
pub(super) fn signed_at(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let shape = bytes.len() == 16 && bytes[8] == b'T' && bytes[15] == b'Z';
    if !shape
        || !bytes.iter().enumerate().all(|(at, byte)| matches!(at, 8 | 15) || byte.is_ascii_digit())
    {
        return None;
    }
    let part = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = (part(9, 11)?, part(11, 13)?, part(13, 15)?);
    if !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    // Days by years that begin in March, so that the day that leap years have is their last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_that_is_written_is_read() {
        for seconds in [0, 951_782_400, 951_868_799, 1_759_887_105, 4_107_542_400_u64] {
            let text = rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)).replace(['-', ':'], "");
            assert_eq!(signed_at(&text), i64::try_from(seconds).ok(), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "20260101T010101",
            "2026-1-01T01:01Z",
            "20261301T010101Z",
            "20260101T240101Z",
            "2026é101T01010Z",
            "+0260101T010101Z",
        ] {
            assert_eq!(signed_at(text), None, "{text}");
        }
    }

    #[test]
    fn milliseconds_are_written() {
        assert_eq!(
            milliseconds(UNIX_EPOCH + Duration::from_millis(1_759_887_105_007)),
            "2025-10-08T01:31:45.007Z"
        );
    }
}
