//! The plan of a restore, and a restore that is planned.

use std::path::Path;

#[cfg(feature = "aws")]
use super::calls::Service;
use super::cost::AwsUse;
#[cfg(feature = "aws")]
use crate::aws::ec2::{Ec2Destination, EncryptionPlan, FidelityItem};
use crate::base::{BLOCK_BYTES, Cancel, Error, ErrorKind, Observer, Result};
use crate::engine::{Archive, Context, Incoming, MemorySplit, MemoryUses, Resources};
use crate::format::BlockMap;
use crate::image::{DirectoryDestination, ImageDestination};
use crate::localfs::free_bytes;
use crate::ops::Resumption;
use crate::ops::restore::{Restored, plan_restore, restore, restore_resumable, work};
use crate::ops::totals::WholeTotal;

/// The plan of a restore.
#[derive(Clone, Debug)]
pub struct RestorePlan {
    /// Volumes, and digests of the archive.
    pub archive: Restored,
    /// The division of the memory budget.
    pub memory: MemorySplit,
    /// The account of the image's attributes; empty for a directory, which gets the metadata as it
    /// is.
    #[cfg(feature = "aws")]
    pub items: Vec<FidelityItem>,
    /// The encryption of the new snapshots; empty for a directory.
    #[cfg(feature = "aws")]
    pub encryption: EncryptionPlan,
    /// Requests to AWS. Those that read the archive are an upper bound.
    pub aws: AwsUse,
}

/// A restore with its plan.
pub struct PlannedRestore<'a> {
    archive: &'a Archive,
    destination: RestoreDestination,
    resumption: Option<Resumption>,
    plan: RestorePlan,
}

/// The destination of a restore.
#[derive(Clone)]
pub enum RestoreDestination {
    /// An image directory.
    Directory(DirectoryDestination),
    /// EC2.
    #[cfg(feature = "aws")]
    Ec2 {
        /// The Region and the changes to the image.
        ec2: Box<Ec2Destination>,
        /// The account's quota of blocks a second, if it is not that of the Region.
        account_rate: Option<u32>,
    },
}

impl RestoreDestination {
    fn port(&self) -> &dyn ImageDestination {
        match self {
            Self::Directory(directory) => directory,
            #[cfg(feature = "aws")]
            Self::Ec2 { ec2, .. } => ec2.as_ref(),
        }
    }

    /// The directory whose file system a restore fills.
    fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(directory) => Some(&directory.path),
            #[cfg(feature = "aws")]
            Self::Ec2 { .. } => None,
        }
    }

    /// The target that the task is known by.
    pub fn task_target(&self, archive: &Archive) -> String {
        #[cfg(not(feature = "aws"))]
        let _ = archive;
        match self {
            Self::Directory(directory) => absolute(&directory.path),
            #[cfg(feature = "aws")]
            Self::Ec2 { ec2, .. } => ec2_task_target(ec2.options(), archive),
        }
    }

    /// The target that the task of a stream is known by: its archive is not known yet.
    pub fn stream_task_target(&self) -> String {
        match self {
            Self::Directory(directory) => absolute(&directory.path),
            #[cfg(feature = "aws")]
            Self::Ec2 { ec2, .. } => format!("ec2 {}", ec2.options().ec2.region()),
        }
    }

    /// Whether an interrupted restore is continued: to EC2, and to a directory if the archive would
    /// otherwise be read over a network twice.
    pub fn is_continued(&self, archive: &Archive) -> bool {
        match self {
            Self::Directory(_) => archive.reader().service().is_some(),
            #[cfg(feature = "aws")]
            Self::Ec2 { .. } => true,
        }
    }

    /// Whether the volumes are sent to EBS.
    pub(super) fn is_ebs(&self) -> bool {
        !matches!(self, Self::Directory(_))
    }

    /// Checks what can be checked without the archive.
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Self::Directory(directory) => directory.check(),
            #[cfg(feature = "aws")]
            Self::Ec2 { ec2, .. } => ec2.check_access(),
        }
    }

    /// Calls `run` with the destination, whose blocks on their way have `memory` bytes.
    pub(super) fn with_memory<T>(
        &self,
        memory: u64,
        run: impl FnOnce(&dyn ImageDestination) -> Result<T>,
    ) -> Result<T> {
        #[cfg(not(feature = "aws"))]
        let _ = memory;
        match self {
            Self::Directory(directory) => run(directory),
            #[cfg(feature = "aws")]
            Self::Ec2 { ec2, .. } => run(&ec2.with_memory(memory)),
        }
    }
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

impl<'a> PlannedRestore<'a> {
    /// Plans a restore.
    pub fn new(
        archive: &'a Archive,
        destination: &RestoreDestination,
        resumption: Option<Resumption>,
        resources: &Resources,
    ) -> Result<Self> {
        match destination {
            RestoreDestination::Directory(directory) => {
                Self::to_directory(archive, directory.clone(), resumption, resources)
            }
            #[cfg(feature = "aws")]
            RestoreDestination::Ec2 { ec2, account_rate } => {
                Self::to_ec2(archive, ec2, resumption, resources, *account_rate)
            }
        }
    }

    /// Plans a restore to an image directory.
    pub fn to_directory(
        archive: &'a Archive,
        destination: DirectoryDestination,
        resumption: Option<Resumption>,
        resources: &Resources,
    ) -> Result<Self> {
        let plan = RestorePlan {
            archive: plan_restore(archive),
            memory: resources.split(&memory_uses(archive, false))?,
            #[cfg(feature = "aws")]
            items: Vec::new(),
            #[cfg(feature = "aws")]
            encryption: EncryptionPlan::default(),
            aws: archive_reads(archive, None),
        };
        let destination = RestoreDestination::Directory(destination);
        Ok(Self { archive, destination, resumption, plan })
    }

    /// The plan.
    pub fn plan(&self) -> &RestorePlan {
        &self.plan
    }

    /// Fails if the file system of the target directory lacks room for the blocks with data. A
    /// restore that is continued has written some of them, and is not checked.
    fn check_room(&self) -> Result<()> {
        let Some(directory) = self.destination.directory() else { return Ok(()) };
        let is_continued = self
            .resumption
            .as_ref()
            .is_some_and(|it| !it.restart && it.directory.task_file(&it.target).exists());
        if is_continued {
            return Ok(());
        }
        let volumes = self.archive.root().manifest.volumes.iter();
        let needed = volumes.map(|volume| (volume.blocks - volume.zero) * BLOCK_BYTES).sum();
        suffices(needed, free_bytes(directory))
            .map_err(|error| error.at("path", directory.display()))
    }

    /// The settings of the work: with other ones it cannot be continued.
    fn settings(&self) -> Vec<String> {
        match &self.destination {
            RestoreDestination::Directory(_) => Vec::new(),
            #[cfg(feature = "aws")]
            RestoreDestination::Ec2 { ec2, .. } => vec![ec2.options().edits.about_snapshots()],
        }
    }

    /// Checks what can be checked without writing, and interrupted work that would be continued.
    /// Fails as [`run`](Self::run) would.
    pub fn check(&self) -> Result<()> {
        self.check_room()?;
        if let Some(resumption) = &self.resumption {
            let settings = self.settings();
            let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
            resumption.check(&work(self.archive, &settings))?;
        }
        #[cfg(feature = "aws")]
        if let RestoreDestination::Ec2 { ec2, .. } = &self.destination {
            ec2.check(self.archive.document())?;
        }
        self.destination.check()
    }

    /// Carries the plan out. The image is visible when this returns, and not before.
    pub fn run(&self, observer: &dyn Observer, cancel: &Cancel) -> Result<Restored> {
        self.check_room()?;
        let observer = WholeTotal::of_archive(observer, self.archive);
        let context = Context { plan: &self.plan.memory.plan, observer: &observer, cancel };
        let destination = self.destination.port();
        match &self.resumption {
            Some(resumption) => {
                let settings = self.settings();
                let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
                restore_resumable(self.archive, destination, &settings, resumption, context)
            }
            None => {
                restore(self.archive, destination.begin(self.archive.document(), None)?, context)
            }
        }
    }
}

/// The requests that open and read the archive, at most, if it is read from a service; `target` is
/// the Region of the new image.
fn archive_reads(archive: &Archive, target: Option<&str>) -> AwsUse {
    let (mut aws, reader) = (AwsUse::default(), archive.reader());
    let requests = archive.reads_to_open() + archive.reads_to_restore();
    aws.add_archive_reads(reader.service(), (requests, reader.len()), target);
    aws
}

/// The memory that reading the archive takes.
pub(super) fn incoming(archive: &Archive) -> Incoming {
    if archive.reader().service().is_some() { Incoming::Archive } else { Incoming::Local }
}

/// Compares the bytes that are allocated with the free ones, if the file system reports them.
fn suffices(needed: u64, free: Option<u64>) -> Result<()> {
    match free {
        Some(free) if free < needed => Err(Error::new(
            ErrorKind::Io,
            "the file system of the target has too little room for the volumes: free some space, \
             or choose another target",
        )
        .at("needed", needed)
        .at("free", free)),
        _ => Ok(()),
    }
}

/// The uses of memory when an archive is restored.
fn memory_uses(archive: &Archive, to_ebs: bool) -> MemoryUses {
    let root = archive.root();
    let map = |(index, volume): (usize, &crate::format::VolumeEntry)| {
        let bitmaps = if volume.fill > 0 { 2 } else { 1 };
        root.groups_of(index as u16).len() as u64 * BlockMap::BITMAP_MEMORY * bitmaps
    };
    MemoryUses {
        reserve: root.manifest.volumes.iter().enumerate().map(map).max().unwrap_or(0),
        incoming: incoming(archive),
        blocks: to_ebs,
        ..MemoryUses::default()
    }
}

#[cfg(feature = "aws")]
impl<'a> PlannedRestore<'a> {
    /// Plans a restore to EC2. The memory for blocks of `destination` is planned. `account_rate` is
    /// the account's quota of blocks a second, if it is not that of the Region.
    pub fn to_ec2(
        archive: &'a Archive,
        destination: &Ec2Destination,
        resumption: Option<Resumption>,
        resources: &Resources,
        account_rate: Option<u32>,
    ) -> Result<Self> {
        let memory = resources.split(&memory_uses(archive, true))?;
        let ec2 = destination.with_memory(memory.blocks);
        let items = ec2.planned_items(archive.document())?;
        let encryption = ec2.encryption(archive.document())?;
        let region = ec2.options().ec2.region();
        let mut aws = archive_reads(archive, Some(&region));
        let volumes = &archive.root().manifest.volumes;
        let mut add = |action, count| aws.calls.add(Service::Ebs, action, count);
        let written = || volumes.iter().map(|volume| volume.blocks - volume.fill);
        let (blocks, largest) = (written().sum(), written().max().unwrap_or(0));
        add("StartSnapshot", volumes.len() as u64);
        add("PutSnapshotBlock", blocks);
        add("CompleteSnapshot", volumes.len() as u64);
        aws.add_ebs(&region, account_rate, (blocks, largest), false);
        ec2.count_calls(archive.document(), &mut |action, count| {
            aws.calls.add(Service::Ec2, action, count);
        });
        let archived = plan_restore(archive);
        let plan = RestorePlan { archive: archived, memory, items, encryption, aws };
        let destination = RestoreDestination::Ec2 { ec2: Box::new(ec2), account_rate };
        Ok(Self { archive, destination, resumption, plan })
    }
}

/// The target that the task of a restore to EC2 is known by: one archive may be restored twice,
/// under two names.
#[cfg(feature = "aws")]
pub fn ec2_task_target(options: &crate::aws::ec2::Ec2Options, archive: &Archive) -> String {
    let (region, endpoint) = (options.ec2.region(), options.ec2.endpoint());
    let at = if endpoint.is_custom() { format!(" at {endpoint}") } else { String::new() };
    let profile = options.ec2.profile().map(|profile| format!(" as {profile}")).unwrap_or_default();
    let name = options
        .edits
        .name
        .clone()
        .or_else(|| archive.document().name().map(ToOwned::to_owned))
        .unwrap_or_default();
    let root = crate::base::hex(&archive.footer().root);
    format!("ec2 {region}{profile}{at}: {name} from {root}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_room_is_refused_and_one_that_does_not_report_it_is_not() {
        let error = suffices(11, Some(10)).expect_err("too little");
        assert_eq!((error.kind(), error.fact("needed")), (ErrorKind::Io, Some("11")));
        assert!(suffices(10, Some(10)).is_ok());
        assert!(suffices(u64::MAX, None).is_ok());
        assert!(free_bytes(std::path::Path::new("no/such/directory")).is_some_and(|free| free > 0));
    }
}
