//! The endpoint: what is behind it, against the local AWS of the tests.

mod desk;
