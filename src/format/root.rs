//! The R record: manifest and table of groups (3.5 and 4).

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::Digest;
use super::layout::{
    CELL_ENTRY, FORMAT_NAME, FORMAT_VERSION, GROUP_ENTRY, GROUP_HEAD, MAX_FORMAT_TXT,
    MAX_GROUP_RECORD, MAX_IMAGE_JSON, MAX_MANIFEST, MAX_VOLUMES, META_FRAME_RAW, ROOT_HEAD,
    max_frame_len,
};
use super::record::{Record, RecordKind};
use crate::base::{
    BLOCK_BYTES, CELL_BLOCKS, CELLS_PER_GROUP, Error, GROUP_BLOCKS, Result, SnapshotId, VolumeSize,
};

/// What a meta frame is part of.
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
    /// Where it stands.
    pub offset: u64,
    /// Its length.
    pub len: u64,
    /// What it inflates to.
    pub raw_len: u64,
    /// SHA-256 of the frame as stored.
    pub digest: Digest,
    /// What it is part of.
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

/// What made the frames.
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
    /// What made the frames.
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

/// A group in the table of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupEntry {
    /// The volume, counted from 0.
    pub volume: u16,
    /// The group.
    pub group: u32,
    /// Where its first C record stands.
    pub offset: u64,
    /// Bytes from there to its S record.
    pub cells_len: u64,
    /// Length of the S record.
    pub index_len: u32,
    /// Entries of the S record.
    pub entries: u32,
    /// SHA-256 of the S record.
    pub index_digest: Digest,
    /// Content digest of the group (7).
    pub content: Digest,
}

impl GroupEntry {
    /// Where the S record stands.
    pub fn index_offset(&self) -> u64 {
        self.offset + self.cells_len
    }
}

/// The R record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootRecord {
    /// The manifest.
    pub manifest: Manifest,
    /// The groups, by volume and group.
    pub groups: Vec<GroupEntry>,
}

impl RootRecord {
    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut json = ManifestJson::from(&self.manifest).to_bytes();
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut bytes = Record::begin(
            RecordKind::Root,
            ROOT_HEAD + json.len() + GROUP_ENTRY * self.groups.len(),
        );
        bytes.extend_from_slice(&(json.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.groups.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.manifest.meta.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&json);
        for group in &self.groups {
            bytes.extend_from_slice(&group.volume.to_le_bytes());
            bytes.extend_from_slice(&[0; 2]);
            bytes.extend_from_slice(&group.group.to_le_bytes());
            bytes.extend_from_slice(&group.offset.to_le_bytes());
            bytes.extend_from_slice(&group.cells_len.to_le_bytes());
            bytes.extend_from_slice(&group.index_len.to_le_bytes());
            bytes.extend_from_slice(&group.entries.to_le_bytes());
            bytes.extend_from_slice(&group.index_digest);
            bytes.extend_from_slice(&group.content);
        }
        bytes
    }

    /// Reads the record that stands at `offset`, and checks that meta frames and groups tile
    /// everything before it.
    pub fn parse(bytes: &[u8], offset: u64) -> Result<Self> {
        let mut fields = Record::open(bytes, RecordKind::Root)?;
        let (json_len, groups, meta) =
            (fields.u32()?, fields.u32()? as usize, fields.u32()? as usize);
        fields.reserved(4)?;
        if u64::from(json_len) > MAX_MANIFEST || json_len % 8 != 0 {
            return Err(
                Error::corrupt("the manifest has an impossible length").at("length", json_len)
            );
        }
        let json = fields.slice(json_len as usize)?;
        if groups.checked_mul(GROUP_ENTRY) != Some(fields.remaining()) {
            return Err(Error::corrupt("the table of groups has not the length it says")
                .at("groups", groups));
        }
        let manifest = ManifestJson::parse(json)?;
        if manifest.meta.len() != meta {
            return Err(Error::corrupt(
                "the manifest has not the number of meta frames that its record says",
            ));
        }
        let mut table = Vec::with_capacity(groups);
        for _ in 0..groups {
            let volume = fields.u16()?;
            fields.reserved(2)?;
            let (group, offset, cells_len) = (fields.u32()?, fields.u64()?, fields.u64()?);
            let (index_len, entries) = (fields.u32()?, fields.u32()?);
            let (index_digest, content) = (fields.bytes()?, fields.bytes()?);
            table.push(GroupEntry {
                volume,
                group,
                offset,
                cells_len,
                index_len,
                entries,
                index_digest,
                content,
            });
        }
        let root = Self { manifest, groups: table };
        root.check_groups()?;
        root.check_tiling(offset)?;
        Ok(root)
    }

    /// The groups of one volume.
    pub fn groups_of(&self, volume: u16) -> &[GroupEntry] {
        let start = self.groups.partition_point(|group| group.volume < volume);
        let end = self.groups.partition_point(|group| group.volume <= volume);
        &self.groups[start..end]
    }

    fn check_groups(&self) -> Result<()> {
        let mut last = None;
        for entry in &self.groups {
            let wrong = |what: &str| {
                Error::corrupt(what).at("volume", entry.volume).at("group", entry.group)
            };
            let volume = self.manifest.volumes.get(usize::from(entry.volume));
            if volume.is_none_or(|volume| entry.group >= volume.size.groups()) {
                return Err(wrong("a group lies outside the volumes of the archive"));
            }
            if last
                .replace((entry.volume, entry.group))
                .is_some_and(|last| last >= (entry.volume, entry.group))
            {
                return Err(wrong("the groups of the archive are not in order"));
            }
            let expected = GROUP_HEAD as u64 + CELL_ENTRY as u64 * u64::from(entry.entries);
            if entry.entries == 0
                || entry.entries > CELLS_PER_GROUP
                || expected != u64::from(entry.index_len)
            {
                return Err(wrong("a group index has an impossible length"));
            }
            debug_assert!(entry.index_len as usize <= MAX_GROUP_RECORD);
        }
        Ok(())
    }

    /// Walks the pieces in the order of section 2: each starts where the one before it ends.
    fn check_tiling(&self, root_offset: u64) -> Result<()> {
        let mut at = 0u64;
        let mut step = |offset: u64, lengths: [u64; 2]| {
            let end = lengths.iter().try_fold(offset, |at, len| at.checked_add(*len));
            match end {
                Some(end) if offset == at && end <= root_offset => {
                    at = end;
                    Ok(())
                }
                _ => Err(Error::corrupt(
                    "the index does not cover the archive without gap or overlap",
                )
                .at("offset", at)
                .at("listed", offset)),
            }
        };
        let mut meta = self.manifest.meta.iter().peekable();
        let mut take_meta =
            |role: MetaRole, limit: u64, step: &mut dyn FnMut(u64, [u64; 2]) -> Result<()>| {
                let mut raw = 0u64;
                while let Some(frame) = meta.next_if(|frame| frame.role == role) {
                    raw = raw.saturating_add(frame.raw_len);
                    let last = meta.peek().is_none_or(|next| next.role != role);
                    if !(1..=META_FRAME_RAW as u64).contains(&frame.raw_len)
                        || (!last && frame.raw_len != META_FRAME_RAW as u64)
                        || frame.len > max_frame_len(frame.raw_len)
                    {
                        return Err(Error::corrupt("a meta frame has an impossible length")
                            .at("offset", frame.offset));
                    }
                    step(frame.offset, [frame.len, 0])?;
                }
                if raw == 0 || raw > limit || !raw.is_multiple_of(512) {
                    return Err(Error::corrupt(
                        "the tar headers of the archive are missing or too long",
                    )
                    .at("role", format!("{role:?}")));
                }
                Ok(())
            };
        take_meta(MetaRole::Prologue, MAX_IMAGE_JSON + MAX_FORMAT_TXT + 4 * 512, &mut step)?;
        for volume in 0..self.manifest.volumes.len() as u16 {
            take_meta(MetaRole::Volume(volume), u64::MAX, &mut step)?;
            for group in self.groups_of(volume) {
                step(group.offset, [group.cells_len, group.index_len.into()])?;
            }
        }
        take_meta(MetaRole::End, 1024, &mut step)?;
        if meta.next().is_some() || at != root_offset {
            return Err(Error::corrupt(
                "the index does not cover the archive without gap or overlap",
            )
            .at("offset", at)
            .at("expected", root_offset));
        }
        Ok(())
    }
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
    #[serde(skip_serializing_if = "Option::is_none")]
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

/// The members that say whether the others can be understood at all.
#[derive(Deserialize)]
struct Heading {
    features: Features,
    format: String,
    version: u64,
}

/// The first feature, if there is one: a hostile manifest may list millions, and one is enough to
/// stop.
struct Features(Option<String>);

impl<'de> Deserialize<'de> for Features {
    fn deserialize<D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        struct First;
        impl<'de> serde::de::Visitor<'de> for First {
            type Value = Features;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an array of strings")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut names: A,
            ) -> std::result::Result<Features, A::Error> {
                let first = names.next_element::<String>()?;
                while names.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                Ok(Features(first))
            }
        }
        deserializer.deserialize_seq(First)
    }
}

#[derive(Clone, Copy)]
struct HexDigest(Digest);

impl Serialize for HexDigest {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&crate::base::hex(&self.0))
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

impl ManifestJson {
    fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and lists always serialise")
    }

    fn parse(json: &[u8]) -> Result<Manifest> {
        let wrong = |cause: serde_json::Error| {
            Error::corrupt("the manifest is not the JSON that the format wants").because(cause)
        };
        let heading: Heading = serde_json::from_slice(json).map_err(wrong)?;
        if heading.format != FORMAT_NAME {
            return Err(Error::corrupt("the manifest names another format")
                .at("format", heading.format.escape_debug()));
        }
        if heading.version != FORMAT_VERSION {
            return Err(Error::unsupported("the archive has another format version")
                .at("version", heading.version)
                .at("supported", FORMAT_VERSION));
        }
        if let Some(feature) = heading.features.0 {
            return Err(Error::unsupported(
                "the archive uses a feature that this version does not know",
            )
            .at("feature", feature.escape_debug()));
        }
        let parsed: Self = serde_json::from_slice(json).map_err(wrong)?;
        if (parsed.block_size, parsed.cell_blocks, parsed.window_blocks)
            != (BLOCK_BYTES, CELL_BLOCKS.into(), GROUP_BLOCKS.into())
        {
            return Err(Error::unsupported(
                "the archive has another geometry than 512 KiB blocks, cells of 8 and groups of 32,768",
            ));
        }
        if parsed.codec.name != "zstd" {
            return Err(Error::unsupported("the archive is compressed by another codec than zstd")
                .at("codec", parsed.codec.name.escape_debug()));
        }
        if parsed.volumes.len() > MAX_VOLUMES {
            return Err(Error::corrupt("the archive has more volumes than the format allows")
                .at("volumes", parsed.volumes.len()));
        }
        let mut names = HashSet::new();
        let mut volumes = Vec::with_capacity(parsed.volumes.len());
        for volume in parsed.volumes {
            let wrong =
                |what: &str| Error::corrupt(what).at("snapshot", volume.name.escape_debug());
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
                    .at("role", frame.role.escape_debug()));
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
        Ok(Manifest {
            codec: parsed.codec,
            writer: parsed.writer,
            volumes,
            meta,
            content_root: parsed.content_root.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(raw_lens: &[u64]) -> (RootRecord, u64) {
        let mut at = 0;
        let frames = raw_lens
            .iter()
            .map(|raw_len| (MetaRole::Prologue, *raw_len))
            .chain([(MetaRole::End, 1024)]);
        let meta = frames.map(|(role, raw_len)| {
            let frame = MetaFrame { offset: at, len: 60, raw_len, digest: [1; 32], role };
            at += frame.len;
            frame
        });
        let manifest = Manifest {
            meta: meta.collect(),
            codec: Codec { level: 3, lib: "1".into(), name: "zstd".into() },
            writer: "test".into(),
            volumes: Vec::new(),
            content_root: [2; 32],
        };
        (RootRecord { manifest, groups: Vec::new() }, at)
    }

    #[test]
    fn a_meta_frame_of_nothing_is_refused_as_it_is_in_a_stream() {
        let whole = META_FRAME_RAW as u64;
        for (raw_lens, good) in [
            (&[whole][..], true),
            (&[whole, 512], true),
            (&[whole, 0], false),
            (&[0], false),
            (&[512, whole], false),
        ] {
            let (root, offset) = root(raw_lens);
            assert_eq!(RootRecord::parse(&root.encode(), offset).is_ok(), good, "{raw_lens:?}");
        }
    }
}
