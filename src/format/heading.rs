//! The members of a manifest that decide whether this version understands the others (4).
//!
//! Each of them, type and value, is judged before the next one and before any other member: the
//! other members of another version are unknown.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::layout::{FORMAT_NAME, FORMAT_VERSION};
use crate::base::{BLOCK_BYTES, CELL_BLOCKS, Error, ErrorCode, GROUP_BLOCKS, Result};

/// The members of a heading, and of the `codec` in it.
const MEMBERS: [&str; 8] = [
    "format",
    "version",
    "features",
    "codec",
    "name",
    "block_size",
    "cell_blocks",
    "window_blocks",
];

/// Checks that a manifest is of this format and version, and has no unknown feature, codec or
/// geometry. Another one is an error of kind `Unsupported`, a member that is missing, occurs twice
/// or has another type one of kind `Corrupt`. `json` was [checked](super::json::check).
pub(super) fn check(json: &[u8]) -> Result<()> {
    let heading: Loose = serde_json::from_slice(json).map_err(|cause| {
        Error::corrupt("the manifest is not JSON in the form of the format").because(cause)
    })?;
    let wrong = |member: &str| {
        Error::corrupt("a member of the manifest is missing, occurs twice or has another type")
            .at("member", member)
    };
    match heading.member("format") {
        Some(Loose::Text(format)) if format == FORMAT_NAME => {}
        Some(Loose::Text(format)) => {
            return Err(Error::corrupt("the manifest names another format").at("format", format));
        }
        _ => return Err(wrong("format")),
    }
    match heading.member("version") {
        Some(Loose::Number(FORMAT_VERSION)) => {}
        Some(Loose::Number(version)) => {
            return Err(Error::unsupported("the archive has another format version")
                .code_as(ErrorCode::NewerFormat)
                .at("version", version)
                .at("supported", FORMAT_VERSION));
        }
        _ => return Err(wrong("version")),
    }
    match heading.member("features") {
        Some(Loose::Texts(None)) => {}
        Some(Loose::Texts(Some(feature))) => {
            return Err(Error::unsupported(
                "the archive uses a feature that this version does not know",
            )
            .code_as(ErrorCode::NewerFormat)
            .at("feature", feature));
        }
        _ => return Err(wrong("features")),
    }
    match heading.member("codec").and_then(|codec| codec.member("name")) {
        Some(Loose::Text(codec)) if codec == "zstd" => {}
        Some(Loose::Text(codec)) => {
            return Err(Error::unsupported("the archive is compressed by another codec than zstd")
                .at("codec", codec));
        }
        _ => return Err(wrong("codec.name")),
    }
    for (member, expected) in [
        ("block_size", BLOCK_BYTES),
        ("cell_blocks", CELL_BLOCKS.into()),
        ("window_blocks", GROUP_BLOCKS.into()),
    ] {
        match heading.member(member) {
            Some(Loose::Number(value)) if *value == expected => {}
            Some(Loose::Number(_)) => {
                return Err(Error::unsupported(
                    "the archive has another geometry than 512 KiB blocks, 8 a cell, 32,768 a \
                     group",
                ));
            }
            _ => return Err(wrong(member)),
        }
    }
    Ok(())
}

/// A value as far as a heading is judged: wrong types are no error before their turn.
enum Loose {
    Number(u64),
    Text(String),
    /// An array of strings; the first one, if there is one: a hostile manifest may list millions,
    /// and one is enough to stop.
    Texts(Option<String>),
    /// The [`MEMBERS`] in an object.
    Members(BTreeMap<&'static str, Loose>),
    /// A value of another type, or a member that occurs twice.
    Other,
}

impl Loose {
    fn member(&self, name: &str) -> Option<&Self> {
        if let Self::Members(members) = self { members.get(name) } else { None }
    }
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Loose;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Loose, E> {
        Ok(Loose::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Loose, E> {
        Ok(Loose::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Loose, A::Error> {
        let (mut first, mut all_texts) = (None, true);
        while let Some(element) = elements.next_element::<Loose>()? {
            match element {
                Loose::Text(text) => _ = first.get_or_insert(text),
                _ => all_texts = false,
            }
        }
        Ok(if all_texts { Loose::Texts(first) } else { Loose::Other })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Loose, A::Error> {
        let mut known = BTreeMap::new();
        while let Some(name) = members.next_key::<String>()? {
            let Some(name) = MEMBERS.into_iter().find(|known| *known == name) else {
                members.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = members.next_value()?;
            let twice = known.contains_key(name);
            known.insert(name, if twice { Loose::Other } else { value });
        }
        Ok(Loose::Members(known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;

    const GOOD: &str = concat!(
        r#"{"format":"amibin","version":1,"features":[],"codec":{"name":"zstd"},"#,
        r#""block_size":524288,"cell_blocks":8,"window_blocks":32768}"#
    );

    #[test]
    fn members_are_judged_one_after_the_other() {
        check(GOOD.as_bytes()).expect("a heading of this version");
        let (corrupt, unsupported) = (ErrorKind::Corrupt, ErrorKind::Unsupported);
        for (changes, expected) in [
            (&[("\"amibin\"", "\"tar\""), ("version\":1", "version\":2")][..], corrupt),
            (&[("\"amibin\"", "7")], corrupt),
            (&[("version\":1", "version\":2"), ("[]", "{}")], unsupported),
            (&[("version\":1", "version\":2"), ("524288", "\"x\"")], unsupported),
            (&[("version\":1", "version\":-0")], corrupt),
            (&[("version\":1", "version\":1.0")], corrupt),
            (&[("version\":1", "version\":1,\"version\":1")], corrupt),
            (&[("[]", "[\"a\",\"b\"]"), ("\"zstd\"", "1")], unsupported),
            (&[("[]", "[\"a\",1]")], corrupt),
            (&[("[]", "null")], corrupt),
            (&[("\"zstd\"", "\"lz4\""), ("524288", "4096")], unsupported),
            (&[("{\"name\":\"zstd\"}", "{\"name\":\"lz4\",\"level\":\"x\"}")], unsupported),
            (&[("{\"name\":\"zstd\"}", "{\"name\":\"lz4\",\"name\":\"zstd\"}")], corrupt),
            (&[("{\"name\":\"zstd\"}", "\"zstd\"")], corrupt),
            (&[("524288", "4096")], unsupported),
            (&[("32768", "true")], corrupt),
        ] {
            let mut json = GOOD.to_owned();
            for (old, new) in changes {
                assert!(json.contains(old), "{old}");
                json = json.replacen(old, new, 1);
            }
            assert_eq!(check(json.as_bytes()).expect_err(&json).kind(), expected, "{json}");
        }
    }
}
