//! The face of the endpoint: protocol, signatures, limits, TLS, forwarding, pages. What is behind
//! it is in memory.

mod auth;
mod forward;
mod limits;
mod pages;
mod protocol;
