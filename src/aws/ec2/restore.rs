//! EC2 as an [`ImageDestination`]: begins a restore, recognizes one that is complete, and deletes
//! the snapshots of one that is not.

use super::super::in_parallel::both;
use super::describe::{self, text};
use super::destination::{Ec2Destination, RestoredSnapshot, delete_snapshot};
use super::encryption::check_key;
use super::finish::finish;
use super::writer::Ec2Writer;
use crate::base::{Error, Event, ImageId, Result, SnapshotId};
use crate::image::{
    ImageDestination, ImageDocument, ImageWriter, RestoreRecord, ResumableRestore, SnapshotBegun,
};

impl Ec2Destination {
    /// Takes over the snapshots of earlier runs.
    fn take_over(&self, record: &RestoreRecord) {
        let mut outcome = self.lock();
        for snapshot in &record.snapshots {
            outcome.begun.insert(snapshot.volume, snapshot.clone());
        }
    }

    /// The image that an earlier run of the same restore registered, if it did.
    fn registered(&self, document: &ImageDocument) -> Result<Option<ImageId>> {
        let Some(registration) = self.registration(document, &|_| Some((String::new(), 0)))? else {
            return Ok(None);
        };
        let Some(image) = describe::image_named(&self.options.ec2, &registration.name)? else {
            return Ok(None);
        };
        let ours: Vec<String> =
            self.lock().begun.values().map(|begun| begun.snapshot_id.clone()).collect();
        let used: Vec<&str> = describe::snapshots_of(&image).collect();
        let is_ours = !used.is_empty() && used.iter().all(|id| ours.iter().any(|our| our == id));
        if is_ours { text(&image, "ImageId").map(ImageId::parse).transpose() } else { Ok(None) }
    }
}

impl ImageDestination for Ec2Destination {
    fn begin(
        &self,
        document: &ImageDocument,
        resume: Option<&ResumableRestore>,
    ) -> Result<Box<dyn ImageWriter>> {
        if let Some(resume) = resume {
            self.take_over(&resume.record);
        }
        check_key(&self.options.ec2, &self.options.edits)?;
        // No request needs the answer of another.
        let (checked, encryption) = both(
            || both(|| self.check(document), || self.check_access()),
            || self.encryption(document),
        )?;
        let (is_valid, is_permitted) = checked?;
        is_valid.and(is_permitted)?;
        Ok(Box::new(Ec2Writer::new(self.clone(), document, encryption?, resume)?))
    }

    fn is_complete(&self, document: &ImageDocument, record: &RestoreRecord) -> bool {
        self.take_over(record);
        let finish = || -> Result<bool> {
            let Some(id) = self.registered(document)? else { return Ok(false) };
            let mut begun: Vec<SnapshotBegun> = self.lock().begun.values().cloned().collect();
            begun.sort_by_key(|begun| begun.volume);
            let ids = begun
                .iter()
                .map(|begun| SnapshotId::parse(&begun.snapshot_id))
                .collect::<Result<Vec<_>>>()?;
            let mut snapshots = Vec::new();
            for (entry, described) in
                document.snapshots().iter().zip(describe::snapshots(&self.options.ec2, &ids)?)
            {
                let Some(described) = described else { return Ok(false) };
                snapshots.push(RestoredSnapshot::of(entry.id.clone(), &described)?);
            }
            let Some(registration) =
                self.registration(document, &|id| RestoredSnapshot::find(&snapshots, id))?
            else {
                return Ok(false);
            };
            let restored =
                finish(&self.options, document, id, registration, Vec::new(), snapshots)?;
            self.finished(restored)?;
            Ok(true)
        };
        // The caller's error is that the name is taken; this one is its cause.
        finish().unwrap_or_else(|error| {
            let message = format!(
                "the image of the earlier run exists, and could not be finished: {error:?}"
            );
            self.options.observer.note(&Event::Warning { message });
            false
        })
    }

    fn remove_partial(&self, record: &RestoreRecord) -> Result<()> {
        let ec2 = self.options.ec2.for_cleaning_up();
        let deleted: Vec<(&str, Result<bool>)> = record
            .snapshots
            .iter()
            .map(|snapshot| snapshot.snapshot_id.as_str())
            .map(|id| (id, delete_snapshot(&ec2, id)))
            .collect();
        let failed = deleted.iter().filter(|(_, outcome)| outcome.is_err());
        let left: Vec<String> = failed.map(|(id, _)| (*id).to_owned()).collect();
        if left.is_empty() {
            return Ok(());
        }
        let error = deleted.into_iter().find_map(|(_, outcome)| outcome.err());
        Err(error.unwrap_or_else(|| Error::internal("a deletion failed and did not")).leaving(left))
    }
}
