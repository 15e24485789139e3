//! Functions with which tests add, change and read resources without a request.

use std::time::SystemTime;

use super::clock::iso;
use super::model::{Image, Snapshot};
use super::{Content, StoreTask, TestAws};

impl TestAws {
    /// Adds a snapshot and returns its id. A missing id and owner are filled in.
    pub fn add_snapshot(&self, mut snapshot: Snapshot) -> String {
        let mut world = self.shared.world();
        if snapshot.id.is_empty() {
            snapshot.id = world.unique("snap");
        }
        if snapshot.owner.is_empty() {
            snapshot.owner.clone_from(&world.account);
        }
        if snapshot.encrypted && snapshot.kms_key_id.is_none() {
            snapshot.kms_key_id = Some(world.default_kms_key(&snapshot.owner));
        }
        let id = snapshot.id.clone();
        world.snapshots.insert(id.clone(), snapshot);
        id
    }

    /// Adds a completed snapshot of `volume_size` GiB and returns its id.
    pub fn snapshot_of(
        &self,
        volume_size: u64,
        blocks: impl IntoIterator<Item = (u32, Content)>,
    ) -> String {
        self.add_snapshot(Snapshot::new(volume_size).with(blocks))
    }

    /// Adds an image and returns its id. A missing id, owner and date are filled in, and so are the
    /// fields that mappings take from their snapshots.
    pub fn add_image(&self, mut image: Image) -> String {
        let mut world = self.shared.world();
        if image.id.is_empty() {
            image.id = world.unique("ami");
        }
        if image.owner.is_empty() {
            image.owner.clone_from(&world.account);
        }
        if image.creation_date.is_empty() {
            image.creation_date = iso(world.now());
        }
        image.location.get_or_insert(format!("{}/{}", image.owner, image.name));
        for ebs in image.mappings.iter_mut().filter_map(|mapping| mapping.ebs.as_mut()) {
            let Some(snapshot) = ebs.snapshot_id.as_ref().and_then(|id| world.snapshots.get(id))
            else {
                continue;
            };
            ebs.volume_size.get_or_insert(snapshot.volume_size);
            ebs.encrypted.get_or_insert(snapshot.encrypted);
            if ebs.volume_type.is_none() {
                ebs.volume_type = Some("gp3".to_owned());
                ebs.iops.get_or_insert(3000);
                ebs.throughput.get_or_insert(125);
            }
        }
        let id = image.id.clone();
        world.images.insert(id.clone(), image);
        id
    }

    pub fn snapshot(&self, id: &str) -> Option<Snapshot> {
        self.shared.world().snapshots.get(id).cloned()
    }

    /// All snapshots, in the order of their ids.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.shared.world().snapshots.values().cloned().collect()
    }

    pub fn image(&self, id: &str) -> Option<Image> {
        self.shared.world().images.get(id).cloned()
    }

    /// All images, in the order of their ids.
    pub fn images(&self) -> Vec<Image> {
        self.shared.world().images.values().cloned().collect()
    }

    /// Changes a snapshot without a request.
    pub fn change_snapshot(&self, id: &str, change: impl FnOnce(&mut Snapshot)) {
        change(self.shared.world().snapshots.get_mut(id).expect("a snapshot"));
    }

    /// Changes an image without a request.
    pub fn change_image(&self, id: &str, change: impl FnOnce(&mut Image)) {
        change(self.shared.world().images.get_mut(id).expect("an image"));
    }

    /// Removes a snapshot, even if an image uses it.
    pub fn remove_snapshot(&self, id: &str) {
        self.shared.world().snapshots.remove(id).expect("a snapshot");
    }

    pub fn remove_image(&self, id: &str) {
        self.shared.world().images.remove(id).expect("an image");
    }

    /// From now on only the owner may use the snapshot.
    pub fn revoke_snapshot(&self, id: &str) {
        self.change_snapshot(id, |snapshot| snapshot.permissions = Default::default());
    }

    /// Invalidates all block tokens of the snapshot.
    pub fn expire_block_tokens(&self, id: &str) {
        self.change_snapshot(id, |snapshot| snapshot.generation += 1);
    }

    /// Invalidates all page tokens for lists of the snapshot.
    pub fn expire_page_tokens(&self, id: &str) {
        let now = self.shared.world().now();
        self.change_snapshot(id, |snapshot| snapshot.pages_since = now);
    }

    /// Time of the server's clock.
    pub fn now(&self) -> SystemTime {
        self.shared.world().now()
    }

    /// All store tasks, the oldest first.
    pub fn store_tasks(&self) -> Vec<StoreTask> {
        self.shared.world().tasks.clone()
    }

    /// Lets the next store task fail at its end.
    pub fn fail_store(&self, reason: &str) {
        self.shared.world().store_failure = Some(reason.to_owned());
    }
}
