//! Dates as AWS writes and reads them. The calendar is the Gregorian one, and everything is UTC.

use std::time::{Duration, SystemTime};

const DAY: u64 = 86_400;

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Year, month, day, hour, minute and second.
fn fields(time: SystemTime) -> [u64; 6] {
    let seconds = since_epoch(time).as_secs();
    let (mut days, rest) = (seconds / DAY, seconds % DAY);
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    while days >= days_of_month(year, month) {
        days -= days_of_month(year, month);
        month += 1;
    }
    [year, month, days + 1, rest / 3600, rest / 60 % 60, rest % 60]
}

/// `2021-01-01T01:01:01.001Z`.
pub fn iso(time: SystemTime) -> String {
    let [year, month, day, hour, minute, second] = fields(time);
    let millis = since_epoch(time).subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Seconds since the epoch, with a fraction.
pub fn epoch(time: SystemTime) -> f64 {
    since_epoch(time).as_millis() as f64 / 1000.0
}

/// Reads both forms. Parts of a second may be missing.
pub fn parse(text: &str) -> Option<SystemTime> {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let known = text.ends_with('Z') && text.contains('T') && digits.len() >= 14;
    let number = |range: std::ops::Range<usize>| digits.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
    let (hour, minute, second) = (number(8..10)?, number(10..12)?, number(12..14)?);
    let exists = (1..=12).contains(&month)
        && (1..=days_of_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    if !known || !exists || year < 1970 {
        return None;
    }
    let years: u64 = (1970..year).map(|year| 365 + u64::from(is_leap(year))).sum();
    let months: u64 = (1..month).map(|month| days_of_month(year, month)).sum();
    let millis = format!("{:0<3}", digits.get(14..).unwrap_or_default()).get(..3)?.parse().ok()?;
    let seconds = (years + months + day - 1) * DAY + hour * 3600 + minute * 60 + second;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis))
}

#[test]
fn dates_are_formatted_and_parsed() {
    let cases = [
        (0, "1970-01-01T00:00:00.000Z", "19700101T000000Z"),
        (951_782_399_999, "2000-02-28T23:59:59.999Z", "20000228T235959Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z", "20000229T000000Z"),
        (1_735_689_599_001, "2024-12-31T23:59:59.001Z", "20241231T235959Z"),
        (4_102_444_800_000, "2100-01-01T00:00:00.000Z", "21000101T000000Z"),
    ];
    for (millis, text, short) in cases {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        assert_eq!(iso(time), text);
        assert_eq!(parse(text), Some(time));
        assert_eq!(parse(short).map(iso), Some(format!("{}.000Z", &text[..19])));
    }
    assert_eq!(parse("2021-02-29T00:00:00Z"), None);
    assert_eq!(parse("2021-02-28"), None);
}
