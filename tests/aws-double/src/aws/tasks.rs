//! Store and restore tasks of AWS itself: the format of their objects, and access to the buckets.
//!
//! The format of AWS is not public. Here an object is a head in JSON with the blocks behind it,
//! which only this server reads.

use std::collections::BTreeMap;
use std::time::SystemTime;

use hyper::body::Bytes;
use serde::{Deserialize, Serialize};

use super::blocks::{BLOCK, Content, Pattern};
use super::clock::iso;
use super::model::{Image, Mapping, Snapshot, Tags};
use super::world::World;

const MAGIC: &[u8] = b"TESTAMI\n";

/// Buckets for the objects of store tasks. Errors are texts for people.
pub trait Buckets: Send + Sync {
    /// The Region of a bucket; none if there is no such bucket.
    fn region(&self, bucket: &str) -> Option<String>;
    /// An object; none if there is no such object.
    fn get(&self, bucket: &str, key: &str) -> Result<Option<Bytes>, String>;
    fn put(&self, bucket: &str, key: &str, object: Object) -> Result<(), String>;
}

/// An object to be put.
#[derive(Clone, Debug)]
pub struct Object {
    pub bytes: Bytes,
    pub metadata: Tags,
    pub tags: Tags,
}

/// A store task.
#[derive(Clone, Debug)]
pub struct StoreTask {
    pub image: String,
    pub account: String,
    pub bucket: String,
    pub key: String,
    pub tags: Tags,
    pub started: SystemTime,
    pub progress: u8,
    /// `InProgress`, `Completed` or `Failed`.
    pub state: String,
    pub reason: Option<String>,
    /// Bytes of all volumes, in GB.
    pub size_gb: u64,
    /// Descriptions that showed it as in progress.
    pub polls: u32,
}

/// The head of an object.
#[derive(Serialize, Deserialize)]
struct Head {
    image: Image,
    volumes: Vec<Volume>,
}

#[derive(Serialize, Deserialize)]
struct Volume {
    device: String,
    size: u64,
    description: String,
    tags: Tags,
    blocks: Vec<(u32, Kind)>,
}

/// Kind of a block; the bytes stand behind the head, in order.
#[derive(Serialize, Deserialize)]
enum Kind {
    Zero,
    Made(u64, u8),
    Bytes,
}

/// An image that was read from an object: its snapshots by device, without ids.
pub struct Stored {
    pub image: Image,
    pub snapshots: BTreeMap<String, Snapshot>,
}

/// The object of an image.
fn write(world: &World, image: &Image) -> Result<Bytes, String> {
    let mut behind = Vec::new();
    let mut volumes = Vec::new();
    for mapping in &image.mappings {
        let Some(id) = mapping.snapshot_id() else { continue };
        let snapshot =
            world.snapshots.get(id).ok_or_else(|| format!("The snapshot {id} does not exist."))?;
        let mut blocks = Vec::new();
        for (index, content) in &snapshot.blocks {
            let kind = match content {
                Content::Zero => Kind::Zero,
                Content::Made(pattern) => Kind::Made(pattern.seed, pattern.random),
                Content::Bytes(bytes, _) => {
                    behind.extend(bytes);
                    Kind::Bytes
                }
                Content::Digest(_) => return Err(format!("The blocks of {id} were not kept.")),
            };
            blocks.push((*index, kind));
        }
        let tags = visible(&snapshot.tags);
        volumes.push(Volume {
            device: mapping.device.clone(),
            size: snapshot.volume_size,
            description: snapshot.description.clone(),
            tags,
            blocks,
        });
    }
    let head = serde_json::to_vec(&Head { image: image.clone(), volumes })
        .map_err(|cause| cause.to_string())?;
    Ok([MAGIC, &(head.len() as u64).to_be_bytes(), &head, &behind].concat().into())
}

fn visible(tags: &Tags) -> Tags {
    tags.iter()
        .filter(|(key, _)| !key.starts_with("aws:"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Reads an object; none if no store task wrote it.
pub fn read(object: &Bytes) -> Option<Stored> {
    let rest = object.strip_prefix(MAGIC)?;
    let (len, rest) = rest.split_first_chunk::<8>()?;
    let (head, mut behind) =
        rest.split_at_checked(usize::try_from(u64::from_be_bytes(*len)).ok()?)?;
    let Head { image, volumes } = serde_json::from_slice(head).ok()?;
    let mut snapshots = BTreeMap::new();
    for volume in volumes {
        let mut snapshot = Snapshot {
            description: volume.description,
            tags: volume.tags,
            ..Snapshot::new(volume.size)
        };
        for (index, kind) in volume.blocks {
            let content = match kind {
                Kind::Zero => Content::Zero,
                Kind::Made(seed, random) => Content::Made(Pattern { seed, random }),
                Kind::Bytes => {
                    let (block, rest) = behind.split_at_checked(BLOCK)?;
                    behind = rest;
                    Content::of(Bytes::copy_from_slice(block))
                }
            };
            snapshot.blocks.insert(index, content);
        }
        snapshots.insert(volume.device, snapshot);
    }
    behind.is_empty().then_some(Stored { image, snapshots })
}

impl Image {
    /// Bytes of all volumes, in GB.
    pub fn size_gb(&self) -> u64 {
        let sizes = self.mappings.iter().filter_map(|mapping| mapping.ebs.as_ref()?.volume_size);
        (sizes.sum::<u64>() << 30) / 1_000_000_000
    }
}

impl World {
    /// Counts one description of a store task, which writes its object at its end.
    pub fn advance_store(&mut self, number: usize) {
        let task = self.tasks[number].clone();
        if task.state != "InProgress" {
            return;
        }
        let polls = task.polls + 1;
        if polls <= self.settings.store_polls {
            self.tasks[number].polls = polls;
            self.tasks[number].progress = (polls * 100 / (self.settings.store_polls + 1)) as u8;
            return;
        }
        let outcome = match self.store_failure.take() {
            Some(reason) => Err(reason),
            None => self.finish_store(&task),
        };
        let task = &mut self.tasks[number];
        match outcome {
            Ok(()) => (task.state, task.progress) = ("Completed".to_owned(), 100),
            Err(reason) => (task.state, task.reason) = ("Failed".to_owned(), Some(reason)),
        }
    }

    fn finish_store(&self, task: &StoreTask) -> Result<(), String> {
        let image = self.images.get(&task.image).ok_or("The image does not exist any more.")?;
        let buckets = self.buckets.as_ref().ok_or("There are no buckets.")?;
        let mut metadata = Tags::from([
            ("ami-name".to_owned(), image.name.clone()),
            ("ami-owner-account".to_owned(), image.owner.clone()),
            ("ami-store-date".to_owned(), format!("{}Z", &iso(task.started)[..19])),
            ("ami-registration-date".to_owned(), image.creation_date.clone()),
        ]);
        if let Some(description) = &image.description {
            metadata.insert("ami-description".to_owned(), description.clone());
        }
        buckets.put(
            &task.bucket,
            &task.key,
            Object { bytes: write(self, image)?, metadata, tags: task.tags.clone() },
        )
    }
}

impl Stored {
    /// Adds the image and its snapshots, all of them pending, and returns the id of the image.
    pub fn restore(
        self,
        world: &mut World,
        account: &str,
        name: &str,
        tags: &BTreeMap<String, Tags>,
        fails_with: Option<String>,
    ) -> String {
        let Self { mut image, mut snapshots } = self;
        let added = |kind: &str| tags.get(kind).cloned().unwrap_or_default();
        image.source_image_id = Some(std::mem::take(&mut image.id));
        image.source_image_region =
            image.source_image_region.take().or_else(|| Some(world.region.clone()));
        for mapping in &mut image.mappings {
            let device = mapping.device.clone();
            let (Some(mut snapshot), Some(ebs)) = (snapshots.remove(&device), mapping.ebs.as_mut())
            else {
                continue;
            };
            snapshot.id = world.unique("snap");
            account.clone_into(&mut snapshot.owner);
            "pending".clone_into(&mut snapshot.state);
            snapshot.progress = 0;
            snapshot.start_time = world.now();
            snapshot.encrypted = world.account_settings(account).encrypts;
            snapshot.kms_key_id = snapshot.encrypted.then(|| world.default_kms_key(account));
            snapshot.tags.extend(added("snapshot"));
            snapshot.visible_after = world.settings.settle;
            ebs.snapshot_id = Some(snapshot.id.clone());
            ebs.encrypted = Some(snapshot.encrypted);
            ebs.kms_key_id = None;
            world.snapshots.insert(snapshot.id.clone(), snapshot);
        }
        let id = world.unique("ami");
        let image = Image {
            id: id.clone(),
            owner: account.to_owned(),
            owner_alias: None,
            name: name.to_owned(),
            location: Some(format!("{account}/{name}")),
            state: "pending".to_owned(),
            creation_date: format!("{}.000Z", &iso(world.now())[..19]),
            tags: visible(&image.tags).into_iter().chain(added("image")).collect(),
            launch: Default::default(),
            deprecation_time: None,
            deregistration_protection: None,
            protected_until: None,
            last_launched: None,
            source_instance_id: None,
            visible_after: world.settings.settle.describes,
            pending_for: world.settings.restore_polls,
            fails_with,
            restored: true,
            ..image
        };
        world.images.insert(id.clone(), image);
        id
    }
}

/// Whether all volumes of the image come from snapshots, so that it can be stored.
pub fn has_volumes(image: &Image) -> bool {
    image.root_device_type == "ebs"
        && image.mappings.iter().any(|mapping| Mapping::snapshot_id(mapping).is_some())
}
