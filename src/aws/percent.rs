//! The bytes that AWS writes as `%XX`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};

/// All but the unreserved characters of RFC 3986, 2.3: letters, digits, `-`, `.`, `_` and `~`.
pub const RESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// [`RESERVED`] without `/`, which separates the segments of a path.
pub const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/');
