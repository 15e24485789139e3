//! The endpoint: what it says to clients and does for them, and what is behind it, against the
//! local AWS of the tests.

mod account;
mod caller;
mod clocks;
mod dry_run;
mod encryption;
mod face;
mod fuzz;
mod memory;
mod pending;
mod regions;
mod task_service;
#[path = "../support"]
mod support {
    #[cfg(feature = "cli")]
    #[expect(dead_code, unused_imports, reason = "the tests of the program use the rest")]
    pub mod cli;
    #[expect(dead_code, reason = "the tests of the engine use the rest")]
    pub mod image;
    #[cfg(feature = "cli")]
    #[expect(dead_code, reason = "the tests of the program use the rest")]
    pub mod schema;
    #[expect(dead_code, reason = "the tests of the engine use the rest")]
    pub mod tools;
    pub mod wait;
}
