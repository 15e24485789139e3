//! Untrusted XML as a tree of names and texts.
//!
//! Attributes, prefixes, comments and processing instructions are dropped: EC2 does not use them.
//! So is a text beside elements. A document type is an error, so the only entities are the five
//! that XML defines.
//!
//! The tokens come from `xmlparser`, on which the S3 client depends as well; matching tags,
//! entities and limits are done here. A tree crate in its place, roxmltree 0.21, is not
//! bounded by its limit of nodes: it compares each attribute of an element with all others, and
//! copies the namespaces in scope to each element that declares one. Measured: 379 KiB with 40,000
//! attributes took 3 s (the tokenizer 1 ms), 289 KiB with 1,000 namespaces 43 s and 41 MiB.

use std::borrow::Cow;

use xmlparser::{ElementEnd, Token, Tokenizer};

use crate::base::{Error, ErrorKind, Result};

/// Longest answer, in bytes. A page of 1,000 images takes about 4 MiB.
pub const MAX_ANSWER_BYTES: usize = 32 << 20;
/// Most elements of an answer. A page of 1,000 images, each with 40 devices and 50 tags, has
/// 700,000.
pub const MAX_ELEMENTS: usize = 1_000_000;
/// Deepest nesting of elements; the outermost counts as 1. EC2's deepest is 7.
pub const MAX_DEPTH: usize = 32;

/// One element.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Element<'a> {
    /// Without prefix.
    pub(super) name: &'a str,
    pub(super) text: Cow<'a, str>,
    pub(super) children: Vec<Element<'a>>,
}

impl Element<'_> {
    /// The first child of that name.
    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }
}

/// Reads a document: one element, with only white space and comments around it.
pub(super) fn parse(bytes: &[u8]) -> Result<Element<'_>> {
    if bytes.len() > MAX_ANSWER_BYTES {
        return Err(too("long").at("bytes", bytes.len()).at("limit", MAX_ANSWER_BYTES));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| malformed("is not UTF-8"))?;
    let mut reader = Reader { root: None, open: Vec::new(), left: MAX_ELEMENTS };
    for token in Tokenizer::from(text) {
        reader.token(token.map_err(|cause| malformed("is not XML").because(cause))?)?;
    }
    match reader {
        Reader { root: Some(root), open, .. } if open.is_empty() => Ok(root),
        _ => Err(malformed("ends early")),
    }
}

/// An error about the answer, of kind `Io`: another attempt may get a good one.
pub(super) fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::Io, format!("the answer {what}"))
}

fn too(what: &str) -> Error {
    Error::new(ErrorKind::Limit, format!("the answer is too {what}"))
}

struct Reader<'a> {
    root: Option<Element<'a>>,
    /// Open elements with prefix and local name, which the end tag has to repeat.
    open: Vec<(Element<'a>, &'a str, &'a str)>,
    left: usize,
}

impl<'a> Reader<'a> {
    fn token(&mut self, token: Token<'a>) -> Result<()> {
        match token {
            Token::ElementStart { prefix, local, .. } => {
                if self.root.is_some() {
                    return Err(malformed("has two outermost elements"));
                }
                if self.open.len() == MAX_DEPTH {
                    return Err(too("deep").at("limit", MAX_DEPTH));
                }
                self.left =
                    self.left.checked_sub(1).ok_or_else(|| too("big").at("limit", MAX_ELEMENTS))?;
                self.open.push((
                    Element { name: local.as_str(), ..Element::default() },
                    prefix.as_str(),
                    local.as_str(),
                ));
            }
            Token::ElementEnd { end: ElementEnd::Open, .. } => {}
            Token::ElementEnd { end: ElementEnd::Empty, .. } => self.close()?,
            Token::ElementEnd { end: ElementEnd::Close(prefix, local), .. } => {
                if self
                    .open
                    .last()
                    .is_none_or(|(_, p, l)| (*p, *l) != (prefix.as_str(), local.as_str()))
                {
                    return Err(malformed("has an end without a beginning"));
                }
                self.close()?;
            }
            Token::Text { text } => self.text(unescape(text.as_str())?)?,
            Token::Cdata { text, .. } => self.text(lines(text.as_str()))?,
            Token::Attribute { .. }
            | Token::Comment { .. }
            | Token::ProcessingInstruction { .. }
            | Token::Declaration { .. } => {}
            Token::DtdStart { .. }
            | Token::EmptyDtd { .. }
            | Token::EntityDeclaration { .. }
            | Token::DtdEnd { .. } => {
                return Err(malformed("has a document type"));
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let (mut element, ..) =
            self.open.pop().ok_or_else(|| malformed("has an end without a beginning"))?;
        if !element.children.is_empty() {
            element.text = Cow::default();
        }
        match self.open.last_mut() {
            Some((parent, ..)) => parent.children.push(element),
            None => self.root = Some(element),
        }
        Ok(())
    }

    fn text(&mut self, text: Cow<'a, str>) -> Result<()> {
        match self.open.last_mut() {
            Some((element, ..)) if element.text.is_empty() => element.text = text,
            Some((element, ..)) => element.text.to_mut().push_str(&text),
            None if text.trim().is_empty() => {}
            None => return Err(malformed("has text outside of its element")),
        }
        Ok(())
    }
}

/// Normalises line ends as XML 1.0, 2.11 demands.
fn lines(text: &str) -> Cow<'_, str> {
    if text.contains('\r') {
        Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Replaces references to characters and to the five entities of XML.
fn unescape(text: &str) -> Result<Cow<'_, str>> {
    let text = lines(text);
    if !text.contains('&') {
        return Ok(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = &*text;
    while let Some((before, after)) = rest.split_once('&') {
        plain.push_str(before);
        // The longest reference without leading zeros is &#x10FFFF;.
        let Some((name, after)) = after.split_once(';').filter(|(name, _)| name.len() <= 16) else {
            return Err(malformed("has an & that begins no reference"));
        };
        plain.push(match name {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            "apos" => '\'',
            _ => character(name).ok_or_else(|| malformed("has an unknown entity"))?,
        });
        rest = after;
    }
    plain.push_str(rest);
    Ok(Cow::Owned(plain))
}

/// The character of `#65` or `#x41`, if XML allows it.
fn character(name: &str) -> Option<char> {
    let number = name.strip_prefix('#')?;
    let (digits, radix) = number.strip_prefix('x').map_or((number, 10), |digits| (digits, 16));
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let character = char::from_u32(u32::from_str_radix(digits, radix).ok()?)?;
    let allowed = matches!(
        character,
        '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..
    );
    allowed.then_some(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_by_the_rules_of_xml() {
        let root = parse(
            "\u{feff}<?xml version=\"1.0\"?><!-- c --><p:a x='1'>\
             1 &lt;&amp;&#65;&#x1F600;<![CDATA[<&amp;>]]>\r\n2<?p i?></p:a>\n"
                .as_bytes(),
        );
        let root = root.expect("reads");
        assert_eq!((root.name, &*root.text), ("a", "1 <&A😀<&amp;>\n2"));
        let root = parse(b"<a> text <b/> more <c><d>1</d></c></a>").expect("reads");
        assert_eq!((&*root.text, root.children.len()), ("", 2));
        assert_eq!(root.child("c").and_then(|c| c.child("d")).map(|d| &*d.text), Some("1"));
    }

    #[test]
    fn malformed_xml_is_refused() {
        for bad in [
            "",
            " ",
            "text",
            "<a>",
            "<a></b>",
            "<p:a></a>",
            "<a/><b/>",
            "<a/>text",
            "</a>",
            "<a><b></a></b>",
            "<a>&nbsp;</a>",
            "<a>&</a>",
            "<a>&#0;</a>",
            "<a>&#xD800;</a>",
            "<a>&#x;</a>",
            "<a>&#+65;</a>",
            "<!DOCTYPE a><a/>",
            "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
            "<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>",
            "{\"Images\": []}",
        ] {
            assert_eq!(parse(bad.as_bytes()).expect_err(bad).kind(), ErrorKind::Io, "{bad}");
        }
        assert!(parse(b"<a>\xff</a>").is_err());
    }

    #[test]
    fn limits_are_exact() {
        let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        assert!(parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert_eq!(
            parse(nested(MAX_DEPTH + 1).as_bytes()).expect_err("deep").kind(),
            ErrorKind::Limit
        );
        let many = |elements: usize| format!("<a>{}</a>", "<b/>".repeat(elements - 1));
        assert!(parse(many(MAX_ELEMENTS).as_bytes()).is_ok());
        assert_eq!(
            parse(many(MAX_ELEMENTS + 1).as_bytes()).expect_err("many").kind(),
            ErrorKind::Limit
        );
        assert_eq!(
            parse(&vec![b' '; MAX_ANSWER_BYTES + 1]).expect_err("long").kind(),
            ErrorKind::Limit
        );
    }
}
