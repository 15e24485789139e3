//! Times as text: RFC 3339 in UTC.

use std::time::SystemTime;

use jiff::Timestamp;

/// A time in whole seconds: `2025-10-08T01:31:45Z`. A time before 1970 is printed as 1970, one
/// after `9999-12-30T22:00:00Z`, the end of jiff's range, as that.
pub fn rfc3339(time: SystemTime) -> String {
    format!("{:.0}", timestamp(time))
}

/// A time in milliseconds, as EC2 prints it: `2025-10-08T01:31:45.007Z`. The range is that of
/// [`rfc3339`].
pub fn rfc3339_millis(time: SystemTime) -> String {
    format!("{:.3}", timestamp(time))
}

fn timestamp(time: SystemTime) -> Timestamp {
    if time < SystemTime::UNIX_EPOCH {
        return Timestamp::UNIX_EPOCH;
    }
    Timestamp::try_from(time).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn times_are_printed_as_aws_prints_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_759_887_105, "2025-10-08T01:31:45Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn fractions_are_cut_off_and_not_rounded() {
        let time = UNIX_EPOCH + Duration::from_nanos(1_759_887_105_999_999_999);
        assert_eq!(rfc3339(time), "2025-10-08T01:31:45Z");
        assert_eq!(rfc3339_millis(time), "2025-10-08T01:31:45.999Z");
    }

    #[test]
    fn times_out_of_range_are_printed_as_the_nearest_in_range() {
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00Z");
        let far = UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(rfc3339(far), "9999-12-30T22:00:00Z");
    }
}
