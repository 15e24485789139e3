//! Times as the protocols write and read them.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

pub(super) use crate::base::rfc3339_millis as milliseconds;

/// The date of a signature: `20260101T010101Z`.
const SIGNED: &str = "%Y%m%dT%H%M%SZ";
/// The header `Date` of HTTP: `Thu, 01 Jan 2026 01:01:01 GMT`.
const HTTP: &str = "%a, %d %b %Y %H:%M:%S GMT";

/// Reads the date of a signature, in seconds since 1970. `None` if the text is not a date in
/// exactly this form.
pub(super) fn signed_at(text: &str) -> Option<i64> {
    read(SIGNED, text)
}

/// Reads the header `Date` of HTTP, in seconds since 1970. `None` if the text is not a date in
/// exactly this form.
pub(super) fn http_date(text: &str) -> Option<i64> {
    read(HTTP, text)
}

/// The day of a signature: `20260101`.
pub(super) fn signing_day(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map(|time| time.to_zoned_datetime(TimeZone::UTC).strftime("%Y%m%d").to_string())
        .unwrap_or_default()
}

fn read(format: &str, text: &str) -> Option<i64> {
    let time = DateTime::strptime(format, text).ok()?.to_zoned_datetime(TimeZone::UTC).ok()?;
    // The crate also reads signs, white space and numbers without leading zeros.
    (time.strftime(format).to_string() == text).then(|| time.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::base::rfc3339;

    #[test]
    fn a_time_that_is_written_is_read() {
        for seconds in [0, 951_782_400, 951_868_799, 1_759_887_105, 4_107_542_400_u64] {
            let text = rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)).replace(['-', ':'], "");
            assert_eq!(signed_at(&text), i64::try_from(seconds).ok(), "{text}");
        }
    }

    #[test]
    fn a_text_that_is_not_a_time_is_none() {
        for text in [
            "",
            "20260101T010101",
            "2026-1-01T01:01Z",
            "20261301T010101Z",
            "20260230T010101Z",
            "20260101T240101Z",
            "2026é101T01010Z",
            "+0260101T010101Z",
            " 20260101T010101Z",
        ] {
            assert_eq!(signed_at(text), None, "{text}");
        }
    }

    #[test]
    fn the_header_date_of_http_is_read_in_its_one_form() {
        let text = "Wed, 08 Oct 2025 01:31:45 GMT";
        assert_eq!(http_date(text), Some(1_759_887_105));
        assert_eq!(signing_day(1_759_887_105), "20251008");
        for text in [
            "Tue, 08 Oct 2025 01:31:45 GMT",
            "Wed, 8 Oct 2025 01:31:45 GMT",
            "Wed, 08 Oct 2025 01:31:45 UTC",
            "wed, 08 oct 2025 01:31:45 gmt",
            "Wednesday, 08-Oct-25 01:31:45 GMT",
            "",
        ] {
            assert_eq!(http_date(text), None, "{text}");
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
