//! Checksums of S3: in headers and trailers of requests, of parts, and of objects.

use base64_simd::STANDARD as BASE64;
use crc_fast::{CrcAlgorithm, checksum};
use hyper::HeaderMap;
use s3s::crypto::{Checksum as _, Md5, Sha1, Sha256};
use s3s::{S3Result, TrailingHeaders, s3_error};

/// Algorithm of a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    Crc64Nvme,
    Crc32,
    Crc32c,
    Sha1,
    Sha256,
}

/// Type of a checksum: of all bytes of an object, or of the checksums of its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumKind {
    FullObject,
    Composite,
}

/// A stored checksum: base64, with `-N` behind it if it is made of `N` checksums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    pub algorithm: Algorithm,
    pub value: String,
    pub kind: ChecksumKind,
}

impl Algorithm {
    const ALL: [Self; 5] = [Self::Crc64Nvme, Self::Crc32, Self::Crc32c, Self::Sha1, Self::Sha256];

    pub fn name(self) -> &'static str {
        match self {
            Self::Crc64Nvme => "CRC64NVME",
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    pub fn parse(name: &str) -> S3Result<Self> {
        let known = Self::ALL.into_iter().find(|algorithm| algorithm.name() == name);
        known.ok_or_else(|| {
            s3_error!(InvalidRequest, "Checksum algorithm provided is unsupported: {name}")
        })
    }

    fn header(self) -> String {
        format!("x-amz-checksum-{}", self.name().to_ascii_lowercase())
    }

    /// The checksum of bytes, in base64.
    pub fn of(self, bytes: &[u8]) -> String {
        let crc32 =
            |algorithm| BASE64.encode_to_string((checksum(algorithm, bytes) as u32).to_be_bytes());
        match self {
            Self::Crc64Nvme => {
                BASE64.encode_to_string(checksum(CrcAlgorithm::Crc64Nvme, bytes).to_be_bytes())
            }
            Self::Crc32 => crc32(CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => crc32(CrcAlgorithm::Crc32Iscsi),
            Self::Sha1 => BASE64.encode_to_string(Sha1::checksum(bytes)),
            Self::Sha256 => BASE64.encode_to_string(Sha256::checksum(bytes)),
        }
    }

    /// The checksum of the checksums of parts.
    pub fn composite(self, parts: &[&str]) -> S3Result<String> {
        let mut all = Vec::new();
        for part in parts {
            all.extend(
                BASE64.decode_to_vec(part).map_err(|cause| s3_error!(cause, InternalError))?,
            );
        }
        Ok(format!("{}-{}", self.of(&all), parts.len()))
    }

    /// The checksum type of an upload, by default that of its algorithm. Only CRCs of parts combine
    /// to the CRC of the object.
    pub fn kind(self, named: Option<&str>) -> S3Result<ChecksumKind> {
        let kind = match named {
            Some("FULL_OBJECT") => ChecksumKind::FullObject,
            Some("COMPOSITE") => ChecksumKind::Composite,
            Some(other) => {
                return Err(s3_error!(
                    InvalidRequest,
                    "Value for x-amz-checksum-type header is invalid: {other}"
                ));
            }
            None if self == Self::Crc64Nvme => ChecksumKind::FullObject,
            None => ChecksumKind::Composite,
        };
        let possible = match self {
            Self::Crc64Nvme => kind == ChecksumKind::FullObject,
            Self::Crc32 | Self::Crc32c => true,
            Self::Sha1 | Self::Sha256 => kind == ChecksumKind::Composite,
        };
        if !possible {
            let (kind, name) = (kind.name(), self.name());
            return Err(s3_error!(
                InvalidRequest,
                "The {kind} checksum type cannot be used with the {name} checksum algorithm."
            ));
        }
        Ok(kind)
    }
}

impl ChecksumKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::FullObject => "FULL_OBJECT",
            Self::Composite => "COMPOSITE",
        }
    }
}

impl Checksum {
    /// The checksum of all bytes of an object.
    pub fn full(algorithm: Algorithm, bytes: &[u8]) -> Self {
        Self { algorithm, value: algorithm.of(bytes), kind: ChecksumKind::FullObject }
    }
}

/// The checksum of a request, in a header or a trailer.
pub fn given(
    headers: &HeaderMap,
    trailers: Option<&TrailingHeaders>,
) -> S3Result<Option<(Algorithm, String)>> {
    let behind = trailers.and_then(TrailingHeaders::take).unwrap_or_default();
    let mut all = Vec::new();
    for algorithm in Algorithm::ALL {
        let name = algorithm.header();
        let values = headers.get_all(&name).iter().chain(behind.get_all(&name));
        all.extend(
            values.map(|value| (algorithm, String::from_utf8_lossy(value.as_bytes()).into_owned())),
        );
    }
    if all.len() > 1 {
        return Err(s3_error!(
            InvalidRequest,
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        ));
    }
    let announced = headers.get("x-amz-sdk-checksum-algorithm").and_then(|name| name.to_str().ok());
    if announced.is_some_and(|name| name != "MD5") && all.is_empty() {
        let message = "x-amz-sdk-checksum-algorithm specified, but no corresponding \
                       x-amz-checksum-* or x-amz-trailer headers were found.";
        return Err(s3_error!(InvalidRequest, "{message}"));
    }
    Ok(all.pop())
}

/// Compares bytes with the checksum of their request.
pub fn verify(given: Option<&(Algorithm, String)>, bytes: &[u8]) -> S3Result<()> {
    match given {
        Some((algorithm, value)) if algorithm.of(bytes) != *value => Err(s3_error!(
            BadDigest,
            "The {} you specified did not match the calculated checksum.",
            algorithm.name()
        )),
        _ => Ok(()),
    }
}

/// Compares bytes with a `Content-MD5` header, and gives their MD5.
pub fn md5(bytes: &[u8], header: Option<&str>) -> S3Result<[u8; 16]> {
    let md5 = Md5::checksum(bytes);
    if let Some(header) = header {
        let expected = BASE64.decode_to_vec(header).ok().filter(|expected| expected.len() == 16);
        let expected = expected.ok_or_else(|| {
            s3_error!(InvalidDigest, "The Content-MD5 you specified was invalid.")
        })?;
        if expected != md5 {
            return Err(s3_error!(
                BadDigest,
                "The Content-MD5 you specified did not match what we received."
            ));
        }
    }
    Ok(md5)
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 of a body, as `x-amz-content-sha256` gives it.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::checksum(bytes))
}
