//! Checksums of parts, which the service verifies and stores with the object.

use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType};
use crc_fast::{CrcAlgorithm, Digest as Crc, checksum_combine};
use md5::{Digest, Md5};

use super::super::base64;
use crate::base::{Error, Result};
use crate::codec::sha256;

/// A checksum algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// CRC-64/NVME over the whole object: S3's default, cheap, and combined from the parts
    /// instead of computed twice.
    #[default]
    Crc64Nvme,
    /// CRC-32C over the whole object.
    Crc32c,
    /// CRC-32 over the whole object.
    Crc32,
    /// SHA-256 of each part, and of these digests.
    Sha256,
    /// MD5 of each part, for stores without other checksums: the object's ETag derives from it.
    Md5,
}

impl Checksum {
    /// All algorithms by their names.
    pub const ALL: [(&'static str, Checksum); 5] = [
        ("CRC64NVME", Self::Crc64Nvme),
        ("CRC32C", Self::Crc32c),
        ("CRC32", Self::Crc32),
        ("SHA256", Self::Sha256),
        ("MD5", Self::Md5),
    ];

    /// The name, as AWS writes it.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, checksum)| *checksum == self).map_or("", |(name, _)| name)
    }

    /// The checksum of this name, in any case.
    pub fn parse(name: &str) -> Result<Self> {
        let found = Self::ALL.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found
            .map(|(_, checksum)| *checksum)
            .ok_or_else(|| Error::usage("not a checksum that is known here").at("given", name))
    }

    /// The SDK's value; `None` for MD5, which has none.
    pub(super) fn algorithm(self) -> Option<ChecksumAlgorithm> {
        match self {
            Self::Crc64Nvme => Some(ChecksumAlgorithm::Crc64Nvme),
            Self::Crc32c => Some(ChecksumAlgorithm::Crc32C),
            Self::Crc32 => Some(ChecksumAlgorithm::Crc32),
            Self::Sha256 => Some(ChecksumAlgorithm::Sha256),
            Self::Md5 => None,
        }
    }

    /// Whether the service stores it for the whole object or for the list of its parts.
    pub(super) fn kind(self) -> Option<ChecksumType> {
        match self {
            Self::Crc64Nvme | Self::Crc32c | Self::Crc32 => Some(ChecksumType::FullObject),
            Self::Sha256 => Some(ChecksumType::Composite),
            Self::Md5 => None,
        }
    }

    fn crc(self) -> Option<(CrcAlgorithm, usize)> {
        match self {
            Self::Crc64Nvme => Some((CrcAlgorithm::Crc64Nvme, 8)),
            Self::Crc32c => Some((CrcAlgorithm::Crc32Iscsi, 4)),
            Self::Crc32 => Some((CrcAlgorithm::Crc32IsoHdlc, 4)),
            Self::Sha256 | Self::Md5 => None,
        }
    }

    /// The checksum of `bytes` as a header value: base64, big-endian.
    pub(super) fn of(self, bytes: &[u8]) -> String {
        match self.crc() {
            Some((algorithm, width)) => {
                let mut crc = Crc::new(algorithm);
                crc.update(bytes);
                encode_crc(crc.finalize(), width)
            }
            None if self == Self::Md5 => base64::encode(&Md5::digest(bytes)),
            None => base64::encode(&sha256::digest(bytes)),
        }
    }

    /// Combines the checksums and lengths of parts to that of the object, as the service prints it.
    /// For MD5 it is the ETag.
    pub(super) fn of_object<'a>(
        self,
        parts: impl IntoIterator<Item = (&'a str, u64)>,
    ) -> Result<String> {
        let wrong = || Error::internal("the checksum of a part cannot be read");
        let parts =
            parts.into_iter().map(|(text, len)| Ok((base64::decode(text).ok_or_else(wrong)?, len)));
        if let Some((algorithm, width)) = self.crc() {
            let mut whole = None;
            for part in parts {
                let (bytes, len) = part?;
                let crc = bytes.iter().fold(0, |crc: u64, byte| crc << 8 | u64::from(*byte));
                whole =
                    Some(whole.map_or(crc, |before| checksum_combine(algorithm, before, crc, len)));
            }
            let empty = || Crc::new(algorithm).finalize();
            return Ok(encode_crc(whole.unwrap_or_else(empty), width));
        }
        let digests = parts.map(|part| part.map(|(bytes, _)| bytes)).collect::<Result<Vec<_>>>()?;
        let all = digests.concat();
        Ok(match self {
            Self::Md5 => format!("\"{}-{}\"", crate::base::hex(&Md5::digest(&all)), digests.len()),
            _ => format!("{}-{}", base64::encode(&sha256::digest(&all)), digests.len()),
        })
    }
}

/// A checksum of bytes that arrive in pieces: a CRC, or MD5 as an ETag.
pub struct RunningChecksum(Running);

enum Running {
    Crc(Box<Crc>, usize),
    Md5(Md5),
}

impl RunningChecksum {
    /// `None` for SHA-256, which services keep over the whole of few objects.
    pub(super) fn new(checksum: Checksum) -> Option<Self> {
        match checksum.crc() {
            Some((algorithm, width)) => {
                Some(Self(Running::Crc(Box::new(Crc::new(algorithm)), width)))
            }
            None => (checksum == Checksum::Md5).then(|| Self(Running::Md5(Md5::new()))),
        }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Running::Crc(crc, _) => crc.update(bytes),
            Running::Md5(md5) => md5.update(bytes),
        }
    }

    /// The checksum, as the service prints it.
    pub fn finish(self) -> String {
        match self.0 {
            Running::Crc(crc, width) => encode_crc(crc.finalize(), width),
            Running::Md5(md5) => format!("\"{}\"", crate::base::hex(&md5.finalize())),
        }
    }
}

fn encode_crc(crc: u64, width: usize) -> String {
    base64::encode(&crc.to_be_bytes()[8 - width..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_values_of_the_standards() {
        let of = |checksum: Checksum| {
            crate::base::hex(&base64::decode(&checksum.of(b"123456789")).expect("base64"))
        };
        assert_eq!(of(Checksum::Crc64Nvme), "ae8b14860a799888");
        assert_eq!(of(Checksum::Crc32c), "e3069283");
        assert_eq!(of(Checksum::Crc32), "cbf43926");
        assert_eq!(of(Checksum::Md5), "25f9e794323b453885f5181f1b624d0b");
        assert!(of(Checksum::Sha256).starts_with("15e2b0d3c33891eb"));
    }

    #[test]
    fn parts_are_combined_into_the_checksum_of_the_whole() {
        let bytes: Vec<u8> = (0..10_000u32).map(|n| (n * n) as u8).collect();
        for checksum in [Checksum::Crc64Nvme, Checksum::Crc32c, Checksum::Crc32] {
            for cuts in [
                vec![0, 10_000],
                vec![0, 1, 5000, 10_000],
                vec![0, 9999, 10_000],
                vec![0, 4096, 8192, 10_000],
            ] {
                let parts: Vec<_> = cuts
                    .windows(2)
                    .map(|cut| (checksum.of(&bytes[cut[0]..cut[1]]), (cut[1] - cut[0]) as u64))
                    .collect();
                let whole = checksum
                    .of_object(parts.iter().map(|(text, len)| (text.as_str(), *len)))
                    .expect("combines");
                assert_eq!(whole, checksum.of(&bytes), "{checksum:?} {cuts:?}");
            }
        }
    }

    #[test]
    fn composite_checksums_say_of_how_many_parts_they_are() {
        let part = Checksum::Sha256.of(b"x");
        assert!(
            Checksum::Sha256
                .of_object([(part.as_str(), 1), (part.as_str(), 1)])
                .expect("combines")
                .ends_with("-2")
        );
    }
}
