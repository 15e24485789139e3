//! All integration tests in one binary, because linking is what takes the time.

mod architecture;
mod format;
mod support;
mod vectors;
mod volumes;
