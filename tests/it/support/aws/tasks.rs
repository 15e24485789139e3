//! Store and restore tasks of EC2 itself.

/// Where the objects of store tasks go, and come from.
pub trait Buckets: Send + Sync {}

/// A store task.
#[derive(Clone, Debug)]
pub struct StoreTask {}
