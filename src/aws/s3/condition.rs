//! Conditions of requests that write.

/// The condition of a request that writes an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// The object may be replaced.
    None,
    /// There is no object.
    Absent,
    /// The object has this ETag.
    Version(String),
}

impl Condition {
    /// The value of `If-None-Match`.
    pub(super) fn if_none_match(&self) -> Option<String> {
        (*self == Self::Absent).then(|| "*".to_owned())
    }

    /// The value of `If-Match`.
    pub(super) fn if_match(&self) -> Option<String> {
        if let Self::Version(etag) = self { Some(etag.clone()) } else { None }
    }
}

/// Compares ETags, which some stores quote in one answer and not in another.
pub(super) fn same_etag(one: &str, other: &str) -> bool {
    one.trim_matches('"') == other.trim_matches('"')
}
