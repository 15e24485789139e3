//! The zero test: finds blocks of zeros before any work is spent on them.
//!
//! Safe code in a shape that the compiler vectorises. Its time depends on the data: it stops at the
//! first chunk with a set bit, for most data within the first 16 bytes.

/// Bytes between two decisions to stop.
const CHUNK: usize = 1024;

/// Compared with the rest of a slice.
static ZEROS: [u8; CHUNK] = [0; CHUNK];

/// Whether every byte of `data` is zero; true for an empty slice.
///
/// Measured on an AMD EPYC of the Zen 4 kind at 3.7 GHz, compiled for plain x86_64: about 100 GB/s
/// over 512 KiB of zeros in the L2 cache, 5 ns for 100 bytes.
#[must_use]
pub fn is_zero(data: &[u8]) -> bool {
    if let Some(start) = data.first_chunk()
        && u128::from_ne_bytes(*start) != 0
    {
        return false;
    }
    // No exit within a chunk, so that the loop over it vectorises.
    let (chunks, rest) = data.as_chunks::<CHUNK>();
    chunks.iter().all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
        && *rest == ZEROS[..rest.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_of_every_length() {
        let zeros = [0; 3 * CHUNK + 5];
        for len in 0..=zeros.len() {
            assert!(is_zero(&zeros[..len]), "{len} bytes");
        }
    }

    #[test]
    fn one_bit_anywhere() {
        // Lengths on both sides of each boundary, and every position in them.
        for len in [1, 2, 15, 16, 17, 100, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 77] {
            let mut data = vec![0; len];
            for at in 0..len {
                data[at] = 1 << (at % 8);
                assert!(!is_zero(&data), "byte {at} of {len}");
                data[at] = 0;
            }
            assert!(is_zero(&data));
        }
    }

    #[test]
    fn neighbours_do_not_count() {
        let mut data = vec![0xff; 2 * CHUNK];
        for (start, end) in [(1, 1), (1, 2), (3, CHUNK), (7, CHUNK + 9), (1, 2 * CHUNK - 1)] {
            data[start..end].fill(0);
            assert!(is_zero(&data[start..end]), "{start} to {end}");
            assert!(!is_zero(&data[start - 1..end]));
            assert!(!is_zero(&data[start..=end]));
            data[start..end].fill(0xff);
        }
    }
}
