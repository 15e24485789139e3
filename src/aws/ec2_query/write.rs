//! Answers in EC2's XML, for a server of the protocol.
//!
//! The output is well-formed for every text: markup is escaped, and a character that XML 1.0 cannot
//! carry becomes U+FFFD.

use std::fmt::{Display, Write};

use super::VERSION;

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// Elements of an answer, in the order they are written.
#[derive(Clone, Debug, Default)]
pub struct Xml(String);

impl Xml {
    /// No elements.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `<name>text</name>`.
    #[must_use]
    pub fn text(mut self, name: &str, text: impl Display) -> Self {
        _ = write!(self.0, "<{name}>");
        escape(&mut self.0, &text.to_string());
        _ = write!(self.0, "</{name}>");
        self
    }

    /// Adds `<name>text</name>` if there is a text; `None` adds no element.
    #[must_use]
    pub fn text_some(self, name: &str, text: Option<impl Display>) -> Self {
        match text {
            Some(text) => self.text(name, text),
            None => self,
        }
    }

    /// Adds an element with others in it.
    #[must_use]
    pub fn inside(mut self, name: &str, inner: &Xml) -> Self {
        if inner.0.is_empty() {
            _ = write!(self.0, "<{name}/>");
        } else {
            _ = write!(self.0, "<{name}>{}</{name}>", inner.0);
        }
        self
    }

    /// Adds a list. An empty list has its element too: some clients take a missing list for a
    /// missing answer.
    #[must_use]
    pub fn list(self, name: &str, items: impl IntoIterator<Item = Xml>) -> Self {
        let items = items.into_iter().fold(Self::new(), |list, item| list.inside("item", &item));
        self.inside(name, &items)
    }

    /// The elements so far.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The whole answer to `action`.
    pub fn response(&self, action: &str, request_id: &str) -> String {
        let id = Self::new().text("requestId", request_id);
        format!(
            "{HEAD}<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/{VERSION}/\">\
             {}{}</{action}Response>",
            id.0, self.0
        )
    }
}

/// The whole answer of an error.
pub fn refusal(code: &str, message: &str, request_id: &str) -> String {
    let error = Xml::new().text("Code", code).text("Message", message);
    let errors = Xml::new().inside("Error", &error);
    let response = Xml::new().inside("Errors", &errors).text("RequestID", request_id);
    format!("{HEAD}<Response>{}</Response>", response.0)
}

fn escape(xml: &mut String, text: &str) {
    for char in text.chars() {
        match char {
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '&' => xml.push_str("&amp;"),
            '"' => xml.push_str("&quot;"),
            // A reader turns a bare carriage return into a line feed.
            '\r' => xml.push_str("&#13;"),
            '\t' | '\n' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'.. => {
                xml.push(char);
            }
            _ => xml.push('\u{FFFD}'),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{ServiceError, answer};
    use super::*;

    #[test]
    fn written_answers_are_read_back() {
        let text = "a<b>&\"'\r\n\t ü\u{10FFFF}]]>";
        let xml = Xml::new().text("imageId", text).text_some("name", None::<&str>);
        let body = Xml::new().list("imagesSet", [xml]).response("DescribeImages", "id");
        assert_eq!(
            answer("DescribeImages", body.as_bytes()).expect("reads"),
            json!({"Images": [{"ImageId": text}]})
        );
    }

    #[test]
    fn an_empty_list_has_its_element() {
        let body = Xml::new().list("imagesSet", []).response("DescribeImages", "id");
        assert!(body.contains("<imagesSet/>"), "{body}");
        assert_eq!(
            answer("DescribeImages", body.as_bytes()).expect("reads"),
            json!({"Images": []})
        );
    }

    #[test]
    fn characters_that_xml_cannot_carry_are_replaced() {
        let body = refusal("Code", "a\0b\u{1b}c\u{FFFE}d", "id");
        let read = ServiceError::read(400, body.as_bytes());
        assert_eq!(
            (read.code.as_str(), read.message.as_str(), read.request_id.as_deref()),
            ("Code", "a\u{FFFD}b\u{FFFD}c\u{FFFD}d", Some("id"))
        );
    }
}
