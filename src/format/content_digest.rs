//! Content digests (7): equal for archives of the same data, whatever wrote them.

use super::layout::FORMAT_VERSION;
use super::{CellFacts, Digest, VolumeEntry};
use crate::base::Bitmap8;
use crate::codec::sha256;

/// The digest of a group: of its cells with data, in order. 36 bytes of input for each.
#[derive(Clone, Debug, Default)]
pub struct GroupContent(Vec<u8>);

impl GroupContent {
    /// Adds the next cell. A cell without data changes nothing.
    pub fn add(&mut self, cell: &CellFacts) {
        self.add_data(cell.address.index, cell.present & !cell.zero, &cell.content);
    }

    /// Adds the next cell: its data blocks and the digest of their digests. A cell without data
    /// changes nothing.
    pub fn add_data(&mut self, cell: u16, data: Bitmap8, content: &Digest) {
        if data != 0 {
            self.0.extend_from_slice(&cell.to_le_bytes());
            self.0.extend_from_slice(&u16::from(data).to_le_bytes());
            self.0.extend_from_slice(content);
        }
    }

    /// Whether any cell had data.
    pub fn has_data(&self) -> bool {
        !self.0.is_empty()
    }

    /// The digest.
    pub fn digest(&self) -> Digest {
        sha256::digest(&self.0)
    }
}

/// The digest of a volume: of its groups with data, in order. 36 bytes of input for each.
#[derive(Clone, Debug, Default)]
pub struct VolumeContent(Vec<u8>);

impl VolumeContent {
    /// Adds the next group that has data.
    pub fn add(&mut self, group: u32, content: &Digest) {
        self.0.extend_from_slice(&group.to_le_bytes());
        self.0.extend_from_slice(content);
    }

    /// The digest.
    pub fn digest(&self) -> Digest {
        sha256::digest(&self.0)
    }
}

/// The content root: the digest of `image.json` and of all volumes.
pub fn content_root(image_json: &Digest, volumes: &[VolumeEntry]) -> Digest {
    let mut input = format!("AMIB content v{FORMAT_VERSION}\0").into_bytes();
    input.extend_from_slice(image_json);
    for (index, volume) in volumes.iter().enumerate() {
        input.extend_from_slice(&(index as u16).to_le_bytes());
        input.extend_from_slice(&volume.size.bytes().to_le_bytes());
        input.extend_from_slice(&volume.content);
    }
    sha256::digest(&input)
}
