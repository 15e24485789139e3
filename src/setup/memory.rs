//! What memory is for what: pure functions.

use crate::aws::s3::PartPlan;
use crate::base::{BLOCK_BYTES, Cancel, NullObserver, Result};
use crate::catalog::ImageSource;
use crate::engine::{Context, PackOptions, Plan};
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
#[derive(Clone, Copy, Debug)]
pub struct StorePlanned {
    /// Threads and memory of packing.
    pub plan: Plan,
    /// Memory for parts on their way.
    pub part_memory: u64,
    /// The archive is not longer.
    pub at_most: u64,
    /// Bytes of volumes that will be read at most.
    pub bytes: u64,
}

impl Resources {
    /// A plan with all of it.
    pub fn plan(&self, level: i32) -> Result<Plan> {
        Plan::new(self.threads, self.memory, level)
    }

    /// A plan for reading an archive. One that comes over a network leaves three eighths for what connections hold, beside the ranges that are fetched.
    pub fn reading_plan(&self, remote: bool) -> Result<Plan> {
        let network = if remote { (self.memory / 8 * 3).min(self.memory.saturating_sub(Plan::least_memory(1))) } else { 0 };
        Plan::new(self.threads, self.memory - network, 1)
    }

    /// A plan for restoring to EC2, and the memory for blocks on their way: three eighths, beside what connections that read the archive hold.
    pub fn plan_with_blocks(&self, remote: bool) -> Result<(Plan, u64)> {
        let least = Plan::least_memory(1);
        let blocks = (self.memory / 8 * 3).min(self.memory.saturating_sub(least));
        let network = if remote { (self.memory / 4).min((self.memory - blocks).saturating_sub(least)) } else { 0 };
        Ok((Plan::new(self.threads, self.memory - blocks - network, 1)?, blocks))
    }

    /// A plan that leaves memory for parts on their way up: three eighths, or as much as two parts of an archive of `at_most` bytes need, but never what the rest cannot do without.
    pub fn plan_with_parts(&self, level: i32, at_most: u64) -> Result<(Plan, u64)> {
        let wanted = (self.memory / 8 * 3).max(PartPlan::least_memory(at_most));
        let parts = wanted.min(self.memory.saturating_sub(Plan::least_memory(level)));
        Ok((Plan::new(self.threads, self.memory - parts, level)?, parts))
    }

    /// Plans the store of an image to a bucket. The lists of blocks are read, and nothing else.
    pub fn plan_store(&self, image: &dyn ImageSource, level: i32, cancel: &Cancel) -> Result<StorePlanned> {
        let plan = self.plan(level)?;
        // Without looking for zeros: that would read everything, and only makes it shorter.
        let context = Context { plan: &plan, observer: &NullObserver, cancel };
        let planned = ops::plan_store(image, &PackOptions::default(), context)?;
        let (plan, part_memory) = self.plan_with_parts(level, planned.longest_archive)?;
        let bytes = planned.volumes.iter().map(|volume| volume.blocks * BLOCK_BYTES).sum();
        Ok(StorePlanned { plan, part_memory, at_most: planned.longest_archive, bytes })
    }

    /// What is left beside connections that bring blocks: one holds most of another block, and what is freed is not all given back (measured: 225 to 320 MiB with three eighths).
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
    fn parts_get_the_memory_that_the_readme_says() {
        let resources = |memory| Resources { threads: 8, memory };
        for (memory, archive) in [(256u64 << 20, 1u64 << 40), (1100 << 20, 5 << 40), (10_343 << 20, crate::aws::s3::MAX_OBJECT)] {
            let (plan, parts) = resources(memory).plan_with_parts(1, archive).expect("a plan");
            assert!(PartPlan::new(archive, parts).is_ok() && plan.in_flight + parts < memory, "{archive}");
        }
        let (_, parts) = resources(256 << 20).plan_with_parts(1, 5 << 40).expect("a plan");
        assert_eq!(PartPlan::new(5 << 40, parts).expect_err("too little").kind(), ErrorKind::Limit);
    }
}
