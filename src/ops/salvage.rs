//! Rescues what proves itself from an archive that is damaged or cut short, to an image directory
//! or to a file.

use std::path::Path;
use std::sync::Arc;

use super::VolumeName;
use super::extract::check_output;
use crate::base::{Error, ErrorCode, ErrorKind, Result, SnapshotId, Stage, VolumeSize};
use crate::engine::{
    Context, NoSinks, Salvage, SalvageInput, SalvageSink, SalvageSinks, SalvagedVolume, salvage,
};
use crate::image::{
    DirectoryDestination, ImageDocument, NamedVolume, SalvageDirectory, mark_of, unnamed,
};
use crate::localfs::{Durability, Overwrite};
use crate::volume::RawFileSink;

/// Makes the content of `salvage.json`.
pub type Mark<'a> = dyn Fn(&Salvage) -> Vec<u8> + 'a;

/// The file name of a rescued volume; `None` if blocks are missing and none was rescued.
pub fn file_of(volume: &SalvagedVolume) -> Option<String> {
    let name = || volume.name.as_ref().map_or_else(|| unnamed(volume.index), SnapshotId::file_name);
    (volume.proved_by.total() > 0 || volume.is_whole()).then(name)
}

/// Reads a damaged archive and reports what a rescue would give; nothing is written.
pub fn survey(input: &mut dyn SalvageInput, context: Context<'_>) -> Result<Salvage> {
    rescue(input, &mut NoSinks, context)
}

fn rescue(
    input: &mut dyn SalvageInput,
    sinks: &mut dyn SalvageSinks,
    context: Context<'_>,
) -> Result<Salvage> {
    let stage = context.stage(Stage::Restore);
    let found = salvage(input, sinks, context)?;
    stage.finish();
    Ok(found)
}

/// Rescues all volumes to an image directory. Unless the archive is whole, `salvage.json` with the
/// content `mark` is in it before the first volume.
pub fn salvage_to_directory(
    input: &mut dyn SalvageInput,
    destination: &DirectoryDestination,
    mark: &Mark<'_>,
    context: Context<'_>,
) -> Result<Salvage> {
    struct Sinks(SalvageDirectory);
    impl SalvageSinks for Sinks {
        fn volume(
            &mut self,
            index: u16,
            name: Option<&SnapshotId>,
            size: Option<VolumeSize>,
        ) -> Result<Option<Arc<dyn SalvageSink>>> {
            Ok(Some(self.0.volume(index, name, size)?))
        }
    }
    let DirectoryDestination { path, overwrite, durability } = destination;
    let mut sinks = Sinks(SalvageDirectory::create(path, *overwrite, *durability)?);
    let found = rescue(input, &mut sinks, context)?;
    let mut volumes = Vec::new();
    for volume in found.volumes.iter().filter(|volume| volume.has_file) {
        let Some(file) = file_of(volume) else { continue };
        volumes.push(NamedVolume { index: volume.index, file, size: size_of(volume)? });
    }
    context.cancel.check()?;
    let stage = context.stage(Stage::Sync);
    let bytes = (!found.is_whole()).then(|| mark(&found));
    add_empty_volumes(&mut sinks.0, &found, &mut volumes)?;
    sinks.0.commit(&volumes, found.document.as_ref(), bytes.as_deref())?;
    stage.finish();
    Ok(found)
}

/// Adds the volumes that are whole without a block.
fn add_empty_volumes(
    directory: &mut SalvageDirectory,
    found: &Salvage,
    volumes: &mut Vec<NamedVolume>,
) -> Result<()> {
    for volume in found.volumes.iter().filter(|volume| !volume.has_file && volume.is_whole()) {
        let Some(name) = &volume.name else { continue };
        drop(directory.volume(volume.index, Some(name), volume.size)?);
        let (index, file) = (volume.index, name.file_name());
        volumes.push(NamedVolume { index, file, size: size_of(volume)? });
    }
    Ok(())
}

/// The size of a volume, or, if it is lost, the least one that holds the rescued blocks.
fn size_of(volume: &SalvagedVolume) -> Result<VolumeSize> {
    volume.size.map_or_else(|| VolumeSize::new(volume.end), Ok)
}

/// Whether every block of a volume was rescued and proves itself up to the root.
pub fn is_sound(volume: &SalvagedVolume) -> bool {
    volume.is_whole() && volume.proved_by.total() == volume.proved_by.root
}

/// Rescues one volume to the file `output`. Unless it is sound, `OUTPUT.salvage.json` with the
/// content `mark` gets its name before the file.
pub fn salvage_volume(
    input: &mut dyn SalvageInput,
    name: &VolumeName,
    (output, overwrite, durability): (&Path, Overwrite, Durability),
    mark: &Mark<'_>,
    context: Context<'_>,
) -> Result<Salvage> {
    struct Sinks<'a> {
        selected: Selected<'a>,
        make: &'a dyn Fn(VolumeSize) -> Result<RawFileSink>,
        sink: Option<(u16, Arc<RawFileSink>)>,
    }
    impl SalvageSinks for Sinks<'_> {
        fn begin(&mut self, document: &ImageDocument) {
            self.selected.resolve(document);
        }

        fn volume(
            &mut self,
            index: u16,
            name: Option<&SnapshotId>,
            size: Option<VolumeSize>,
        ) -> Result<Option<Arc<dyn SalvageSink>>> {
            if self.sink.is_some() || !self.selected.is(name) {
                return Ok(None);
            }
            let size = size.map_or_else(|| VolumeSize::new(512), Ok)?;
            let sink = Arc::new((self.make)(size)?);
            self.sink = Some((index, sink.clone()));
            Ok(Some(sink))
        }
    }
    check_output(output, overwrite)?;
    let make = |size| RawFileSink::create(output, size, overwrite, durability);
    let selected = Selected { name, snapshot: None };
    let mut sinks = Sinks { selected, make: &make, sink: None };
    let mut found = rescue(input, &mut sinks, context)?;
    let Sinks { selected, sink, .. } = sinks;
    found.volumes.retain(|volume| selected.is(volume.name.as_ref()));
    let Some(volume) = found.volumes.first() else {
        return Err(Error::new(
            ErrorKind::NotFound,
            "the part of the archive that is left does not name this volume",
        )
        .code_as(ErrorCode::Salvaged)
        .at("volume", name.text()));
    };
    let sink = sink.filter(|(index, _)| *index == volume.index && volume.has_file);
    let sink = sink.and_then(|(_, sink)| Arc::into_inner(sink));
    let Some(sink) = sink.map_or_else(
        || is_sound(volume).then(|| make(size_of(volume)?)).transpose(),
        |sink| Ok(Some(sink)),
    )?
    else {
        return Ok(found);
    };
    sink.resize(size_of(volume)?)?;
    context.cancel.check()?;
    let stage = context.stage(Stage::Sync);
    let marked = mark_of(output);
    if !is_sound(volume) {
        super::extract::write_whole(&marked, &mark(&found), Overwrite::Yes, durability)?;
    }
    if let Err(error) = sink.commit() {
        if !is_sound(volume) {
            // The error that brought us here is the one to report.
            let _ = std::fs::remove_file(&marked);
        }
        return Err(error);
    }
    if is_sound(volume) && crate::localfs::exists(&marked)? {
        std::fs::remove_file(&marked).map_err(|cause| {
            Error::io("cannot remove the old file", cause).at("path", marked.display())
        })?;
    }
    stage.finish();
    Ok(found)
}

/// The volume that is asked for.
struct Selected<'a> {
    name: &'a VolumeName,
    /// The snapshot behind a device name, by the metadata.
    snapshot: Option<SnapshotId>,
}

impl Selected<'_> {
    fn resolve(&mut self, document: &ImageDocument) {
        if let VolumeName::Device(device) = self.name {
            self.snapshot = document.snapshot_of(device).ok().cloned();
        }
    }

    fn is(&self, name: Option<&SnapshotId>) -> bool {
        match (self.name, name) {
            (VolumeName::Snapshot(selected), Some(name)) => name.as_str() == selected,
            (VolumeName::Device(_), Some(name)) => self.snapshot.as_ref() == Some(name),
            (_, None) => false,
        }
    }
}
