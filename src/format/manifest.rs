//! The manifest: the JSON part of the R record (4).

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::Digest;
use super::layout::{FORMAT_NAME, FORMAT_VERSION, MAX_VOLUMES};
use crate::base::{
    BLOCK_BYTES, CELL_BLOCKS, Error, GROUP_BLOCKS, Result, SnapshotId, VolumeSize, hex,
};

/// The part of the tar archive that a meta frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaRole {
    /// `image.json` and `FORMAT.txt`.
    Prologue,
    /// The tar header of this volume.
    Volume(u16),
    /// The end of the tar.
    End,
}

/// A zstd frame without volume data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaFrame {
    /// Offset in the archive.
    pub offset: u64,
    /// Length of the frame as stored.
    pub len: u64,
    /// Length of its content.
    pub raw_len: u64,
    /// SHA-256 of the frame as stored.
    pub digest: Digest,
    /// Its part of the tar archive.
    pub role: MetaRole,
}

/// A volume in the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeEntry {
    /// The snapshot id.
    pub name: SnapshotId,
    /// Size of the volume.
    pub size: VolumeSize,
    /// Stored blocks, fill included.
    pub blocks: u64,
    /// Zero blocks, fill included.
    pub zero: u64,
    /// Fill blocks.
    pub fill: u64,
    /// Content digest (7).
    pub content: Digest,
}

/// The compressor of the frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Codec {
    /// Compression level.
    pub level: i64,
    /// Version of libzstd.
    pub lib: String,
    /// `zstd`.
    pub name: String,
}

/// The manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The compressor of the frames.
    pub codec: Codec,
    /// Tool and version that made the archive.
    pub writer: String,
    /// The volumes, in order.
    pub volumes: Vec<VolumeEntry>,
    /// The meta frames, by offset.
    pub meta: Vec<MetaFrame>,
    /// The content root (7).
    pub content_root: Digest,
}

/// The manifest as JSON. Members stand in alphabetical order, because that is the order of the
/// bytes.
#[derive(Serialize, Deserialize)]
struct ManifestJson {
    block_size: u64,
    cell_blocks: u64,
    codec: Codec,
    content_root: HexDigest,
    features: Vec<String>,
    format: String,
    meta: Vec<MetaJson>,
    version: u64,
    volumes: Vec<VolumeJson>,
    window_blocks: u64,
    writer: String,
}

#[derive(Serialize, Deserialize)]
struct MetaJson {
    len: u64,
    off: u64,
    raw: u64,
    role: String,
    sha256: HexDigest,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    volume: Option<u16>,
}

#[derive(Serialize, Deserialize)]
struct VolumeJson {
    blocks: u64,
    content: HexDigest,
    fill: u64,
    name: String,
    size: u64,
    zero: u64,
}

/// A member that may be missing, but not null.
fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<u16>, D::Error> {
    u16::deserialize(deserializer).map(Some)
}

#[derive(Clone, Copy)]
struct HexDigest(Digest);

impl Serialize for HexDigest {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for HexDigest {
    fn deserialize<D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || serde::de::Error::custom("a digest is 64 lower-case hex digits");
        if text.len() != 64
            || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            return Err(wrong());
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().as_chunks::<2>().0) {
            *byte = str::from_utf8(pair)
                .ok()
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                .ok_or_else(wrong)?;
        }
        Ok(Self(digest))
    }
}

impl From<&Manifest> for ManifestJson {
    fn from(manifest: &Manifest) -> Self {
        let meta = manifest.meta.iter().map(|frame| MetaJson {
            len: frame.len,
            off: frame.offset,
            raw: frame.raw_len,
            role: match frame.role {
                MetaRole::Prologue => "prologue",
                MetaRole::Volume(_) => "volume",
                MetaRole::End => "end",
            }
            .to_owned(),
            sha256: HexDigest(frame.digest),
            volume: if let MetaRole::Volume(volume) = frame.role { Some(volume) } else { None },
        });
        let volumes = manifest.volumes.iter().map(|volume| VolumeJson {
            blocks: volume.blocks,
            content: HexDigest(volume.content),
            fill: volume.fill,
            name: volume.name.to_string(),
            size: volume.size.bytes(),
            zero: volume.zero,
        });
        Self {
            block_size: BLOCK_BYTES,
            cell_blocks: CELL_BLOCKS.into(),
            codec: manifest.codec.clone(),
            content_root: HexDigest(manifest.content_root),
            features: Vec::new(),
            format: FORMAT_NAME.to_owned(),
            meta: meta.collect(),
            version: FORMAT_VERSION,
            volumes: volumes.collect(),
            window_blocks: GROUP_BLOCKS.into(),
            writer: manifest.writer.clone(),
        }
    }
}

impl Manifest {
    /// The bytes of the JSON document.
    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&ManifestJson::from(self))
            .expect("strings, numbers and lists always serialise")
    }

    /// Reads a JSON document: its text is checked first, then its heading, then everything else.
    /// Another version, feature, geometry or codec is an error of kind `Unsupported`, any other
    /// fault of kind `Corrupt`.
    pub(super) fn parse(json: &[u8]) -> Result<Self> {
        let wrong = |cause: serde_json::Error| {
            Error::corrupt("the manifest is not JSON in the form of the format").because(cause)
        };
        super::json::check(json).map_err(wrong)?;
        super::heading::check(json)?;
        let parsed: ManifestJson = serde_json::from_slice(json).map_err(wrong)?;
        if parsed.volumes.len() > MAX_VOLUMES {
            return Err(Error::corrupt("the archive has more volumes than the format allows")
                .at("volumes", parsed.volumes.len()));
        }
        let mut names = HashSet::new();
        let mut volumes = Vec::with_capacity(parsed.volumes.len());
        for volume in parsed.volumes {
            let wrong = |what: &str| Error::corrupt(what).at("snapshot", &volume.name);
            let name = SnapshotId::parse(&volume.name)
                .map_err(|_| wrong("a volume has a name that the format does not allow"))?;
            if !names.insert(volume.name.to_ascii_lowercase()) {
                return Err(wrong("two volumes have the same name"));
            }
            let size = VolumeSize::new(volume.size)
                .map_err(|cause| wrong("a volume has an impossible size").because(cause))?;
            if volume.fill > volume.zero
                || volume.zero > volume.blocks
                || volume.blocks > size.blocks().into()
            {
                return Err(wrong("the block counts of a volume contradict each other"));
            }
            volumes.push(VolumeEntry {
                name,
                size,
                blocks: volume.blocks,
                zero: volume.zero,
                fill: volume.fill,
                content: volume.content.0,
            });
        }
        let mut meta = Vec::with_capacity(parsed.meta.len());
        for frame in parsed.meta {
            let role = match (frame.role.as_str(), frame.volume) {
                ("prologue", None) => MetaRole::Prologue,
                ("volume", Some(volume)) => MetaRole::Volume(volume),
                ("end", None) => MetaRole::End,
                _ => {
                    return Err(Error::corrupt(
                        "a meta frame has a role that the format does not know",
                    )
                    .at("role", &frame.role));
                }
            };
            meta.push(MetaFrame {
                offset: frame.off,
                len: frame.len,
                raw_len: frame.raw,
                digest: frame.sha256.0,
                role,
            });
        }
        Ok(Self {
            codec: parsed.codec,
            writer: parsed.writer,
            volumes,
            meta,
            content_root: parsed.content_root.0,
        })
    }
}
