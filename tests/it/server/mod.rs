//! The endpoint: what it says to clients, and what it does for them.

mod caller;
mod face;
mod fuzz;
mod memory;
