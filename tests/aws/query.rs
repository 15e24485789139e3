//! The query layer against what AWS's own tools send and read.

mod client;
mod protocol;
