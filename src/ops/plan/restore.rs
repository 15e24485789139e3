//! The plan of a restore, and a restore that is planned.

use super::cost::AwsUse;
#[cfg(feature = "aws")]
use crate::aws::ec2::{Ec2Destination, FidelityItem};
use crate::base::{Cancel, Error, ErrorKind, Observer, Result};
use crate::engine::{Archive, Context, Incoming, MemorySplit, MemoryUses, Resources};
use crate::format::BlockMap;
use crate::image::{DirectoryDestination, IMAGE_JSON, ImageDestination};
use crate::localfs::Overwrite;
use crate::ops::Resumption;
#[cfg(feature = "aws")]
use crate::ops::plan::calls::Service;
use crate::ops::restore::{Restored, plan_restore, restore, restore_resumable};

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
    /// Requests to AWS, without those that read the archive.
    pub aws: AwsUse,
}

/// A restore with its plan.
pub struct PlannedRestore<'a> {
    archive: &'a Archive,
    destination: RestoreDestination,
    resumption: Option<Resumption>,
    plan: RestorePlan,
}

enum RestoreDestination {
    Directory(DirectoryDestination),
    #[cfg(feature = "aws")]
    Ec2(Box<Ec2Destination>),
}

impl<'a> PlannedRestore<'a> {
    /// Plans a restore to an image directory. `is_remote`: the archive is read over a network.
    pub fn to_directory(
        archive: &'a Archive,
        destination: DirectoryDestination,
        resumption: Option<Resumption>,
        resources: &Resources,
        is_remote: bool,
    ) -> Result<Self> {
        let plan = RestorePlan {
            archive: plan_restore(archive),
            memory: resources.split(&memory_uses(archive, is_remote, false))?,
            #[cfg(feature = "aws")]
            items: Vec::new(),
            aws: AwsUse::default(),
        };
        let destination = RestoreDestination::Directory(destination);
        Ok(Self { archive, destination, resumption, plan })
    }

    /// The plan.
    pub fn plan(&self) -> &RestorePlan {
        &self.plan
    }

    /// Checks what can be checked without writing. Fails as [`run`](Self::run) would.
    pub fn check(&self) -> Result<()> {
        match &self.destination {
            RestoreDestination::Directory(directory) => {
                let path = directory.path.join(IMAGE_JSON);
                if directory.overwrite == Overwrite::No && path.exists() {
                    return Err(
                        Error::new(ErrorKind::Exists, "the file exists").at("path", path.display())
                    );
                }
                Ok(())
            }
            #[cfg(feature = "aws")]
            RestoreDestination::Ec2(ec2) => {
                ec2.check(self.archive.document())?;
                ec2.check_access()
            }
        }
    }

    /// Carries the plan out. The image is visible when this returns, and not before.
    pub fn run(&self, observer: &dyn Observer, cancel: &Cancel) -> Result<Restored> {
        let context = Context { plan: &self.plan.memory.plan, observer, cancel };
        let (destination, settings): (&dyn ImageDestination, Vec<String>) = match &self.destination
        {
            RestoreDestination::Directory(directory) => (directory, Vec::new()),
            #[cfg(feature = "aws")]
            RestoreDestination::Ec2(ec2) => {
                (ec2.as_ref(), vec![ec2.options().edits.about_snapshots()])
            }
        };
        match &self.resumption {
            Some(resumption) => {
                let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
                restore_resumable(self.archive, destination, &settings, resumption, context)
            }
            None => {
                restore(self.archive, destination.begin(self.archive.document(), None)?, context)
            }
        }
    }
}

/// The uses of memory when an archive is restored.
fn memory_uses(archive: &Archive, is_remote: bool, to_ebs: bool) -> MemoryUses {
    let root = archive.root();
    let map = |(index, volume): (usize, &crate::format::VolumeEntry)| {
        let bitmaps = if volume.fill > 0 { 2 } else { 1 };
        root.groups_of(index as u16).len() as u64 * BlockMap::BITMAP_MEMORY * bitmaps
    };
    MemoryUses {
        reserve: root.manifest.volumes.iter().enumerate().map(map).max().unwrap_or(0),
        incoming: if is_remote { Incoming::Archive } else { Incoming::Local },
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
        (resources, is_remote): (&Resources, bool),
        account_rate: Option<u32>,
    ) -> Result<Self> {
        let memory = resources.split(&memory_uses(archive, is_remote, true))?;
        let ec2 = destination.with_memory(memory.blocks);
        let items = ec2.planned_items(archive.document())?;
        let mut aws = AwsUse::default();
        let volumes = &archive.root().manifest.volumes;
        let mut add = |action, count| aws.calls.add(Service::Ebs, action, count);
        let written = || volumes.iter().map(|volume| volume.blocks - volume.fill);
        let (blocks, largest) = (written().sum(), written().max().unwrap_or(0));
        add("StartSnapshot", volumes.len() as u64);
        add("PutSnapshotBlock", blocks);
        add("CompleteSnapshot", volumes.len() as u64);
        let region = ec2.options().ec2.region();
        aws.add_ebs(&region, account_rate, (blocks, largest), false);
        ec2.count_calls(archive.document(), &mut |action, count| {
            aws.calls.add(Service::Ec2, action, count);
        });
        let plan = RestorePlan { archive: plan_restore(archive), memory, items, aws };
        let destination = RestoreDestination::Ec2(Box::new(ec2));
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
