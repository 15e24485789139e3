//! The parameters of one action. Each is taken once; the action does not know the parameters that
//! are left at the end.

use std::collections::BTreeMap;

use super::super::Refusal;
use crate::aws::ec2_query::Params;

/// Parameters by name. Names are unique.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    /// The prefix of the names: `Filter.1.`.
    path: String,
    values: BTreeMap<String, String>,
}

impl Arguments {
    /// All parameters but `Action` and `Version`.
    pub(super) fn new(params: &Params) -> Result<Self, Refusal> {
        let mut values = BTreeMap::new();
        for (name, value) in params.pairs() {
            if values.insert(name.clone(), value.clone()).is_some() {
                return Err(Refusal::value(format!(
                    "The parameter {} is given more than once",
                    shown(name)
                )));
            }
        }
        values.remove("Action");
        values.remove("Version");
        Ok(Self { path: String::new(), values })
    }

    /// The full name of a parameter, for messages.
    fn named(&self, name: &str) -> String {
        shown(&format!("{}{name}", self.path))
    }

    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.values.remove(name)
    }

    /// A required value, which is not empty.
    pub(super) fn require(&mut self, name: &str) -> Result<String, Refusal> {
        self.take(name).filter(|value| !value.is_empty()).ok_or_else(|| {
            Refusal::client(
                "MissingParameter",
                format!("The request must contain the parameter {}", self.named(name)),
            )
        })
    }

    /// `true` or `false`, as EC2 writes it. A missing value is false.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Refusal> {
        match self.take(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(Refusal::value(format!(
                "Value ({}) for parameter {} is invalid. Expecting true or false",
                shown(other),
                self.named(name)
            ))),
        }
    }

    /// `name.1`, `name.2` and so on, in the order of their numbers. Numbers may be left out.
    pub(super) fn list(&mut self, name: &str) -> Result<Vec<String>, Refusal> {
        let mut found = BTreeMap::new();
        for (number, mut item) in self.groups(name)? {
            match item.values.remove("") {
                Some(value) if item.values.is_empty() => found.insert(number, value),
                _ => return Err(item.unknown()),
            };
        }
        Ok(found.into_values().collect())
    }

    /// `name.1.Member` and so on, by their numbers.
    pub(super) fn items(&mut self, name: &str) -> Result<Vec<Arguments>, Refusal> {
        let groups = self.groups(name)?;
        match groups.values().find(|item| item.values.contains_key("")) {
            Some(item) => Err(item.unknown()),
            None => Ok(groups.into_values().collect()),
        }
    }

    fn groups(&mut self, name: &str) -> Result<BTreeMap<u32, Arguments>, Refusal> {
        let start = format!("{name}.");
        let mut groups: BTreeMap<u32, Arguments> = BTreeMap::new();
        let names: Vec<String> = self
            .values
            .range(start.clone()..)
            .map(|(name, _)| name)
            .take_while(|name| name.starts_with(&start))
            .cloned()
            .collect();
        for name in names {
            let rest = &name[start.len()..];
            let (number, member) = rest.split_once('.').unwrap_or((rest, ""));
            let number = counted(number).filter(|_| !rest.ends_with('.'));
            let (Some(number), Some(value)) = (number, self.values.remove(&name)) else {
                return Err(Refusal::client(
                    "UnknownParameter",
                    format!("The parameter {} is not recognized", self.named(&name)),
                ));
            };
            let path = || format!("{}{start}{number}.", self.path);
            let group = groups
                .entry(number)
                .or_insert_with(|| Arguments { path: path(), values: BTreeMap::new() });
            group.values.insert(member.to_owned(), value);
        }
        Ok(groups)
    }

    fn unknown(&self) -> Refusal {
        let name = self.values.keys().next().map_or("", String::as_str);
        Refusal::client(
            "UnknownParameter",
            format!("The parameter {} is not recognized", self.named(name).trim_end_matches('.')),
        )
    }

    /// Refuses parameters that were not taken.
    pub(super) fn finish(self) -> Result<(), Refusal> {
        if self.values.is_empty() { Ok(()) } else { Err(self.unknown()) }
    }
}

/// A number of a list, from 1, without leading zeros.
fn counted(digits: &str) -> Option<u32> {
    let plain = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

/// Text of a client for a message: at most 128 characters, on one line.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .take(128)
        .flat_map(
            |char| if char.is_control() { char.escape_default().collect() } else { vec![char] },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(form: &str) -> Arguments {
        Arguments::new(&Params::decode(form.as_bytes()).expect("a form")).expect("no name twice")
    }

    #[test]
    fn lists_go_by_their_numbers() {
        let mut arguments = arguments("Id.10=c&Id.2=b&Id.1=a&Ids=x");
        assert_eq!(arguments.list("Id").expect("a list"), ["a", "b", "c"]);
        assert_eq!(arguments.finish().expect_err("Ids is left").code, "UnknownParameter");
    }

    #[test]
    fn a_name_without_a_number_is_not_recognized() {
        for form in [
            "Id.x=1",
            "Id.0=1",
            "Id.01=1",
            "Id.-1=1",
            "Id.=1",
            "Id.1.=1",
            "Id.1.2=1",
            "Id.99999999999=1",
        ] {
            assert_eq!(arguments(form).list("Id").expect_err(form).code, "UnknownParameter");
        }
        assert_eq!(
            arguments("Filter.1=x").items("Filter").expect_err("no member").code,
            "UnknownParameter"
        );
    }

    #[test]
    fn messages_name_the_whole_parameter() {
        let mut items = arguments("Tag.7.Value=x").items("Tag").expect("items");
        assert_eq!(
            items[0].require("Key").expect_err("missing").message,
            "The request must contain the parameter Tag.7.Key"
        );
    }
}
