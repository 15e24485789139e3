//! The rules for the text of a manifest (4), members of other tools included.
//!
//! A parser that skips unknown members does not look into their strings and numbers, so another
//! one would refuse a text that it takes.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// The deepest nesting; the outermost value counts as 1.
const MAX_DEPTH: usize = 64;

/// Checks that `text` is one JSON value in UTF-8: no escaped lone surrogate, no number beyond the
/// range of a 64-bit float, nested at most 64 deep.
pub(super) fn check(text: &[u8]) -> serde_json::Result<()> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    Checked { depth: 0 }.deserialize(&mut deserializer)?;
    deserializer.end()
}

/// A value of which nothing is kept.
struct Checked {
    /// Objects and arrays around this value.
    depth: usize,
}

impl Checked {
    fn inside<E: serde::de::Error>(&self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom("nested more than 64 deep"));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Checked {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element_seed(self.inside()?)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        self.inside::<A::Error>()?;
        while members.next_key_seed(Checked { depth: self.depth })?.is_some() {
            members.next_value_seed(self.inside()?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_text_is_checked() {
        assert!(check(br#"{"a": [1, -2.5e3, true, null, "\ud83d\ude00"], "a": {}} "#).is_ok());
        for bad in [
            &b"{\"a\": \"\xff\"}"[..],
            b"{\"a\xff\": 1}",
            b"{\"a\": [\"\\ud800\"]}",
            b"{\"\\udc00\": 1}",
            b"{\"a\": 1e999}",
            b"{\"a\": NaN}",
            b"{} {}",
            b"{",
            b"",
            b"\xef\xbb\xbf{}",
        ] {
            assert!(check(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn the_limit_of_depth_is_exact() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(check(nested(64).as_bytes()).is_ok());
        assert!(check(nested(65).as_bytes()).is_err());
        let object =
            |depth: usize| format!("{}{{}}{}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(check(object(64).as_bytes()).is_ok());
        assert!(check(object(65).as_bytes()).is_err());
    }
}
