//! The R record: manifest and table of groups (3.5 and 4).

use super::Digest;
use super::layout::{
    CELL_ENTRY, GROUP_ENTRY, GROUP_HEAD, MAX_FORMAT_TXT, MAX_GROUP_RECORD, MAX_IMAGE_JSON,
    MAX_MANIFEST, META_FRAME_RAW, ROOT_HEAD, max_frame_len,
};
use super::manifest::{Manifest, MetaRole};
use super::record::{Record, RecordKind};
use crate::base::{CELLS_PER_GROUP, Error, Result};

/// A group in the table of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupEntry {
    /// The volume, counted from 0.
    pub volume: u16,
    /// The group.
    pub group: u32,
    /// Offset of its first C record.
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
    /// Offset of the S record.
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
        let mut json = self.manifest.to_json();
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
            return Err(Error::corrupt(
                "the table of groups does not have the length in its record",
            )
            .at("groups", groups));
        }
        let manifest = Manifest::parse(json)?;
        if manifest.meta.len() != meta {
            return Err(Error::corrupt(
                "the manifest does not have the number of meta frames in its record",
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

#[cfg(test)]
mod tests {
    use super::super::manifest::{Codec, MetaFrame};
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
