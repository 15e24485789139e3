//! User metadata and tags, encoded for HTTP headers.
//!
//! Header values are ASCII; other text is encoded by RFC 2047, as S3 returns it.
//! All names and values together have at most 2 KiB.

use std::collections::BTreeMap;

use percent_encoding::utf8_percent_encode;

use super::super::base64;
use super::super::percent::RESERVED;
use crate::base::{Error, ErrorKind, Result};

/// S3 counts the bytes of names and values.
const LIMIT: usize = 2048;
/// Bytes of text in one encoded word: 75 characters less `=?UTF-8?B?` and `?=`, in base64.
const WORD: usize = 45;
/// Members that are shortened when the metadata is too long, in this order.
const SHORTENED: [&str; 2] = ["ami-description", "ami-name"];

/// Encodes metadata. Some members are shortened if it is too long, which is no loss, because the
/// archive has all of it; otherwise it is an error of kind `Limit`.
pub fn encode_metadata(metadata: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let mut encoded: BTreeMap<String, String> =
        metadata.iter().map(|(name, value)| (name.clone(), encode(value))).collect();
    for name in SHORTENED {
        let over = size(&encoded).saturating_sub(LIMIT);
        if over == 0 {
            break;
        }
        if let (Some(value), Some(shown)) = (metadata.get(name), encoded.get_mut(name)) {
            let room = shown.len().saturating_sub(over);
            *shown = shortened(value, room);
        }
    }
    match size(&encoded) {
        0..=LIMIT => Ok(encoded),
        size => {
            Err(Error::new(ErrorKind::Limit, "the metadata of the object is longer than S3 keeps")
                .at("bytes", size)
                .at("limit", LIMIT))
        }
    }
}

/// Decodes metadata.
pub fn decode_metadata(metadata: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    metadata.iter().map(|(name, value)| (name.to_ascii_lowercase(), decode(value))).collect()
}

fn size(metadata: &BTreeMap<String, String>) -> usize {
    metadata.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// The longest beginning of `value` that takes at most `room` bytes when encoded.
fn shortened(value: &str, room: usize) -> String {
    let ends = value.char_indices().map(|(at, _)| at).chain([value.len()]);
    let ends: Vec<usize> = ends.collect();
    let fit = ends.partition_point(|end| encode(&value[..*end]).len() <= room);
    encode(&value[..ends[fit.saturating_sub(1)]])
}

fn is_plain(value: &str) -> bool {
    // A value that looks encoded would be decoded; blanks at the ends would be lost.
    value.bytes().all(|byte| (0x20..0x7F).contains(&byte))
        && !value.contains("=?")
        && value.trim() == value
}

fn encode(value: &str) -> String {
    if is_plain(value) {
        return value.to_owned();
    }
    let mut words = Vec::new();
    let mut rest = value;
    while !rest.is_empty() {
        let mut end = rest.len().min(WORD);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (word, after) = rest.split_at(end);
        words.push(format!("=?UTF-8?B?{}?=", base64::encode(word.as_bytes())));
        rest = after;
    }
    words.join(" ")
}

fn decode(value: &str) -> String {
    let mut text = String::new();
    let mut rest = value;
    let mut after_word = false;
    while let Some(start) = rest.find("=?") {
        let Some((word, behind)) = word(&rest[start..]) else { break };
        // Blanks between two encoded words are not part of the text.
        if !(after_word && rest[..start].trim().is_empty()) {
            text.push_str(&rest[..start]);
        }
        text.push_str(&word);
        after_word = true;
        rest = behind;
    }
    text.push_str(rest);
    text
}

/// Decodes the encoded word at the start of `text`; returns it and the rest.
fn word(text: &str) -> Option<(String, &str)> {
    let mut fields = text.strip_prefix("=?")?.splitn(3, '?');
    let (charset, coding, rest) = (fields.next()?, fields.next()?, fields.next()?);
    let (payload, behind) = rest.split_once("?=")?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    let bytes = match coding {
        "B" | "b" => base64::decode(payload)?,
        "Q" | "q" => decode_quoted(payload)?,
        _ => return None,
    };
    Some((String::from_utf8(bytes).ok()?, behind))
}

fn decode_quoted(payload: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = payload.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'_' => b' ',
            b'=' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    Some(bytes)
}

/// The value of the header `x-amz-tagging`: the tags as a query. `None` without tags.
pub(super) fn encode_tags(tags: &BTreeMap<String, String>) -> Option<String> {
    let pairs: Vec<String> = tags
        .iter()
        .map(|(key, value)| {
            let (key, value) =
                (utf8_percent_encode(key, RESERVED), utf8_percent_encode(value, RESERVED));
            format!("{key}={value}")
        })
        .collect();
    (!pairs.is_empty()).then(|| pairs.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn any_text_comes_back() {
        let long = "Üñïçødé 漢字 🦀 ".repeat(12);
        for text in ["plain", "", "  blanks ", "=?UTF-8?B?x?=", "tab\tand\nnewline", "naïve", &long]
        {
            let sent = encode(text);
            assert!(sent.bytes().all(|byte| (0x20..0x7F).contains(&byte)), "{sent}");
            assert_eq!(decode(&sent), text);
        }
        assert_eq!(decode("=?UTF-8?Q?na=C3=AFve_x?="), "naïve x");
        assert_eq!(decode("=?broken"), "=?broken");
    }

    #[test]
    fn too_long_a_description_is_shortened_and_the_rest_stays() {
        let long = "🦀".repeat(600);
        let sent = encode_metadata(&metadata(&[
            ("ami-name", "ämi"),
            ("ami-description", &long),
            ("ami-store-date", "x"),
        ]))
        .expect("fits");
        assert!(size(&sent) <= LIMIT);
        let back = decode_metadata(&sent);
        assert_eq!(back["ami-name"], "ämi");
        assert!(long.starts_with(&back["ami-description"]) && back["ami-description"].len() > 1000);
        let other = "x".repeat(LIMIT);
        assert_eq!(
            encode_metadata(&metadata(&[("other", &other)])).expect_err("too long").kind(),
            ErrorKind::Limit
        );
    }

    #[test]
    fn tags_are_a_query() {
        assert_eq!(
            encode_tags(&metadata(&[("a b", "ü&="), ("k", "")])).as_deref(),
            Some("a%20b=%C3%BC%26%3D&k=")
        );
        assert_eq!(encode_tags(&BTreeMap::new()), None);
    }
}
