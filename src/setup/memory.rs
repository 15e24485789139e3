//! What memory is for what: pure functions.

use crate::aws::s3::{ObjectOptions, PartPlan, S3Store};
use crate::base::{BLOCK_BYTES, Cancel, NullObserver, Result};
use crate::engine::{Context, PackOptions, Plan};
use crate::image::ImageSource;
use crate::ops;

/// Threads and memory of one piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Threads that compute.
    pub threads: usize,
    /// Bytes.
    pub memory: u64,
}

/// A store to a bucket, planned.
pub struct StorePlanned {
    /// Threads and memory of packing.
    pub plan: Plan,
    /// The bucket, with memory for parts on their way.
    pub store: S3Store,
    /// The archive is not longer.
    pub at_most: u64,
    /// How long the segment of each volume can become, if volumes go up side by side.
    pub segments: Vec<u64>,
    /// Bytes of volumes that will be read at most.
    pub bytes: u64,
}

impl Resources {
    /// A plan with all of it.
    pub fn plan(&self, level: i32) -> Result<Plan> {
        Plan::new(self.threads, self.memory, level)
    }

    /// A plan for reading an archive. One that comes over a network leaves three eighths for what
    /// connections hold, beside the ranges that are fetched.
    pub fn reading_plan(&self, remote: bool) -> Result<Plan> {
        let network = if remote {
            (self.memory / 8 * 3).min(self.memory.saturating_sub(Plan::least_memory(1)))
        } else {
            0
        };
        Plan::new(self.threads, self.memory - network, 1)
    }

    /// A plan for restoring to EC2, and the memory for blocks on their way: three eighths, beside
    /// what connections that read the archive hold.
    pub fn plan_with_blocks(&self, remote: bool) -> Result<(Plan, u64)> {
        let least = Plan::least_memory(1);
        let blocks = (self.memory / 8 * 3).min(self.memory.saturating_sub(least));
        let network = if remote {
            (self.memory / 4).min((self.memory - blocks).saturating_sub(least))
        } else {
            0
        };
        Ok((Plan::new(self.threads, self.memory - blocks - network, 1)?, blocks))
    }

    /// A plan that leaves memory for parts on their way up: three eighths, or as much as two parts
    /// of an archive of `at_most` bytes need, but never what the rest cannot do without.
    pub fn plan_with_parts(&self, level: i32, at_most: u64) -> Result<(Plan, u64)> {
        let wanted = (self.memory / 8 * 3).max(PartPlan::least_memory(at_most));
        let parts = wanted.min(self.memory.saturating_sub(Plan::least_memory(level)));
        Ok((Plan::new(self.threads, self.memory - parts, level)?, parts))
    }

    /// Plans the store of an image to a bucket. The lists of blocks are read, and nothing else.
    /// Volumes go up side by side if the bucket's options ask for it, and if there is memory for
    /// it; where they insist, too little memory is an error.
    pub fn plan_store(
        &self,
        image: &dyn ImageSource,
        store: S3Store,
        level: i32,
        cancel: &Cancel,
    ) -> Result<StorePlanned> {
        let plan = self.plan(level)?;
        // Without looking for zeros: that would read everything, and only makes it shorter.
        let context = Context { plan: &plan, observer: &NullObserver, cancel };
        let planned = ops::plan_store(image, &PackOptions::default(), context)?;
        let bytes = planned.volumes.iter().map(|volume| volume.blocks * BLOCK_BYTES).sum();
        let (at_most, mut segments) = (planned.longest_archive, Vec::new());
        let (mut plan, mut part_memory) = self.plan_with_parts(level, at_most)?;
        if planned.volumes.len() > 1 && store.wants_parallel()? {
            let longest = PartPlan::with_borders(at_most, planned.volumes.len());
            let (side_by_side, memory) = self.plan_with_parts(level, longest)?;
            let part_size =
                store.options().part_size.unwrap_or_else(|| PartPlan::size_for(longest));
            match PartPlan::check_parallel(part_size, memory) {
                Ok(()) => {
                    (plan, part_memory, segments) = (side_by_side, memory, planned.segments())
                }
                Err(error) if store.options().parallel_segments.is_some() => return Err(error),
                Err(_) => {}
            }
        }
        let options = ObjectOptions { part_memory, ..store.options().clone() };
        Ok(StorePlanned { plan, store: store.with_options(options), at_most, segments, bytes })
    }

    /// The least memory for a store from EC2 to a bucket at level 1.
    pub const LEAST_FOR_STORE: u64 = 112 << 20;

    /// Fails if there is too little memory for the store of even a small image from EC2 to a
    /// bucket.
    pub fn check_smallest_store(&self, level: i32) -> Result<()> {
        let (_, memory) = self.beside_blocks(level).plan_with_parts(level, 0)?;
        PartPlan::new(0, memory).map(drop)
    }

    /// What is left beside connections that bring blocks: one holds most of another block, and what
    /// is freed is not all given back (measured: 225 to 320 MiB with three eighths).
    #[must_use]
    pub fn beside_blocks(&self, level: i32) -> Self {
        let left = (self.memory - self.memory / 2).max(Plan::least_memory(level)).min(self.memory);
        Self { memory: left, ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;

    #[test]
    fn the_least_memory_of_a_store_is_enough_for_it() {
        let of = |memory| Resources { threads: 2, memory }.check_smallest_store(1);
        assert!(of(Resources::LEAST_FOR_STORE).is_ok());
        assert_eq!(
            of(Resources::LEAST_FOR_STORE / 2).expect_err("too little").kind(),
            ErrorKind::Limit
        );
    }

    #[test]
    fn parts_get_the_memory_that_the_readme_says() {
        let resources = |memory| Resources { threads: 8, memory };
        for (memory, archive) in [
            (256u64 << 20, 1u64 << 40),
            (1100 << 20, 5 << 40),
            (10_343 << 20, crate::aws::s3::MAX_OBJECT),
        ] {
            let (plan, parts) = resources(memory).plan_with_parts(1, archive).expect("a plan");
            assert!(
                PartPlan::new(archive, parts).is_ok() && plan.in_flight + parts < memory,
                "{archive}"
            );
        }
        let (_, parts) = resources(256 << 20).plan_with_parts(1, 5 << 40).expect("a plan");
        assert_eq!(PartPlan::new(5 << 40, parts).expect_err("too little").kind(), ErrorKind::Limit);
    }
}
