//! The face of the endpoint: protocol, signatures, limits, long forms, TLS, forwarding, pages. The
//! service behind it is in memory.

mod auth;
mod forward;
mod limits;
mod long_forms;
mod pages;
mod protocol;
mod regions;
