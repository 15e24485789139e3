//! The checksum that a service keeps over the whole of an object.

use super::bucket::{Head, S3Store, no_length};
use super::checksum::{Checksum, RunningChecksum};
use crate::base::Result;

/// The checksum that a service keeps over all bytes of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectChecksum {
    kind: Checksum,
    value: String,
    len: u64,
    etag: Option<String>,
}

/// In the order of preference.
const KINDS: [Checksum; 3] = [Checksum::Crc64Nvme, Checksum::Crc32c, Checksum::Crc32];

impl ObjectChecksum {
    fn of(head: Head, len: u64) -> Option<Self> {
        // A composite checksum is one over the checksums of parts.
        let whole = |kind: &Checksum| {
            let value = head.checksums.get(kind.name()).filter(|value| !value.contains('-'))?;
            Some((*kind, value.clone()))
        };
        let is_md5 = |etag: &&String| {
            let digits = etag.trim_matches('"');
            digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let of_etag = || {
            let etag = head.etag.as_ref().filter(|_| !head.has_opaque_etag).filter(is_md5)?;
            Some((Checksum::Md5, format!("\"{}\"", etag.trim_matches('"'))))
        };
        let (kind, value) = KINDS.iter().find_map(whole).or_else(of_etag)?;
        Some(Self { kind, value, len, etag: head.etag })
    }

    /// Its name: `CRC64NVME`, `CRC32C`, `CRC32` or `MD5`.
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Its value, as the service prints it.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Bytes of the object.
    pub fn object_len(&self) -> u64 {
        self.len
    }

    /// The version of the object.
    pub fn etag(&self) -> Option<&str> {
        self.etag.as_deref()
    }

    /// Whether both are of one algorithm.
    pub fn is_comparable(&self, other: &Self) -> bool {
        self.kind == other.kind
    }

    /// A checksum of this algorithm, of no bytes so far.
    pub fn begin(&self) -> RunningChecksum {
        RunningChecksum::new(self.kind).expect("SHA-256 is none of the kinds")
    }
}

impl S3Store {
    /// The checksum over the whole of an object; `None` if the service keeps none, or only one over
    /// the checksums of its parts.
    pub fn whole_checksum(&self, key: &str) -> Result<Option<ObjectChecksum>> {
        let head = self.connection.wait(self.head(key))?;
        let len = head.len.ok_or_else(no_length)?;
        Ok(ObjectChecksum::of(head, len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(checksums: &[(&'static str, &str)], etag: &str, is_opaque: bool) -> Option<String> {
        let head = Head {
            etag: Some(etag.to_owned()),
            has_opaque_etag: is_opaque,
            checksums: checksums.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
            ..Head::default()
        };
        ObjectChecksum::of(head, 1).map(|it| format!("{} {}", it.name(), it.value()))
    }

    #[test]
    fn a_checksum_over_the_whole_object_is_taken_and_one_over_parts_is_not() {
        let md5 = "\"900150983cd24fb0d6963f7d28e17f72\"";
        assert_eq!(
            of(&[("CRC32", "a"), ("CRC64NVME", "b")], md5, false),
            Some("CRC64NVME b".into())
        );
        assert_eq!(
            of(&[("CRC64NVME", "b-2"), ("CRC32C", "c")], md5, false),
            Some("CRC32C c".into())
        );
        assert_eq!(of(&[("CRC32", "b-2")], md5, false), Some(format!("MD5 {md5}")));
        assert_eq!(of(&[], md5, true), None, "with KMS the ETag is no digest");
        assert_eq!(of(&[], "\"900150983cd24fb0d6963f7d28e17f72-2\"", false), None);
    }

    #[test]
    fn a_running_checksum_is_that_of_all_bytes() {
        for kind in [Checksum::Crc64Nvme, Checksum::Crc32c, Checksum::Crc32] {
            let mut running = RunningChecksum::new(kind).expect("a kind");
            running.update(b"ab");
            running.update(b"c");
            assert_eq!(running.finish(), kind.of(b"abc"));
        }
        let mut running = RunningChecksum::new(Checksum::Md5).expect("a kind");
        running.update(b"abc");
        assert_eq!(running.finish(), "\"900150983cd24fb0d6963f7d28e17f72\"");
        assert!(RunningChecksum::new(Checksum::Sha256).is_none());
    }
}
