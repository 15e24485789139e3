//! Identifiers and names, checked when they enter the program.

use std::fmt;

use super::{Error, ErrorCode, Result};

/// An AMI id: `ami-` and 8 or 17 lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageId(String);

impl ImageId {
    /// Checks `text`.
    pub fn parse(text: &str) -> Result<Self> {
        let digits = text.strip_prefix("ami-").unwrap_or("");
        let hex = digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if hex && matches!(digits.len(), 8 | 17) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::usage(
                "not an image id: an image id is `ami-` and 8 or 17 lower-case hex digits",
            )
            .at("image_id", text))
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A snapshot id. It names a volume in an archive and a file in an image directory, so only
/// letters, digits, `.`, `_` and `-` are allowed, first a letter or digit, at most 91 characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotId(String);

impl SnapshotId {
    /// Checks `text`.
    pub fn parse(text: &str) -> Result<Self> {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest =
            text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if first && rest && text.len() <= 91 {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::usage(
                "not a snapshot id: letters, digits, `.`, `_`, `-`, first a letter or digit, \
                 at most 91 characters",
            )
            .at("snapshot", text))
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the raw file and tar member: `<snapshot-id>.raw`.
    pub fn file_name(&self) -> String {
        format!("{}.raw", self.0)
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A device name as EC2 uses it, such as `/dev/xvda`. EC2 sets few rules; ours: 1 to 255 printable
/// characters without spaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceName(String);

impl DeviceName {
    /// Checks `text`.
    pub fn parse(text: &str) -> Result<Self> {
        if (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::usage(
                "not a device name: 1 to 255 printable characters without spaces, \
                 such as /dev/xvda",
            )
            .at("device", text))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks an AMI name by the rules of RegisterImage: 3 to 128 characters of letters, digits, space
/// and `( ) [ ] . / - ' @ _`.
pub fn check_image_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || " ()[]./-'@_".contains(c);
    if !(3..=128).contains(&name.chars().count()) {
        return Err(Error::usage("not an AMI name: it has to be 3 to 128 characters long")
            .code_as(ErrorCode::ImageNameMalformed)
            .at("name", name));
    }
    match name.chars().find(|c| !allowed(*c)) {
        None => Ok(()),
        Some(bad) => Err(Error::usage(
            "not an AMI name: only letters, digits, space and ( ) [ ] . / - ' @ _ are allowed",
        )
        .code_as(ErrorCode::ImageNameMalformed)
        .at("name", name)
        .at("character", bad)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_id_has_8_or_17_hex_digits() {
        assert!(ImageId::parse("ami-0123456789abcdef0").is_ok());
        assert!(ImageId::parse("ami-01234567").is_ok());
        for bad in
            ["", "ami-", "ami-0123", "ami-0123456789ABCDEF0", "snap-01234567", "ami-0123456g"]
        {
            assert!(ImageId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_snapshot_id_is_no_path() {
        assert!(SnapshotId::parse("snap-0123456789abcdef0").is_ok());
        for bad in ["", ".", "..", "../x", "a/b", "-a", ".a", "a b", "a\0", &"a".repeat(92)] {
            assert!(SnapshotId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_image_name_follows_register_image() {
        assert!(check_image_name("my image (v1.0) [x]/y-'z'@_").is_ok());
        assert!(check_image_name("ab").is_err());
        assert!(check_image_name(&"a".repeat(129)).is_err());
        assert!(check_image_name("näme").is_err());
    }
}
