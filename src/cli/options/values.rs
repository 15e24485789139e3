//! Values of options: sizes, ages, ranges, shares, pairs.

use std::time::Duration;

use crate::base::{Error, Result};
use crate::ops::VolumeRange;

/// Parses an age: `90s`, `30m`, `12h`, `7d`.
pub(in super::super) fn parse_age(text: &str) -> Result<Duration> {
    let wrong =
        || Error::usage("not an age: a number with s, m, h or d, such as 7d").at("given", text);
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number = number.parse::<u64>().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// Parses `KEY=VALUE`; `form` says what the option takes.
pub(super) fn pair(text: &str, flag: &str, form: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Error::usage(format!("{flag} has to be {form}")).at("given", text)),
    }
}

/// Parses tags, `KEY=VALUE` each.
pub(super) fn tags(given: &[String], flag: &str) -> Result<Vec<(String, String)>> {
    given.iter().map(|tag| pair(tag, flag, "KEY=VALUE")).collect()
}

/// Parses a number of bytes: `268435456`, `256MiB`, `1G`. All units are binary.
pub(super) fn parse_size(text: &str) -> Result<u64> {
    let wrong = || {
        Error::usage("not a size: use bytes or a number with KiB, MiB or GiB, such as 256MiB")
            .at("given", text)
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift)).ok_or_else(wrong)
}

/// Parses a range of bytes: `OFFSET+LENGTH`, both sizes, such as `1MiB+512`.
pub(in super::super) fn parse_range(text: &str) -> Result<VolumeRange> {
    let wrong = || {
        Error::usage("not a range: OFFSET+LENGTH is one, such as 1MiB+64KiB, with at least 1 byte")
            .at("given", text)
    };
    let (offset, len) = text.split_once('+').ok_or_else(wrong)?;
    let range = VolumeRange { offset: parse_size(offset)?, len: parse_size(len)? };
    if range.len == 0 { Err(wrong()) } else { Ok(range) }
}

/// Parses a share: `5%` or `5`; more than 0, at most 100.
pub(in super::super) fn parse_percent(text: &str) -> Result<f64> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok();
    number
        .filter(|percent| *percent > 0.0 && *percent <= 100.0)
        .map(|percent| percent / 100.0)
        .ok_or_else(|| {
            Error::usage("--sample has to be more than 0% and at most 100%").at("given", text)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_shares_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("1024", 1024),
            ("64KiB", 65_536),
            ("256MiB", 256 << 20),
            ("1g", 1 << 30),
            ("2 GiB", 2 << 30),
        ] {
            assert_eq!(parse_size(text).expect(text), bytes);
        }
        for bad in ["", "MiB", "-1", "1.5GiB", "1GB", "99999999999999999999"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_age("7d").expect("an age"), Duration::from_secs(7 * 86_400));
        for bad in ["", "7", "d", "7w", "-1d"] {
            assert!(parse_age(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_percent("5%").expect("a share"), 0.05);
        assert_eq!(parse_percent("100").expect("a share"), 1.0);
        for bad in ["0", "101%", "x", "-5%", "nan"] {
            assert!(parse_percent(bad).is_err(), "{bad}");
        }
    }
}
