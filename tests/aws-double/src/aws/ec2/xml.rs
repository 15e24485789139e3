//! Documents as EC2 writes them.

use std::fmt;

use super::super::model::Tags;

/// A document under construction.
#[derive(Clone, Debug, Default)]
pub struct Xml(String);

impl fmt::Display for Xml {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Xml {
    /// An element with child elements.
    pub fn node(&mut self, name: &str, content: impl FnOnce(&mut Self)) {
        self.0 += &format!("<{name}>");
        content(self);
        self.0 += &format!("</{name}>");
    }

    /// The outermost element.
    pub fn root(&mut self, name: &str, content: impl FnOnce(&mut Self)) {
        self.0 += &format!("<{name} xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">");
        content(self);
        self.0 += &format!("</{name}>");
    }

    pub fn text(&mut self, name: &str, text: &str) {
        self.0 += &format!("<{name}>");
        for letter in text.chars() {
            match letter {
                '<' => self.0 += "&lt;",
                '>' => self.0 += "&gt;",
                '&' => self.0 += "&amp;",
                '"' => self.0 += "&quot;",
                '\r' => self.0 += "&#xd;",
                _ => self.0.push(letter),
            }
        }
        self.0 += &format!("</{name}>");
    }

    pub fn value(&mut self, name: &str, value: impl fmt::Display) {
        self.text(name, &value.to_string());
    }

    /// No element if there is no value.
    pub fn option(&mut self, name: &str, value: Option<impl fmt::Display>) {
        if let Some(value) = value {
            self.value(name, value);
        }
    }

    /// XML without escapes.
    pub fn raw(&mut self, xml: &str) {
        self.0 += xml;
    }

    /// A list; an empty one is written as an empty element.
    pub fn list<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut item: impl FnMut(&mut Self, T),
    ) {
        let mut items = items.into_iter().peekable();
        if items.peek().is_none() {
            self.0 += &format!("<{name}/>");
            return;
        }
        self.node(name, |xml| items.for_each(|one| xml.node("item", |xml| item(xml, one))));
    }

    /// Tags; no element if there are none.
    pub fn tags(&mut self, tags: &Tags) {
        if !tags.is_empty() {
            self.list("tagSet", tags, |xml, (key, value)| {
                xml.text("key", key);
                xml.text("value", value);
            });
        }
    }

    /// Product codes; no element if there are none.
    pub fn product_codes(&mut self, codes: &[(String, String)]) {
        if !codes.is_empty() {
            self.list("productCodes", codes, |xml, (code, kind)| {
                xml.text("productCode", code);
                xml.text("type", kind);
            });
        }
    }
}
