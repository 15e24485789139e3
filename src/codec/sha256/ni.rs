//! The SHA-NI kernel: several SHA-256 compressions interleaved on one core.
//!
//! The one module with `unsafe` in it. Its surface is safe: an [`Engine`] exists only on a CPU
//! that has the instructions, and [`Engine::compress`] takes whole blocks by slice,
//! so no caller can hand it a wrong pointer or a wrong length.

#![expect(
    unsafe_code,
    reason = "the SHA instructions exist only as intrinsics; all of them are in this kernel"
)]

use core::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_set_epi8, _mm_setzero_si128, _mm_sha256msg1_epu32,
    _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
};
use core::mem::transmute;

use super::{Block, State};

/// The round constants of FIPS 180-4, four to a row: one row is added to four schedule words.
const ROUND_CONSTANTS: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
    [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
    [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
    [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
    [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
    [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
    [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
    [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
    [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

/// Proof that this CPU has every instruction the kernel uses; only [`Engine::detect`] makes one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Engine(());

impl Engine {
    /// An engine, if the CPU can run it. The answer of CPUID is cached by `std`.
    pub(super) fn detect() -> Option<Self> {
        let able = is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("sse2")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1");
        able.then_some(Self(()))
    }

    /// Feeds the first `count` blocks of every chain into the state of that chain.
    ///
    /// # Panics
    ///
    /// If a chain holds fewer than `count` blocks.
    pub(super) fn compress<const N: usize>(
        self,
        chains: [(&mut State, &[Block]); N],
        count: usize,
    ) {
        // SAFETY: `compress_chains` is safe but for the CPU features it is compiled with. An
        // `Engine` is made only by `detect`, which saw all of them (the private field keeps
        // every other module from making one).
        unsafe { compress_chains(chains, count) }
    }
}

/// The interleaved compression. One message is a chain of 32 dependent `sha256rnds2` per block,
/// each of which waits for the one before; messages are independent, so their chains fill those
/// waits.
///
/// Its speed depends on the order in which the compiler leaves the instructions: short of
/// registers, it may pull the chains apart again. Small changes here have cost a quarter, so
/// measure after any, and after a change of compiler.
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn compress_chains<const N: usize>(chains: [(&mut State, &[Block]); N], count: usize) {
    // Plain loops here and below: a closure given to `array::map` would be compiled with these
    // CPU features, `map` itself without them, and so the one could not be inlined into the other.
    let mut abef = [_mm_setzero_si128(); N];
    let mut cdgh = [_mm_setzero_si128(); N];
    let mut blocks: [&[Block]; N] = [&[]; N];
    for (l, (state, chain)) in chains.iter().enumerate() {
        abef[l] = load(&state[0]);
        cdgh[l] = load(&state[1]);
        // The length is checked here, once, and not at every block of the loop below.
        blocks[l] = &chain[..count];
    }

    // `while` loops and no pointers: an unoptimised build calls a function for each step of an
    // iterator and for each check of a pointer, which made hashing most of the time of the tests.
    let mut at = 0;
    while at < count {
        let (abef_before, cdgh_before) = (abef, cdgh);
        // The last sixteen schedule words of each chain: `w[q % 4][l]` holds words 4q to 4q + 3.
        let mut w = [[_mm_setzero_si128(); N]; 4];

        // Four rounds of every chain, with the schedule words they use made just before. Written
        // as a macro, not a loop: `q` is then a constant, and `w` is registers, not memory.
        macro_rules! quad {
            ($q:literal) => {{
                let constants = load(&ROUND_CONSTANTS[$q]);
                let mut l = 0;
                while l < N {
                    w[$q % 4][l] = if $q < 4 {
                        big_endian_words(&blocks[l][at], $q)
                    } else {
                        // w[t] = s1(w[t-2]) + w[t-7] + s0(w[t-15]) + w[t-16], four at a time.
                        let (t16, t12) = (w[$q % 4][l], w[($q + 1) % 4][l]);
                        let (t8, t4) = (w[($q + 2) % 4][l], w[($q + 3) % 4][l]);
                        let t7 = _mm_alignr_epi8::<4>(t4, t8);
                        _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(t16, t12), t7), t4)
                    };
                    let wk = _mm_add_epi32(w[$q % 4][l], constants);
                    cdgh[l] = _mm_sha256rnds2_epu32(cdgh[l], abef[l], wk);
                    let wk = _mm_shuffle_epi32::<0b1110>(wk);
                    abef[l] = _mm_sha256rnds2_epu32(abef[l], cdgh[l], wk);
                    l += 1;
                }
            }};
        }
        quad!(0);
        quad!(1);
        quad!(2);
        quad!(3);
        quad!(4);
        quad!(5);
        quad!(6);
        quad!(7);
        quad!(8);
        quad!(9);
        quad!(10);
        quad!(11);
        quad!(12);
        quad!(13);
        quad!(14);
        quad!(15);

        let mut l = 0;
        while l < N {
            abef[l] = _mm_add_epi32(abef[l], abef_before[l]);
            cdgh[l] = _mm_add_epi32(cdgh[l], cdgh_before[l]);
            l += 1;
        }
        at += 1;
    }

    for (l, (state, _)) in chains.into_iter().enumerate() {
        store(&mut state[0], abef[l]);
        store(&mut state[1], cdgh[l]);
    }
}

/// Four words as a vector, the first in the lowest element.
#[inline]
fn load(words: &[u32; 4]) -> __m128i {
    // SAFETY: both types have 16 bytes, and every bit pattern is a value of a vector.
    unsafe { transmute::<[u32; 4], __m128i>(*words) }
}

/// Undoes [`load`].
#[inline]
fn store(words: &mut [u32; 4], vector: __m128i) {
    // SAFETY: both types have 16 bytes, and every bit pattern is a value of four words.
    *words = unsafe { transmute::<__m128i, [u32; 4]>(vector) };
}

/// The message words 4q to 4q + 3 of a block (`q` below 4), the first in the lowest element.
#[inline]
#[target_feature(enable = "sse2,ssse3")]
fn big_endian_words(block: &Block, q: usize) -> __m128i {
    // SAFETY: both types have 64 bytes, and every bit pattern is a value of both.
    let quarters = unsafe { transmute::<Block, [[u8; 16]; 4]>(*block) };
    // SAFETY: both types have 16 bytes, and every bit pattern is a value of a vector.
    let raw = unsafe { transmute::<[u8; 16], __m128i>(quarters[q]) };
    let swap = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    _mm_shuffle_epi8(raw, swap)
}
