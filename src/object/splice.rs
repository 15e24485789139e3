//! An object that is made of another version of itself.

use std::ops::Range;

use super::{Attributes, ResumableUpload};
use crate::base::Result;

/// New bytes around a range of the old object.
pub struct Splice<'a> {
    /// The first bytes.
    pub head: &'a [u8],
    /// The range of the old object that follows them.
    pub body: Range<u64>,
    /// The bytes behind it, in pieces.
    pub tail: Box<dyn Iterator<Item = Vec<u8>> + 'a>,
    /// Identifies all bytes of the new object: an interrupted splice is continued if it is equal.
    pub identity: String,
    /// Metadata and tags of the new object; tags of the old one stay, too.
    pub attributes: Attributes,
    /// Makes the upload resumable.
    pub resume: Option<ResumableUpload>,
    /// Called with the number of bytes that were copied or sent; an error, as of a cancellation,
    /// ends the splice.
    pub progress: &'a dyn Fn(u64) -> Result<()>,
}

/// The outcome of a splice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spliced {
    /// The object was replaced.
    Done,
    /// The object has to be sent as a whole, for this reason.
    Whole(&'static str),
}
