//! An archive that is read at any position: footer, root record, metadata and group indexes.

mod cache;
pub(super) mod check;
mod compare;
pub(super) mod detect;
pub(super) mod index;
pub(super) mod open;
mod range;
mod read_ahead;
mod revision;
mod volume;

use std::sync::Arc;

use crate::format::{Footer, MetaFrame, MetaRole, RootRecord, VolumeEntry};
use crate::image::ImageDocument;
use crate::object::ObjectReader;

pub use check::check_tail;
pub use compare::compare_volume;
pub use detect::is_other_object;
pub use open::read_footer;
pub use range::{RangeCells, RangePart};
pub use revision::Revision;
pub use volume::{ArchiveVolume, DEFAULT_CELL_CACHE};

/// An open archive: owns the reader of its object, can be shared between threads, and is cheap to
/// clone. Footer, root record and metadata are in memory and match their digests; group indexes
/// and cells are checked when they are read.
#[derive(Clone)]
pub struct Archive(Arc<Opened>);

struct Opened {
    reader: Arc<dyn ObjectReader>,
    footer: Footer,
    root: RootRecord,
    /// Lengths of the records between root record and footer.
    extra_records: Vec<u64>,
    document: ImageDocument,
}

impl Archive {
    /// The metadata.
    pub fn document(&self) -> &ImageDocument {
        &self.0.document
    }

    /// The footer.
    pub fn footer(&self) -> &Footer {
        &self.0.footer
    }

    /// The root record.
    #[doc(hidden)]
    pub fn root(&self) -> &RootRecord {
        &self.0.root
    }

    /// Lengths of the unknown records between root record and footer.
    #[doc(hidden)]
    pub fn extra_records(&self) -> &[u64] {
        &self.0.extra_records
    }

    /// The object that holds the archive.
    pub fn reader(&self) -> &dyn ObjectReader {
        self.0.reader.as_ref()
    }

    /// The manifest's entry of the volume with this index.
    #[doc(hidden)]
    pub fn volume_entry(&self, index: u16) -> &VolumeEntry {
        &self.0.root.manifest.volumes[usize::from(index)]
    }

    /// The meta frames of one role, in order.
    #[doc(hidden)]
    pub fn meta(&self, role: MetaRole) -> impl Iterator<Item = &MetaFrame> {
        self.root().manifest.meta.iter().filter(move |meta| meta.role == role)
    }
}
