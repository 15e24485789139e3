//! The answer to an action as JSON, with the member names of AWS's tools.
//!
//! No element of EC2 is lost: an unknown element becomes a member too, and a value that is not of
//! its shape stays a text. Times are not converted.

use std::collections::BTreeMap;

use serde_json::Value;

use super::shapes::{self, Member, Shape};
use super::xml::{Element, malformed, parse};
use crate::base::Result;

/// Reads the answer to `action`: an object, without the id of the request.
///
/// The name of an unknown element gets a capital first letter; its value is an array if all its
/// children are called `item`, an object if it has other children, and a text otherwise.
/// A repeated element becomes an array of its values.
pub fn answer(action: &str, body: &[u8]) -> Result<Value> {
    let mut root = parse(body)?;
    // Only the ending, because an emulator may get the name wrong. Without this check the page of a
    // proxy would be an answer without images.
    if !root.name.ends_with("Response") || root.name == "Response" || root.name == "ErrorResponse" {
        return Err(malformed("is not an answer of EC2"));
    }
    root.children.retain(|child| child.name != "requestId");
    Ok(object(root, shapes::answer(action)))
}

fn value(element: Element<'_>, shape: Shape) -> Value {
    let has_text = element.children.is_empty() && !element.text.trim().is_empty();
    match shape {
        Shape::Structure(members) if !has_text => object(element, members),
        Shape::List(of) if !has_text => {
            Value::Array(element.children.into_iter().map(|child| value(child, *of)).collect())
        }
        Shape::Boolean if element.text == "true" => Value::Bool(true),
        Shape::Boolean if element.text == "false" => Value::Bool(false),
        Shape::Integer if has_text => match element.text.trim().parse::<i64>() {
            Ok(number) => number.into(),
            Err(_) => unknown(element),
        },
        _ => unknown(element),
    }
}

fn unknown(element: Element<'_>) -> Value {
    if element.children.is_empty() {
        return Value::String(element.text.into_owned());
    }
    if element.children.iter().all(|child| child.name == "item") {
        return value(element, Shape::List(&Shape::Text));
    }
    object(element, &[])
}

fn object(element: Element<'_>, members: &[Member]) -> Value {
    let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for child in element.children {
        let (name, shape) = match members.iter().find(|(element, ..)| *element == child.name) {
            Some((_, name, shape)) => ((*name).to_owned(), *shape),
            None => (capitalized(child.name), Shape::Text),
        };
        found.entry(name).or_default().push(value(child, shape));
    }
    let only =
        |mut values: Vec<Value>| if values.len() == 1 { values.remove(0) } else { joined(values) };
    Value::Object(found.into_iter().map(|(name, values)| (name, only(values))).collect())
}

/// Joins lists to one list; other values become the elements of one.
fn joined(values: Vec<Value>) -> Value {
    if values.iter().all(Value::is_array) {
        let lists = values.into_iter().flat_map(|value| match value {
            Value::Array(items) => items,
            other => vec![other],
        });
        return Value::Array(lists.collect());
    }
    Value::Array(values)
}

fn capitalized(name: &str) -> String {
    let mut rest = name.chars();
    rest.next().map(|first| first.to_uppercase().chain(rest).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(action: &str, inside: &str) -> Value {
        let body = format!(
            "<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
             <requestId>1</requestId>{inside}</{action}Response>"
        );
        answer(action, body.as_bytes()).expect("reads")
    }

    #[test]
    fn unknown_elements_stay() {
        let value = read(
            "DescribeImages",
            "<imagesSet><item><imageId>ami-1</imageId><newText>a</newText><newNothing/>\
             <newSet><item><x>1</x></item><item><y>2</y></item></newSet>\
             <newThing><item>1</item><other>2</other></newThing><again>1</again><again>2</again>\
             </item></imagesSet><newList><item>a</item></newList>",
        );
        let image = json!({
            "ImageId": "ami-1", "NewText": "a", "NewNothing": "",
            "NewSet": [{"X": "1"}, {"Y": "2"}], "NewThing": {"Item": "1", "Other": "2"},
            "Again": ["1", "2"],
        });
        assert_eq!(value, json!({"Images": [image], "NewList": ["a"]}));
    }

    #[test]
    fn values_of_another_shape_stay() {
        let ebs = "<volumeSize>big</volumeSize><iops/>\
                   <encrypted>maybe</encrypted><throughput><x>1</x></throughput>";
        let mapping = format!("<item><ebs>{ebs}</ebs></item><item><ebs>none</ebs></item>");
        let value = read(
            "DescribeImages",
            &format!(
                "<imagesSet><item><blockDeviceMapping>{mapping}</blockDeviceMapping>\
                 <tagSet>t</tagSet></item></imagesSet>"
            ),
        );
        let ebs = json!({
            "VolumeSize": "big", "Iops": "", "Encrypted": "maybe", "Throughput": {"X": "1"},
        });
        assert_eq!(
            value["Images"][0],
            json!({"BlockDeviceMappings": [{"Ebs": ebs}, {"Ebs": "none"}], "Tags": "t"})
        );
    }

    #[test]
    fn numbers_have_64_bits_and_space_around_them() {
        let value = read(
            "DescribeSnapshots",
            "<snapshotSet><item>\
             <fullSnapshotSizeInBytes> 9223372036854775807\n</fullSnapshotSizeInBytes>\
             <volumeSize>9223372036854775808</volumeSize></item></snapshotSet>",
        );
        assert_eq!(
            value["Snapshots"][0],
            json!({"FullSnapshotSizeInBytes": i64::MAX, "VolumeSize": "9223372036854775808"})
        );
    }

    #[test]
    fn repeated_lists_are_one_list() {
        let value = read(
            "DescribeTags",
            "<tagSet><item><key>a</key></item></tagSet><tagSet><item><key>b</key></item></tagSet>",
        );
        assert_eq!(value, json!({"Tags": [{"Key": "a"}, {"Key": "b"}]}));
    }

    #[test]
    fn pages_of_proxies_are_not_answers() {
        for page in [
            "<html><body>Log in</body></html>",
            "<Response><Errors/></Response>",
            "<ErrorResponse/>",
        ] {
            assert!(answer("DescribeImages", page.as_bytes()).is_err(), "{page}");
        }
        assert_eq!(
            answer("DescribeImages", b"<DescribeImagesResponse/>").expect("reads"),
            json!({})
        );
    }
}
