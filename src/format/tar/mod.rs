//! The tar archive that stock tools see (5): headers made from names, sizes and block maps, and
//! read back.
//!
//! Headers are the tar crate's, of GNU's kind. The bytes of a header are a function of name, size
//! and block map. Reading therefore is careful, not strict: a reader makes the header again from
//! its fields and compares the bytes. It does no I/O.

mod prologue;
mod sparse;

use ::tar::{EntryType, Header};

pub use prologue::{format_text, parse_prologue, prologue, prologue_len};
pub use sparse::{VolumeHeaderReader, volume_header};

/// Bytes of a tar block: the unit of headers and of padding.
const BLOCK: usize = 512;

/// The last piece of metadata: two blocks of zeros, which end a tar archive.
pub fn trailer() -> Vec<u8> {
    vec![0; 2 * BLOCK]
}

/// A header without its checksum: mode 644, owner 0, time 0.
fn header(name: &str, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_path(name).expect("a name is one path component of at most 95 bytes");
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header
}

/// The bytes of a finished header, its checksum in the form of GNU tar: six digits, NUL, space.
fn seal(mut header: Header) -> [u8; BLOCK] {
    header.set_cksum();
    // The crate writes seven digits and NUL. The first digit is 0: 512 bytes sum up to less than
    // 8^6.
    let field = &mut header.as_old_mut().cksum;
    field.rotate_left(1);
    field[7] = b' ';
    *header.as_bytes()
}
