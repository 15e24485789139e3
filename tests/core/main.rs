//! Engine, format, object and image in memory and on disk. These tests need no feature of the
//! crate.

mod architecture;
mod archive_volume;
mod circles;
mod documents;
mod faults;
mod format;
mod fuzz_smoke;
mod golden;
mod library;
mod policies;
mod rule_vectors;
mod salvage;
mod stock_tools;
#[path = "../support"]
mod support {
    pub mod directory;
    pub mod forge;
    pub mod image;
    pub mod tools;
    pub mod vector;
}
mod vectors;
mod words;
