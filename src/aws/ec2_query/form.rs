//! Parameters of a request, and their form encoding.
//!
//! Decoding an encoded form returns equal parameters. Decoding has limits and refuses malformed
//! forms; it does not check names.

use std::borrow::Cow;
use std::fmt::Display;

use percent_encoding::{percent_decode, utf8_percent_encode};

use super::super::percent::RESERVED;
use crate::base::{Error, ErrorKind, Result};

/// The version of the EC2 API.
pub const VERSION: &str = "2016-11-15";
/// Longest form that is decoded, in bytes. EC2's longest parameter, `UefiData`, has 64,000
/// characters.
pub const MAX_FORM_BYTES: usize = 1 << 20;
/// Most parameters of a form that is decoded.
pub const MAX_FORM_PARAMS: usize = 10_000;

/// Named values in the order they are sent: `ImageId.1`, `BlockDeviceMapping.1.Ebs.SnapshotId`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// No parameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `name=value`. Booleans are `true` and `false`.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Display) -> Self {
        self.0.push((name.into(), value.to_string()));
        self
    }

    /// Adds `name=value` if there is a value.
    #[must_use]
    pub fn set_some(self, name: impl Into<String>, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.set(name, value),
            None => self,
        }
    }

    /// Adds `name.1`, `name.2` and so on. An empty list adds nothing.
    #[must_use]
    pub fn list<V: Display>(mut self, name: &str, values: impl IntoIterator<Item = V>) -> Self {
        for (index, value) in values.into_iter().enumerate() {
            self.0.push((format!("{name}.{}", index + 1), value.to_string()));
        }
        self
    }

    /// Adds the members of a structure: `name.Member`.
    #[must_use]
    pub fn structure(mut self, name: &str, members: Params) -> Self {
        for (member, value) in members.0 {
            self.0.push((format!("{name}.{member}"), value));
        }
        self
    }

    /// Adds a list of structures: `name.1.Member`. A structure without members takes no number,
    /// because EC2 counts the structures that it receives.
    #[must_use]
    pub fn structures(mut self, name: &str, items: impl IntoIterator<Item = Params>) -> Self {
        for (index, item) in items.into_iter().filter(|item| !item.0.is_empty()).enumerate() {
            self = self.structure(&format!("{name}.{}", index + 1), item);
        }
        self
    }

    /// The pairs, in order.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// The first value of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body of a request for `action`.
    pub fn request(&self, action: &str) -> String {
        let mut form = String::new();
        for (name, value) in [("Action", action), ("Version", VERSION)] {
            pair(&mut form, name, value);
        }
        for (name, value) in &self.0 {
            pair(&mut form, name, value);
        }
        form
    }

    /// `application/x-www-form-urlencoded`: unreserved characters as they are, a space as `+`,
    /// other bytes of the UTF-8 text as `%XX`.
    pub fn encode(&self) -> String {
        let mut form = String::new();
        for (name, value) in &self.0 {
            pair(&mut form, name, value);
        }
        form
    }

    /// Reads a form. A name without `=` has an empty value; an empty pair (`&&`) is skipped, as
    /// servers do.
    pub fn decode(form: &[u8]) -> Result<Self> {
        if form.len() > MAX_FORM_BYTES {
            return Err(Error::new(ErrorKind::Limit, "the form is too long")
                .at("bytes", form.len())
                .at("limit", MAX_FORM_BYTES));
        }
        let mut pairs = Vec::new();
        for piece in form.split(|byte| *byte == b'&').filter(|piece| !piece.is_empty()) {
            if pairs.len() == MAX_FORM_PARAMS {
                return Err(Error::new(ErrorKind::Limit, "the form has too many parameters")
                    .at("limit", MAX_FORM_PARAMS));
            }
            let (name, value) = match piece.iter().position(|byte| *byte == b'=') {
                Some(at) => (&piece[..at], &piece[at + 1..]),
                None => (piece, &b""[..]),
            };
            let name = unescape(name)?;
            if name.is_empty() {
                return Err(Error::usage("the form has a parameter without a name"));
            }
            pairs.push((name, unescape(value)?));
        }
        Ok(Self(pairs))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Params {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

fn pair(form: &mut String, name: &str, value: &str) {
    if !form.is_empty() {
        form.push('&');
    }
    form.push_str(&escape(name));
    form.push('=');
    form.push_str(&escape(value));
}

fn escape(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string().replace("%20", "+")
}

/// The text of a name or value. The crate lets a `%` without two digits pass; it is an error here.
fn unescape(text: &[u8]) -> Result<String> {
    let is_escape = |rest: &[u8]| {
        rest.first_chunk::<2>().is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !text.split(|byte| *byte == b'%').skip(1).all(is_escape) {
        return Err(Error::usage("the form has a % without two hexadecimal digits"));
    }
    let spaced: Vec<u8> =
        text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    let text = percent_decode(&spaced).decode_utf8();
    text.map(Cow::into_owned).map_err(|_| Error::usage("the form is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_forms_are_refused() {
        for (form, word) in [
            ("a=%", "hexadecimal"),
            ("a=%4", "hexadecimal"),
            ("a=%+1", "hexadecimal"),
            ("a=%ff", "UTF-8"),
            ("=1", "name"),
        ] {
            let error = Params::decode(form.as_bytes()).expect_err(form);
            assert!(
                error.kind() == ErrorKind::Usage && error.message().contains(word),
                "{form}: {error}"
            );
        }
    }

    #[test]
    fn a_form_has_limits() {
        let long = vec![b'a'; MAX_FORM_BYTES];
        assert!(Params::decode(&long).is_ok());
        assert_eq!(
            Params::decode(&[&long[..], b"a"].concat()).expect_err("long").kind(),
            ErrorKind::Limit
        );
        let many = "a&".repeat(MAX_FORM_PARAMS);
        assert_eq!(Params::decode(many.as_bytes()).expect("fits").pairs().len(), MAX_FORM_PARAMS);
        assert_eq!(
            Params::decode((many + "a").as_bytes()).expect_err("many").kind(),
            ErrorKind::Limit
        );
    }

    #[test]
    fn lax_forms_are_read_as_servers_do() {
        let params = Params::decode(b"&a&&b=&c=1+2%2b=%3D&\xc3\xa4=\xc3\xa4").expect("reads");
        let pairs: Vec<_> =
            params.pairs().iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("a", ""), ("b", ""), ("c", "1 2+=="), ("ä", "ä")]);
        assert_eq!((params.get("c"), params.get("d")), (Some("1 2+=="), None));
    }

    #[test]
    fn lists_count_from_1_and_leave_no_gap() {
        let empty = Params::new().set_some("Nothing", None::<&str>).set_some("Something", Some(1));
        let params = Params::new()
            .list("Id", ["x", "y"])
            .list("None", [""; 0])
            .structures("S", [Params::new(), empty]);
        assert_eq!(params.encode(), "Id.1=x&Id.2=y&S.1.Something=1");
    }
}
