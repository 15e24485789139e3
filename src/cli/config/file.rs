//! The text of the configuration file: sections, keys and values, in the form of AWS's
//! configuration files.

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;

use crate::base::{Error, Result};
use crate::localfs::{Opened, open_to_read};

/// Longest configuration file in bytes.
const MAX_LEN: u64 = 1 << 20;

/// The profile of a run that names none.
pub(super) const DEFAULT: &str = "default";

/// A profile of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) name: String,
    /// In the order of the file.
    pub(super) settings: Vec<Setting>,
}

/// A key with its value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// The long name of an option, with dashes.
    pub(super) key: String,
    pub(super) value: String,
    /// Counted from 1.
    pub(super) line: usize,
}

/// Reads a configuration file. Errors have the path and, for the text, the line.
pub(super) fn read(path: &Path) -> Result<Vec<Section>> {
    let failed =
        |cause| Error::io("cannot read the configuration file", cause).at("path", path.display());
    let file = match open_to_read(path).map_err(failed)? {
        Opened::Regular(file) => file,
        Opened::BlockDevice(_) => return Err(not_a_file(path, "a block device")),
        Opened::Other(kind) => return Err(not_a_file(path, kind)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_LEN {
        let too_long = Error::usage("a configuration file has at most 1 MiB");
        return Err(too_long.at("path", path.display()));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.split(|byte| *byte == b'\n').count();
        at(Error::usage("the configuration file is not UTF-8"), path, line)
    })?;
    parse(&text, path)
}

fn not_a_file(path: &Path, kind: &str) -> Error {
    Error::usage("the configuration file has to be a regular file")
        .at("path", path.display())
        .at("found", kind)
}

/// Adds the position of a fault.
pub(super) fn at(error: Error, path: &Path, line: usize) -> Error {
    error.at("path", path.display()).at("line", line)
}

fn parse(text: &str, path: &Path) -> Result<Vec<Section>> {
    let mut sections: Vec<Section> = Vec::new();
    let mut names = HashSet::new();
    for (index, whole) in text.lines().enumerate() {
        let located = |error| at(error, path, index + 1);
        let line = without_comment(whole);
        if line.is_empty() {
            continue;
        }
        if let Some(title) = line.strip_prefix('[') {
            let name = title.strip_suffix(']').and_then(profile_name).ok_or_else(|| {
                let message = "not a section: [default] and [profile NAME] are sections";
                located(Error::usage(message).at("given", line))
            })?;
            if !names.insert(name.to_owned()) {
                let message = "the configuration file has this profile twice";
                return Err(located(Error::usage(message).at("profile", name)));
            }
            sections.push(Section { name: name.to_owned(), settings: Vec::new() });
            continue;
        }
        let setting = line.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
        let Some((key, value)) =
            setting.filter(|(key, value)| !key.is_empty() && !value.is_empty())
        else {
            let message = "not a setting: a line is KEY = VALUE, with the long name of an option";
            return Err(located(Error::usage(message).at("given", line)));
        };
        let Some(section) = sections.last_mut() else {
            let message = "a setting stands in a section: [default] or [profile NAME]";
            return Err(located(Error::usage(message).at("key", key)));
        };
        // AWS's keys have underscores, options have dashes.
        let (key, value) = (key.replace('_', "-"), value.to_owned());
        section.settings.push(Setting { key, value, line: index + 1 });
    }
    Ok(sections)
}

/// The name in the title of a section.
fn profile_name(title: &str) -> Option<&str> {
    let title = title.trim();
    if title == DEFAULT {
        return Some(title);
    }
    let name = title.strip_prefix("profile")?;
    let name = name.strip_prefix(char::is_whitespace)?.trim();
    (!name.is_empty()).then_some(name)
}

/// A line without the comment at its start or, after white space, behind its value.
fn without_comment(line: &str) -> &str {
    let line = line.trim();
    let mut before = None;
    for (at, char) in line.char_indices() {
        if matches!(char, '#' | ';') && before.is_none_or(char::is_whitespace) {
            return line[..at].trim_end();
        }
        before = Some(char);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;

    #[test]
    fn sections_and_settings_are_read_as_in_the_files_of_aws() {
        let text = "# nightly\n[default]\nmemory=1GiB ; more\n\n[profile night ly]\n  \
                    s3_object_tag = a=b#c\n";
        let sections = parse(text, Path::new("c")).expect("parses");
        let setting = |key: &str, value: &str, line| Setting {
            key: key.to_owned(),
            value: value.to_owned(),
            line,
        };
        assert_eq!(
            sections,
            [
                Section { name: "default".into(), settings: vec![setting("memory", "1GiB", 3)] },
                Section {
                    name: "night ly".into(),
                    settings: vec![setting("s3-object-tag", "a=b#c", 6)]
                },
            ]
        );
    }

    #[test]
    fn a_line_that_is_not_understood_is_named_by_its_number() {
        for (text, line) in [
            ("level = 3", "1"),
            ("[default]\nlevel", "2"),
            ("[default]\n\nlevel =", "3"),
            ("[default]\n= 3", "2"),
            ("[other]", "1"),
            ("[profile ]", "1"),
            ("[profile a", "1"),
            ("[profile a]\n[profile a]", "2"),
        ] {
            let error = parse(text, Path::new("c")).expect_err(text);
            let found = (error.kind(), error.fact("line"), error.fact("path"));
            assert_eq!(found, (ErrorKind::Usage, Some(line), Some("c")), "{text}");
        }
    }
}
