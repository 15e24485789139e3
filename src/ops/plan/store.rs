//! The plan of a store, and a store that is planned.

use super::calls::{Calls, Service};
use super::cost::AwsUse;
use super::destination::{Comparison, Destination, Existing};
use super::upload::{UploadFacts, UploadPlan};
use crate::base::{Cancel, Error, Observer, Result, SnapshotId, VolumeSize};
use crate::engine::{
    Context, Incoming, MemorySplit, MemoryUses, PackOptions, Resources, seek_table_memory,
};
use crate::format::layout::{CELL_ENTRY, MAX_CELL_RECORD};
use crate::image::ImageSource;
use crate::localfs::Overwrite;
use crate::object::{Attributes, ObjectStore};
use crate::ops::MetadataPolicy;
use crate::ops::existing::{compare, metadata_differs};
use crate::ops::store::{store, work};
use crate::ops::stored::Stored;
use crate::ops::totals::WholeTotal;

/// Options of a store.
#[derive(Clone, Debug, Default)]
pub struct StoreOptions {
    /// How the image is packed.
    pub pack: PackOptions,
    /// Compression level.
    pub level: i32,
    /// Whether an existing archive is replaced.
    pub overwrite: Overwrite,
    /// Metadata and tags of the object.
    pub attributes: Attributes,
    /// The treatment of an archive with the same disks and other metadata. `None`: it stays in a
    /// bucket, and is an error in a directory, like any file.
    pub on_metadata_change: Option<MetadataPolicy>,
}

/// The plan of a store.
#[derive(Clone, Debug)]
pub struct StorePlan {
    /// The AMI id, if the image has one.
    pub image_id: Option<String>,
    /// The volumes, and the longest that the archive can be.
    pub volumes: PlannedVolumes,
    /// The division of the memory budget.
    pub memory: MemorySplit,
    /// The upload, if the archive goes to a bucket.
    pub upload: Option<UploadPlan>,
    /// Requests to AWS.
    pub aws: AwsUse,
}

/// The volumes of an image that is stored.
#[derive(Clone, Debug)]
pub struct PlannedVolumes {
    /// In the order of the archive.
    pub volumes: Vec<PlannedVolume>,
    /// The longest that the archive can be, in bytes.
    pub longest_archive: u64,
}

/// A volume that is stored.
#[derive(Clone, Debug)]
pub struct PlannedVolume {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its size.
    pub size: VolumeSize,
    /// Blocks that are read: all that were written, unless zeros are looked for in them.
    pub blocks: u64,
    /// Bytes of blocks that are stored: those that are read, and zeros between them.
    pub stored: u64,
    /// Runs of blocks that are stored.
    pub extents: u64,
    /// Cells of the archive.
    pub cells: u64,
    /// The longest that its part of the archive can be, in bytes.
    pub longest: u64,
    /// Bytes of the block map of its source, and of the block map of its part of the archive.
    pub map_memory: (u64, u64),
}

/// EBS as the source of a store.
#[derive(Clone, Debug)]
pub struct EbsReads {
    /// The Region.
    pub region: String,
    /// The account's quota of blocks a second, if it is not that of the Region.
    pub account_rate: Option<u32>,
}

/// Plans the volumes of an image: requests their block maps, and reads no block.
pub fn plan_volumes(image: &dyn ImageSource) -> Result<PlannedVolumes> {
    let mut volumes = Vec::new();
    let mut longest_archive = (1 << 20) + image.document().bytes().len() as u64;
    for (snapshot, source) in image.document().snapshots().iter().zip(image.volumes()) {
        let mut map = source.block_map().map_err(|error| error.at("snapshot", &snapshot.id))?;
        let source_memory = map.memory();
        map.fill_gaps();
        let (extents, cells) = (map.extents().count() as u64, map.cells().count() as u64);
        // Data that cannot be compressed, and all records: the part size is planned for it.
        let longest = map.stored_bytes()
            + map.stored_bytes() / 256
            + cells * (MAX_CELL_RECORD + CELL_ENTRY + 16) as u64
            + extents * 24
            + (1 << 20);
        longest_archive += longest;
        volumes.push(PlannedVolume {
            id: snapshot.id.clone(),
            size: map.size(),
            blocks: map.stored_blocks() - map.fill_blocks(),
            stored: map.stored_bytes(),
            extents,
            cells,
            longest,
            map_memory: (source_memory, map.memory()),
        });
    }
    Ok(PlannedVolumes { volumes, longest_archive })
}

impl PlannedVolumes {
    /// The longest that each volume's segment can be, in bytes: the first with the bytes before the
    /// volumes, the last with the index behind them.
    pub fn segments(&self) -> Vec<u64> {
        let mut segments: Vec<u64> = self.volumes.iter().map(|volume| volume.longest).collect();
        let all: u64 = segments.iter().sum();
        if let Some(first) = segments.first_mut() {
            *first += self.longest_archive - all;
        }
        if let Some(last) = segments.last_mut() {
            // Index and seek table have less than 100 bytes for each block of 512 KiB.
            *last += all / 1024 + (1 << 20);
        }
        segments
    }

    /// Bytes of blocks that are read.
    pub fn bytes(&self) -> u64 {
        self.blocks() * crate::base::BLOCK_BYTES
    }

    fn blocks(&self) -> u64 {
        self.volumes.iter().map(|volume| volume.blocks).sum()
    }

    /// The uses of memory when the volumes are packed.
    fn memory_uses(&self, level: i32, reads_ebs: bool) -> MemoryUses {
        let maps = self.volumes.iter().map(|volume| volume.map_memory.0).sum();
        let largest = self.volumes.iter().map(|volume| volume.map_memory.1).max().unwrap_or(0);
        let cells = self.volumes.iter().map(|volume| volume.cells).sum();
        MemoryUses {
            level,
            // A snapshot keeps its block map, because listing it again costs requests; a file does
            // not.
            maps: if reads_ebs { maps } else { 0 },
            reserve: largest + seek_table_memory(cells),
            incoming: if reads_ebs { Incoming::Blocks } else { Incoming::Local },
            parts: None,
            blocks: false,
        }
    }
}

impl StorePlan {
    /// Plans a store to a file or a pipe; to a bucket, with facts about it.
    pub fn new(
        image_id: Option<String>,
        volumes: PlannedVolumes,
        ebs: Option<&EbsReads>,
        level: i32,
        bucket: Option<&UploadFacts>,
        resources: &Resources,
    ) -> Result<Self> {
        let uses = volumes.memory_uses(level, ebs.is_some());
        let mut aws = AwsUse::default();
        let (upload, mut memory) = match bucket {
            #[cfg(feature = "aws")]
            Some(bucket) => {
                let archive = (volumes.longest_archive, volumes.segments());
                let (upload, memory) = UploadPlan::new(bucket, archive, resources, uses)?;
                upload.add_calls(bucket, &mut aws.calls);
                aws.add_s3(bucket, volumes.longest_archive);
                (Some(upload), memory)
            }
            _ => (None::<UploadPlan>, resources.split(&uses)?),
        };
        if bucket.is_none() && ebs.is_none() {
            memory.plan = memory.plan.for_files();
        }
        if let Some(ebs) = ebs {
            let in_turn = upload.as_ref().is_none_or(|upload| upload.segments.is_empty());
            add_ebs_reads(&mut aws, ebs, (image_id.is_some(), &volumes), in_turn);
            #[cfg(feature = "aws")]
            let target = bucket.and_then(UploadFacts::aws_region);
            #[cfg(not(feature = "aws"))]
            let target = None;
            aws.add_transfer(Service::Ebs, &ebs.region, volumes.bytes(), target);
        }
        Ok(Self { image_id, volumes, memory, upload, aws })
    }
}

impl StorePlan {
    /// The largest length of each volume's segment in bytes, if volumes are uploaded in parallel.
    fn segments(&self) -> Vec<u64> {
        self.upload.as_ref().map_or(Vec::new(), |upload| upload.segments.clone())
    }
}

/// Adds the requests that describe and read the snapshots.
fn add_ebs_reads(
    aws: &mut AwsUse,
    ebs: &EbsReads,
    (is_image, volumes): (bool, &PlannedVolumes),
    in_turn: bool,
) {
    add_descriptions(&mut aws.calls, is_image, volumes.volumes.len() as u64);
    #[cfg(feature = "aws")]
    {
        volumes.volumes.iter().for_each(|volume| aws.calls.add_snapshot_reads(volume.blocks));
        let largest = volumes.volumes.iter().map(|volume| volume.blocks).max().unwrap_or(0);
        aws.add_ebs(&ebs.region, ebs.account_rate, (volumes.blocks(), largest), in_turn);
    }
    #[cfg(not(feature = "aws"))]
    let _ = (ebs, in_turn);
}

/// Adds the requests that describe an image, or bare snapshots.
fn add_descriptions(calls: &mut Calls, is_image: bool, snapshots: u64) {
    if is_image {
        calls.add(Service::Ec2, "DescribeImages", 1);
        calls.add(Service::Ec2, "DescribeImageAttribute", 2);
    }
    calls.add(Service::Ec2, "DescribeSnapshots", 1);
    calls.add(Service::Ec2, "DescribeSnapshotAttribute", snapshots);
}

/// A store with its plan.
pub struct PlannedStore<'a> {
    image: &'a dyn ImageSource,
    destination: Destination,
    options: StoreOptions,
    plan: StorePlan,
}

impl<'a> PlannedStore<'a> {
    /// Plans the store of `image`. Requests block maps, and writes nothing.
    pub fn new(
        image: &'a dyn ImageSource,
        ebs: Option<&EbsReads>,
        destination: Destination,
        options: StoreOptions,
        resources: &Resources,
    ) -> Result<Self> {
        let image_id = image.document().image_id().map(ToString::to_string);
        let volumes = plan_volumes(image)?;
        let bucket = destination.upload_facts(options.overwrite)?;
        let plan =
            StorePlan::new(image_id, volumes, ebs, options.level, bucket.as_ref(), resources)?;
        let destination = destination.with_part_memory(plan.memory.parts);
        Ok(Self { image, destination, options, plan })
    }

    /// The plan.
    pub fn plan(&self) -> &StorePlan {
        &self.plan
    }

    fn context<'b>(&'b self, observer: &'b dyn Observer, cancel: &'b Cancel) -> Context<'b> {
        Context { plan: &self.plan.memory.plan, observer, cancel }
    }

    /// Checks what can be checked without writing: the bucket, its permissions, interrupted work,
    /// and an existing archive. Fails as [`run`](Self::run) would.
    pub fn check(&self, observer: &dyn Observer, cancel: &Cancel) -> Result<Existing> {
        let context = self.context(observer, cancel);
        let StoreOptions { pack, overwrite, attributes, on_metadata_change: policy, .. } =
            &self.options;
        let compare = |store: &dyn ObjectStore, key: &str, exists: Error| {
            let refused = exists.duplicate();
            let found = compare(self.image, (store, key), pack, exists, context)?;
            match (found.changed, policy.unwrap_or_default()) {
                (None, _) => Ok(Existing::Same),
                (Some(changed), MetadataPolicy::Fail) => Err(metadata_differs(refused, &changed)),
                (Some(changed), policy) => {
                    let updates = policy == MetadataPolicy::Update;
                    Ok(Existing::OtherMetadata { changed, updates })
                }
            }
        };
        let compare = Comparison { compare: &compare, files: policy.is_some() };
        let at_most = self.plan.volumes.longest_archive;
        let (work, _) =
            work(self.image, pack, context.plan.level, (at_most, &self.plan.segments()));
        let continued = Some((&work, Some(attributes)));
        self.destination.check(*overwrite, observer, continued, &compare)
    }

    /// Carries the plan out. The archive is visible when this returns, and not before.
    pub fn run(&self, observer: &dyn Observer, cancel: &Cancel) -> Result<Stored> {
        self.destination.check_writable(observer)?;
        let segments = self.plan.segments();
        let at_most = self.plan.volumes.longest_archive;
        let attributes = self.options.attributes.clone();
        let stored = self.plan.volumes.volumes.iter().map(|volume| volume.stored).sum();
        let whole = WholeTotal::new(observer, stored);
        // With `sparse`, zeros that are found later are not stored.
        let observer = if self.options.pack.sparse { observer } else { &whole };
        self.destination.open(
            (self.options.overwrite, attributes, at_most, segments),
            cancel,
            |target| {
                let target = target.on_metadata_change(self.options.on_metadata_change);
                store(self.image, target, &self.options.pack, self.context(observer, cancel))
            },
        )
    }
}

/// The uses of memory in the store of the smallest image from EC2 to a bucket.
#[cfg(feature = "aws")]
pub fn smallest_store(level: i32) -> MemoryUses {
    let parts = 2 * crate::aws::s3::PartPlan::size_for(0);
    MemoryUses { level, incoming: Incoming::Blocks, parts: Some(parts), ..MemoryUses::default() }
}

#[cfg(feature = "aws")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BLOCK_BYTES, ErrorCode};
    use crate::format::BlockMap;

    /// A volume of so many GiB, full of data.
    fn full(gib: u64) -> PlannedVolume {
        let size = VolumeSize::new(gib << 30).expect("a size");
        let mut map = BlockMap::new(size);
        map.insert(0, size.blocks());
        PlannedVolume {
            id: SnapshotId::parse("snap-0123456789abcdef0").expect("an id"),
            size,
            blocks: map.stored_blocks(),
            stored: map.stored_bytes(),
            extents: 1,
            cells: map.cells().count() as u64,
            longest: map.stored_bytes() + map.stored_bytes() / 128,
            map_memory: (map.memory(), map.memory()),
        }
    }

    fn plan(memory: u64, gib: u64, bucket: &UploadFacts) -> Result<StorePlan> {
        let volume = full(gib);
        let longest_archive = volume.longest + (1 << 20);
        let volumes = PlannedVolumes { volumes: vec![volume], longest_archive };
        let ebs = EbsReads { region: "us-east-1".to_owned(), account_rate: None };
        let resources = Resources { threads: 2, memory };
        StorePlan::new(None, volumes, Some(&ebs), 1, Some(bucket), &resources)
    }

    #[test]
    fn the_memory_that_an_error_names_suffices_for_five_tebibytes() {
        let bucket = UploadFacts {
            region: "us-east-1".to_owned(),
            is_standard: true,
            is_aws: true,
            ..UploadFacts::default()
        };
        let error = plan(256 << 20, 5 << 10, &bucket).expect_err("too little");
        assert!(error.is(ErrorCode::MemoryForParts), "{error:?}");
        let needed: u64 = error.fact("needed").expect("a fact").parse().expect("a number");
        assert!(plan(needed - (1 << 20), 5 << 10, &bucket).is_err());
        let planned = plan(needed, 5 << 10, &bucket).expect("it suffices");
        let upload = planned.upload.expect("an upload");
        assert!(upload.parts <= 10_000 && planned.memory.parts >= 2 * upload.part_size);
        let blocks = (5u64 << 40) / BLOCK_BYTES;
        let count = |service, action| planned.aws.calls.count(service, action);
        assert_eq!(count(Service::Ebs, "GetSnapshotBlock"), blocks + 1);
        assert_eq!(count(Service::Ebs, "ListSnapshotBlocks"), 2 * blocks.div_ceil(10_000));
        assert_eq!(count(Service::S3, "UploadPart"), upload.parts);
        let month = planned.aws.s3.and_then(|s3| s3.dollars_a_month).expect("a price").amount();
        assert!((month - 0.023 * 5.0 * 1024.0).abs() < 2.0, "{month}");
    }
}
