//! Random ids.

use super::{Error, ErrorKind, Result};

/// 128 random bits of the operating system: no two calls return the same, on one host or on two.
/// An error of kind `Io` where the system has no source of random bits.
pub fn random_id() -> Result<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|cause| {
        Error::new(ErrorKind::Io, "the operating system gives no random bits").because(cause)
    })?;
    Ok(u128::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ids_differ_in_both_halves() {
        let (one, other) = (random_id().expect("an id"), random_id().expect("an id"));
        assert_ne!(one as u64, other as u64);
        assert_ne!(one >> 64, other >> 64);
    }
}
