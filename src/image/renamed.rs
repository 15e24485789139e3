//! An `image.json` with another AMI name: the bytes of the name are replaced, all others stay.

use std::ops::Range;

use serde_json::Value;

/// The document with `name` as `Image.Name`; `None` if it has no image. `document` is a JSON object
/// that was parsed without an error.
pub(super) fn with_name(document: &[u8], name: &str) -> Option<Vec<u8>> {
    let image = member(document, 0, "Image").filter(|image| document[image.start] == b'{')?;
    let name = Value::from(name).to_string();
    let (replaced, by) = match member(document, image.start, "Name") {
        Some(old) => (old, name),
        None => {
            // An image has an `ImageId` at least, before which a comma belongs.
            let first = image.start + 1;
            (first..first, format!("\"Name\": {name}, "))
        }
    };
    Some([&document[..replaced.start], by.as_bytes(), &document[replaced.end..]].concat())
}

/// The bytes of the value of a member of the object that is the first value from `at`.
fn member(bytes: &[u8], at: usize, name: &str) -> Option<Range<usize>> {
    let mut at = after_space(bytes, at);
    if bytes.get(at) != Some(&b'{') {
        return None;
    }
    loop {
        // Behind the brace or comma.
        let key = value(bytes, at + 1)?;
        let is_it = serde_json::from_slice::<String>(&bytes[key.clone()]).ok()? == name;
        let colon = after_space(bytes, key.end);
        let found = value(bytes, colon + 1)?;
        if is_it {
            return Some(found);
        }
        at = after_space(bytes, found.end);
        if bytes.get(at) != Some(&b',') {
            return None;
        }
    }
}

fn after_space(bytes: &[u8], at: usize) -> usize {
    let space = bytes[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    at + space
}

/// The bytes of the first value from `at`; `None` where an object ends instead.
fn value(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let start = after_space(bytes, at);
    let (mut at, mut depth) = (start, 0_usize);
    loop {
        match bytes.get(at)? {
            b'"' => at = string_end(bytes, at)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
                continue;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                at += 1;
            }
            // A number or a word, or what is between the values of an array or object.
            _ => at += 1,
        }
        let ends = match bytes.get(at) {
            None | Some(b',' | b':' | b'}' | b']') => true,
            Some(byte) => byte.is_ascii_whitespace(),
        };
        if depth == 0 && ends {
            return Some(start..at);
        }
    }
}

/// The offset behind the string that begins at `at`.
fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        match bytes.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bytes_of_the_name_change() {
        for (document, renamed) in [
            (
                r#" { "Image" : {"Tags": [{"Name": "}"}], "Name" :"o\"," , "N": 1.50 } }"#,
                r#" { "Image" : {"Tags": [{"Name": "}"}], "Name" :"new" , "N": 1.50 } }"#,
            ),
            (
                r#"{"a" : [1.50, {"Name": "x"}], "Image":{"Name":null}}"#,
                r#"{"a" : [1.50, {"Name": "x"}], "Image":{"Name":"new"}}"#,
            ),
            (
                r#"{"\u0049mage":{"\\":"{","N\u0061me":null},"Name":"top"}"#,
                r#"{"\u0049mage":{"\\":"{","N\u0061me":"new"},"Name":"top"}"#,
            ),
            (
                r#"{"Snapshots":[],"Image":{"ImageId":"ami-01234567","E":[ ]}}"#,
                r#"{"Snapshots":[],"Image":{"Name": "new", "ImageId":"ami-01234567","E":[ ]}}"#,
            ),
        ] {
            let bytes = with_name(document.as_bytes(), "new").expect("an image");
            assert_eq!(String::from_utf8_lossy(&bytes), renamed);
            assert!(serde_json::from_slice::<Value>(&bytes).is_ok());
        }
    }

    #[test]
    fn a_document_without_an_image_has_no_name() {
        for document in ["{}", r#"{"Snapshots": [{"Image": {}}]}"#, r#"{"Image": 5}"#] {
            assert_eq!(with_name(document.as_bytes(), "new"), None, "{document}");
        }
    }
}
