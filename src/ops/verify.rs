//! Checks an archive without writing anything, alone or against the image it was made from.

use std::io::Read;
use std::sync::Arc;

use super::totals::WholeTotal;
use crate::base::{Error, ErrorCode, ErrorKind, Result, Stage, hex};
use crate::engine::{
    Archive, CheckReport, Context, Depth, NoSinks, Selection, check_tail, check_volumes,
    compare_volume, read_stream,
};
use crate::format::{Digest, Footer};
use crate::image::{ImageMatch, ImageSource};
use crate::object::ObjectReader;
use crate::volume::BlockSource;

/// The outcome of a verification that could be carried out.
#[derive(Debug)]
pub struct Verified {
    /// Root and content root; absent if not even they could be read.
    pub footer: Option<Footer>,
    /// The AMI id, if the metadata could be read and has one.
    pub image_id: Option<String>,
    /// Length of the archive.
    pub archive_len: u64,
    /// Blocks that were checked.
    pub blocks: u64,
    /// Cells that were checked.
    pub cells: u64,
    /// Whether only a part was checked.
    pub sampled: bool,
    /// Whether blocks were checked, or only the stored bytes.
    pub depth: Depth,
    /// Whether the archive is in itself whole, and the findings are what differs from the image it
    /// was compared with.
    pub differs: bool,
    /// The names of the members of the metadata that differ from those of the image, empty if only
    /// the form of the JSON does; `None` if the metadata is equal or was not compared. A difference
    /// is a finding, too.
    pub metadata_changed: Option<Vec<String>>,
    /// Whether the root is another one than was expected. That is a finding, too.
    pub has_other_root: bool,
    /// Everything that is damaged, in the order of the archive, or that differs.
    pub findings: Vec<Error>,
    /// Damage beyond what is listed.
    pub more_findings: u64,
}

impl Verified {
    /// Of an archive of which nothing could be read but the damage.
    fn unreadable(error: Error, depth: Depth, archive_len: u64) -> Self {
        Self {
            footer: None,
            image_id: None,
            archive_len,
            blocks: 0,
            cells: 0,
            sampled: false,
            depth,
            differs: false,
            metadata_changed: None,
            has_other_root: false,
            findings: vec![error],
            more_findings: 0,
        }
    }

    /// Whether nothing is damaged.
    pub fn is_ok(&self) -> bool {
        self.findings.is_empty() && self.more_findings == 0
    }

    /// Adds a finding if the root is not the expected one. An archive whose footer could not be
    /// read has findings already.
    #[must_use]
    pub fn with_expected_root(mut self, expected: &Digest) -> Self {
        let root = self.footer.as_ref().map(|footer| footer.root);
        if let Some(root) = root.filter(|root| root != expected) {
            self.has_other_root = true;
            self.findings.insert(0, other_root(&root, expected));
        }
        self
    }

    /// Whether the archive is whole, and the metadata is all that differs from the image.
    pub fn differs_in_metadata_only(&self) -> bool {
        self.metadata_changed.is_some() && self.findings.len() == 1 && self.more_findings == 0
    }

    /// The error of an archive with findings; `None` without. `is_stream`: it was read front to
    /// back, and its index was not looked for.
    pub fn error(&self, archive: &str, is_stream: bool) -> Option<Error> {
        if self.is_ok() {
            return None;
        }
        let findings = self.findings.len() as u64 + self.more_findings;
        let (code, message) = match &self.footer {
            _ if self.has_other_root => {
                (ErrorCode::RootDiffers, "the root of the archive is not the expected one")
            }
            _ if self.differs => (ErrorCode::SourceDiffers, "archive and source differ"),
            None if !is_stream => (
                ErrorCode::IndexUnreadable,
                "the archive failed verification: its index cannot be read",
            ),
            _ => (ErrorCode::VolumeDamaged, "the archive failed verification"),
        };
        let error = Error::corrupt(message).code_as(code);
        Some(error.at("archive", archive).at("findings", findings))
    }
}

/// The finding of an archive with another root.
fn other_root(root: &Digest, expected: &Digest) -> Error {
    Error::corrupt("the root of the archive is not the expected one")
        .code_as(ErrorCode::RootDiffers)
        .at("root", hex(root))
        .at("expected", hex(expected))
}

/// Compares the root with the expected one before anything else is read. An archive with another
/// root is not worth a check of its data: that is the outcome. `None` if it is worth one.
pub fn check_root(
    reader: Arc<dyn ObjectReader>,
    expected: &Digest,
    depth: Depth,
    context: Context<'_>,
) -> Result<Option<Verified>> {
    let archive = match Archive::open(reader) {
        // The damage is found, and told, by the check.
        Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(None),
        archive => archive?,
    };
    let root = archive.footer().root;
    if root == *expected {
        return Ok(None);
    }
    let error = other_root(&root, expected);
    context.damage(&error);
    Ok(Some(Verified {
        depth,
        has_other_root: true,
        findings: vec![error],
        ..summarise(&archive, CheckReport::default())
    }))
}

/// Checks an archive by random access: index, tar headers, every selected cell, and its blocks if
/// `depth` says so. Damage is collected, not returned as an error; an archive whose index is
/// unreadable has one finding.
pub fn verify(
    reader: Arc<dyn ObjectReader>,
    selection: Selection,
    depth: Depth,
    context: Context<'_>,
) -> Result<Verified> {
    check(reader, selection, depth, context).map(|(verified, _)| verified)
}

/// The outcome, and the archive if it could be opened.
fn check(
    reader: Arc<dyn ObjectReader>,
    selection: Selection,
    depth: Depth,
    context: Context<'_>,
) -> Result<(Verified, Option<Archive>)> {
    let archive_len = reader.len();
    let archive = match Archive::open(reader) {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            context.damage(&error);
            return Ok((Verified::unreadable(error, depth, archive_len), None));
        }
        archive => archive?,
    };
    let share = if let Selection::Sample { fraction, .. } = selection { fraction } else { 1.0 };
    let whole = WholeTotal::of_archive(context.observer, &archive).part(share);
    let context = Context { observer: &whole, ..context };
    let stage = context.stage(Stage::Verify);
    let report = check_volumes(&archive, selection, depth, context)?;
    let mut verified = Verified {
        sampled: matches!(selection, Selection::Sample { .. }),
        depth,
        ..summarise(&archive, report)
    };
    for error in check_tail(&archive)? {
        context.damage(&error);
        verified.findings.push(error);
    }
    stage.finish();
    Ok((verified, Some(archive)))
}

/// Checks a stream. The first damage is the only one that is found: behind it nothing is sure.
pub fn verify_stream(
    input: impl Read + Send,
    depth: Depth,
    context: Context<'_>,
) -> Result<Verified> {
    let stage = context.stage(Stage::Verify);
    let outcome = read_stream(input, &mut NoSinks, depth, context);
    stage.finish();
    match outcome {
        Ok(summary) => Ok(Verified {
            footer: Some(summary.footer),
            image_id: summary.document.image_id().map(ToString::to_string),
            archive_len: summary.archive_len,
            blocks: summary.root.manifest.volumes.iter().map(|volume| volume.blocks).sum(),
            cells: summary.root.groups.iter().map(|group| u64::from(group.entries)).sum(),
            sampled: false,
            depth,
            differs: false,
            metadata_changed: None,
            has_other_root: false,
            findings: Vec::new(),
            more_findings: 0,
        }),
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            context.damage(&error);
            Ok(Verified::unreadable(error, depth, 0))
        }
        Err(error) => Err(error),
    }
}

/// Checks an archive and compares it with an image: the metadata as far as the source says that it
/// lasts, each volume block by block, absent, zero and data kept apart.
pub fn verify_against(
    reader: Arc<dyn ObjectReader>,
    image: &dyn ImageSource,
    context: Context<'_>,
) -> Result<Verified> {
    let (mut verified, archive) = check(reader, Selection::All, Depth::Blocks, context)?;
    let Some(archive) = archive.filter(|_| verified.is_ok()) else { return Ok(verified) };
    let whole = WholeTotal::of_archive(context.observer, &archive);
    let context = Context { observer: &whole, ..context };
    let stage = context.stage(Stage::Verify);
    let mut differences = Vec::new();
    let mut differ = |error: Error| {
        let error = error.or_code(ErrorCode::SourceDiffers);
        context.damage(&error);
        differences.push(error);
    };
    let other = || Error::corrupt("the archive's image.json is not that of the source");
    match image.compare(archive.document()) {
        ImageMatch::Different => differ(other()),
        ImageMatch::Same { changed: Some(changed), .. } => {
            differ(if changed.is_empty() {
                other()
            } else {
                other().at("members", changed.join(", "))
            });
            verified.metadata_changed = Some(changed);
        }
        ImageMatch::Same { changed: None, .. } => {}
    }
    let volumes = &archive.root().manifest.volumes;
    if volumes.len() != image.volumes().len() {
        let count = Error::corrupt("the archive has not the volumes of the source");
        differ(count.at("archive", volumes.len()).at("source", image.volumes().len()));
    }
    for (volume, source) in archive.volumes().zip(image.volumes()) {
        if volume.size() != source.size() {
            let size = Error::corrupt("a volume has not the size of its source")
                .at("snapshot", volume.snapshot());
            differ(size.at("archive", volume.size().bytes()).at("source", source.size().bytes()));
            continue;
        }
        let (errors, more) = compare_volume(&volume, source.as_ref(), context)?;
        errors.into_iter().for_each(&mut differ);
        verified.more_findings += more;
    }
    stage.finish();
    verified.differs = !differences.is_empty();
    verified.findings = differences;
    Ok(verified)
}

fn summarise(archive: &Archive, report: CheckReport) -> Verified {
    Verified {
        footer: Some(archive.footer().clone()),
        image_id: archive.document().image_id().map(ToString::to_string),
        archive_len: archive.reader().len(),
        blocks: report.blocks,
        cells: report.cells,
        sampled: false,
        depth: Depth::Blocks,
        differs: false,
        metadata_changed: None,
        has_other_root: false,
        findings: report.findings,
        more_findings: report.more_findings,
    }
}
