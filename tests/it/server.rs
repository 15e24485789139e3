//! The endpoint: what it says to clients and does for them, and what is behind it, against the
//! local AWS of the tests.

mod caller;
mod desk;
mod face;
mod fuzz;
mod memory;
