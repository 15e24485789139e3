//! Filters of the Describe actions: a resource matches if it matches every filter, and for each
//! filter any of its values. Values have the wildcards `*` and `?`.

use super::super::model::Tags;
use super::{Error, Outcome, Request};

pub struct Filter {
    name: String,
    values: Vec<String>,
}

/// The filters of a request.
pub fn filters(request: &Request) -> Outcome<Vec<Filter>> {
    let filter = |member: &String| {
        let name = request.required(&format!("{member}.Name"))?.to_owned();
        let values = request.list(&format!("{member}.Value"));
        if values.is_empty() {
            return Err(Error::invalid(format!("The filter '{name}' has no values")));
        }
        if values.len() > 200 {
            return Err(Error::client(
                "FilterLimitExceeded",
                "The maximum number of filter values specified on a single call is 200",
            ));
        }
        Ok(Filter { name, values })
    };
    request.members("Filter").iter().map(filter).collect()
}

/// Whether all filters match. `values` gives the values of a resource for the name of a filter, or
/// none if there is no such filter.
pub fn matches_all(
    filters: &[Filter],
    tags: &Tags,
    values: impl Fn(&str) -> Option<Vec<String>>,
) -> Outcome<bool> {
    for filter in filters {
        let of_tags = || match filter.name.strip_prefix("tag:") {
            Some(key) => Some(tags.get(key).cloned().into_iter().collect()),
            None if filter.name == "tag-key" => Some(tags.keys().cloned().collect()),
            None if filter.name == "tag-value" => Some(tags.values().cloned().collect()),
            None => None,
        };
        let unknown = || Error::invalid(format!("The filter '{}' is invalid", filter.name));
        let have: Vec<String> = of_tags().or_else(|| values(&filter.name)).ok_or_else(unknown)?;
        if !have.iter().any(|value| filter.values.iter().any(|pattern| matches(pattern, value))) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn matches(pattern: &str, text: &str) -> bool {
    fn rest(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['*', after @ ..] => (0..=text.len()).any(|skipped| rest(after, &text[skipped..])),
            ['?', after @ ..] => text.split_first().is_some_and(|(_, tail)| rest(after, tail)),
            ['\\', letter, after @ ..] | [letter, after @ ..] => {
                text.split_first().is_some_and(|(first, tail)| first == letter && rest(after, tail))
            }
        }
    }
    rest(&pattern.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>())
}

#[test]
fn patterns_match() {
    for (pattern, text, same) in [
        ("a*", "abc", true),
        ("*", "", true),
        ("a?c", "abc", true),
        ("a?c", "ac", false),
        ("*b*", "abc", true),
        ("\\*", "*", true),
        ("\\*", "a", false),
        ("", "a", false),
    ] {
        assert_eq!(matches(pattern, text), same, "{pattern} {text}");
    }
}
