//! The image as data: `image.json` (`format-spec/image-json.md`).
//!
//! It does not read files. The bytes of a document are kept as they came, so that nothing a tool does not know is lost.

mod document;
mod draft;
mod json;

pub use document::{ImageDocument, Mapping, SnapshotEntry};
pub use draft::{DiskDraft, ImageDraft};
