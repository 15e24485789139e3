//! Checks that need the index of an archive alone: tar headers, end of the tar, seek table.

use super::Archive;
use super::open::{read_frame, read_meta, twice};
use crate::base::{CellAddress, Error, ErrorKind, Result};
use crate::format::{BlockMap, FOOTER_LEN, FrameLog, MetaRole, tar};

impl Archive {
    /// Checks that the tar header of a volume lists the blocks of `map`, so that stock tools and
    /// this reader see one disk.
    pub fn check_header(&self, volume: u16, map: &BlockMap) -> Result<()> {
        let name = &self.volume_entry(volume).name;
        let mut expected = tar::volume_header(name, map);
        for meta in self.meta(MetaRole::Volume(volume)) {
            let located = |error: Error| error.at("snapshot", name).at("offset", meta.offset);
            let raw = twice(self.reader(), || read_frame(self.reader(), meta)).map_err(located)?;
            if expected.next().as_deref() != Some(&raw) {
                return Err(located(two_views()));
            }
        }
        match expected.next() {
            None => Ok(()),
            Some(_) => Err(two_views().at("snapshot", name)),
        }
    }

    /// Checks the end of the tar.
    pub fn check_trailer(&self) -> Result<()> {
        if read_meta(self.reader(), &self.root().manifest.meta, MetaRole::End)? == tar::trailer() {
            Ok(())
        } else {
            Err(Error::corrupt("the tar in the archive does not end as it should"))
        }
    }
}

pub(in super::super) fn two_views() -> Error {
    Error::corrupt(
        "the tar header of a volume does not say what the index says: stock tools would see \
         another disk",
    )
}

/// Checks end of the tar and seek table. Damage is returned as findings.
pub fn check_tail(archive: &Archive) -> Result<Vec<Error>> {
    check(archive).map(|(findings, _)| findings)
}

/// [`check_tail`], which also returns the frames that the index lists, unless the index is damaged.
pub(in super::super) fn check(archive: &Archive) -> Result<(Vec<Error>, Option<FrameLog>)> {
    let mut findings = Vec::new();
    let mut note = |result: Result<()>| match result {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            findings.push(error.at("archive", archive.reader().name()));
            Ok(())
        }
        result => result,
    };
    note(archive.check_trailer())?;
    let frames = match frames_of(archive) {
        Ok(frames) => {
            note(twice(archive.reader(), || check_seek_table(archive, &frames)))?;
            Some(frames)
        }
        // A damaged index was reported where it stands.
        Err(error) if error.kind() == ErrorKind::Corrupt => None,
        Err(error) => return Err(error),
    };
    Ok((findings, frames))
}

/// Volumes whose first index and tar header are fetched while those of others are read: at most
/// 5 MiB.
const VOLUMES_AHEAD: usize = 16;

/// All frames of the archive, as the index lists them.
fn frames_of(archive: &Archive) -> Result<FrameLog> {
    for volume in (0..archive.root().manifest.volumes.len() as u16).take(VOLUMES_AHEAD) {
        for entry in archive.root().groups_of(volume).iter().take(1) {
            archive.reader().prefetch(entry.index_offset(), entry.index_len.into());
        }
        for meta in archive.meta(MetaRole::Volume(volume)).take(1) {
            archive.reader().prefetch(meta.offset, meta.len);
        }
    }
    let mut frames = FrameLog::default();
    add_meta(&mut frames, archive, MetaRole::Prologue);
    frames.append(volume_frames(archive)?);
    let footer = archive.footer();
    frames.frame(footer.root_len as u32, 0);
    archive.extra_records().iter().for_each(|len| frames.frame(*len as u32, 0));
    frames.frame(FOOTER_LEN as u32, 0);
    Ok(frames)
}

fn add_meta(frames: &mut FrameLog, archive: &Archive, role: MetaRole) {
    archive.meta(role).for_each(|meta| frames.frame(meta.len as u32, meta.raw_len as u32));
}

/// The frames of the volumes and of the end of the tar, as the index lists them.
pub(super) fn volume_frames(archive: &Archive) -> Result<FrameLog> {
    let mut frames = FrameLog::default();
    for volume in 0..archive.root().manifest.volumes.len() as u16 {
        add_meta(&mut frames, archive, MetaRole::Volume(volume));
        let size = archive.volume_entry(volume).size;
        for (number, entry) in archive.root().groups_of(volume).iter().enumerate() {
            archive.prefetch_indexes(volume, number);
            for cell in archive.group_index(entry)?.cells {
                let address = CellAddress { group: entry.group, index: cell.index };
                frames.cell(
                    cell.present,
                    cell.zero,
                    cell.frame_len(),
                    size.cell_bytes(address, cell.present) as u32,
                );
            }
            frames.frame(entry.index_len, 0);
        }
    }
    add_meta(&mut frames, archive, MetaRole::End);
    Ok(frames)
}

fn check_seek_table(archive: &Archive, frames: &FrameLog) -> Result<()> {
    let start = archive.footer().offset + FOOTER_LEN as u64;
    let wrong = |at: u64| {
        Error::corrupt("the seek table is not that of the archive's frames").at("offset", at)
    };
    if archive.reader().len() - start != frames.table_len() {
        return Err(wrong(start));
    }
    let mut at = start;
    let mut found = Vec::new();
    for expected in frames.table() {
        found.resize(expected.len(), 0);
        archive.reader().read_at(at, &mut found)?;
        if found != expected {
            return Err(wrong(at));
        }
        at += expected.len() as u64;
    }
    Ok(())
}
