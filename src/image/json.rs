//! The strict JSON of the format: no duplicate members, bounded depth, bounded number of values.
//!
//! Readers differ in which of two equal members they take, so two tools would see two documents.
//! And 8 MiB of `[[],[],…` compress to a few bytes, but take a hundred times their length as
//! values.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// The most values of a document: itself, members and elements at every level.
const MAX_VALUES: usize = 65_536;
/// The deepest nesting; the outermost value counts as 1.
const MAX_DEPTH: usize = 64;

/// Reads a document. Memory is bounded by the limits above and the document's length.
pub(super) fn parse(bytes: &[u8]) -> serde_json::Result<Value> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let mut left = MAX_VALUES;
    let value = Strict { left: &mut left, depth: 0 }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

struct Strict<'a> {
    /// Remaining number of values.
    left: &'a mut usize,
    /// Objects and arrays around this value.
    depth: usize,
}

impl Strict<'_> {
    fn count<E: serde::de::Error>(&mut self) -> Result<(), E> {
        *self.left =
            self.left.checked_sub(1).ok_or_else(|| E::custom("more than 65,536 values"))?;
        Ok(())
    }

    fn inside<E: serde::de::Error>(&mut self) -> Result<Strict<'_>, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom("nested more than 64 deep"));
        }
        Ok(Strict { left: self.left, depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<Value, D::Error> {
        self.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        loop {
            match elements.next_element_seed(self.inside()?)? {
                Some(element) => array.push(element),
                None => return Ok(Value::Array(array)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        self.inside::<A::Error>()?;
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(self.inside()?)?;
            if object.contains_key(&name) {
                return Err(A::Error::custom(format!(
                    "the member {name:?} stands twice in one object"
                )));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_exact() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(64).as_bytes()).is_ok());
        let object =
            |depth: usize| format!("{}{{}}{}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(parse(object(64).as_bytes()).is_ok());
        assert!(parse(object(65).as_bytes()).expect_err("deep").to_string().contains("64 deep"));
        assert!(parse(nested(65).as_bytes()).expect_err("deep").to_string().contains("64 deep"));
        let many = |values: usize| format!("[{}0]", "0,".repeat(values - 2));
        assert!(parse(many(65_536).as_bytes()).is_ok());
        assert!(parse(many(65_537).as_bytes()).expect_err("many").to_string().contains("65,536"));
    }

    #[test]
    fn a_member_stands_once_in_its_object() {
        assert!(parse(br#"{"a": {"b": 1}, "b": [{"b": 1}, {"b": 2}]}"#).is_ok());
        assert!(
            parse(br#"{"a": [{"b": 1, "c": 2, "b": 3}]}"#)
                .expect_err("twice")
                .to_string()
                .contains("\"b\" stands twice")
        );
    }

    #[test]
    fn nothing_follows_the_document() {
        assert!(parse(b"{} ").is_ok());
        for bad in [
            "{} {}",
            "{",
            "",
            "{\"a\": NaN}",
            "{\"a\": 1e999}",
            "{\"a\": \"\\ud800\"}",
            "\u{feff}{}",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
