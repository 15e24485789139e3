//! The query layer against requests and parsed answers of AWS's own tools.

mod client;
mod protocol;
