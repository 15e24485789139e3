//! The configuration file: profiles of options, for jobs that are one line.
//!
//! Options of a profile become arguments before clap parses them. The command line comes first,
//! then the environment, then the profile: an option of the profile is left out if one of them has
//! it, or has an option that excludes it.

mod file;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, Id};

use crate::base::{Error, ErrorKind, Result};
use file::{DEFAULT, Section, Setting, at};

/// Options that a profile cannot have.
const NOT_IN_PROFILES: [&str; 4] = ["config", "config-profile", "help", "version"];

/// The arguments of a run, with those of its profile.
#[derive(Debug, Default)]
pub(super) struct Configured {
    /// Arguments for clap.
    pub(super) arguments: Vec<OsString>,
    profile: Option<Profile>,
}

/// The profile of a run.
#[derive(Debug)]
struct Profile {
    path: PathBuf,
    name: String,
    settings: Vec<(Setting, Use)>,
}

/// The use of a setting in this run.
#[derive(Debug, PartialEq, Eq)]
enum Use {
    /// It is an argument of the command.
    Effective,
    /// `false`: the option is not given.
    Off,
    /// The command has no such option.
    OtherCommand,
    /// The command line has this option instead.
    CommandLine(String),
    /// The environment has this option instead.
    Environment(String),
}

impl Configured {
    /// The profile of a run and its file, if it has one.
    pub(super) fn source(&self) -> Option<String> {
        let Profile { path, name, .. } = self.profile.as_ref()?;
        Some(format!("profile {name} of {}", path.display()))
    }

    /// The line of the file that has this option, if this run uses it.
    pub(super) fn line_of(&self, option: &str) -> Option<usize> {
        let settings = self.profile.iter().flat_map(|profile| &profile.settings);
        let mut used = settings.filter(|(_, used)| *used == Use::Effective);
        used.find(|(setting, _)| setting.key == option).map(|(setting, _)| setting.line)
    }

    /// Each setting of the profile, and whether it is used.
    pub(super) fn lines(&self) -> Vec<String> {
        let Some(source) = self.source() else { return Vec::new() };
        let settings = self.profile.iter().flat_map(|profile| &profile.settings);
        let lines = settings.map(|(Setting { key, value, line }, used)| {
            let used = match used {
                Use::Effective | Use::Off => String::new(),
                Use::OtherCommand => ": not an option of this command".to_owned(),
                Use::CommandLine(option) => format!(": the command line has --{option}"),
                Use::Environment(option) => format!(": the environment has --{option}"),
            };
            format!("  line {line}: {key} = {value}{used}")
        });
        std::iter::once(source).chain(lines).collect()
    }
}

/// Adds the options of the profile to the arguments `given`. Arguments that clap refuses are
/// returned as they are.
pub(super) fn configured(command: &Command, given: Vec<OsString>) -> Result<Configured> {
    let unchanged = |arguments| Configured { arguments, profile: None };
    let mut command = command.clone().ignore_errors(true);
    command.build();
    let Ok(matches) = command.clone().try_get_matches_from(&given) else {
        return Ok(unchanged(given));
    };
    let Some((verb, of_verb)) = matches.subcommand() else { return Ok(unchanged(given)) };
    let selected = of_verb.get_one::<String>("config_profile");
    let Some(path) = path(of_verb, selected.is_some())? else { return Ok(unchanged(given)) };
    let sections = file::read(&path)?;
    check_keys(&command, &sections, &path)?;
    let Some(section) = select(sections, selected, &path)? else { return Ok(unchanged(given)) };
    let verb = command.find_subcommand(verb).ok_or_else(|| Error::internal("a verb is gone"))?;
    let mut added = Vec::new();
    let mut settings = Vec::new();
    for setting in section.settings {
        let used = use_of(&setting, verb, of_verb, &path)?;
        if used == Use::Effective {
            added.push(argument(&setting, verb));
        }
        settings.push((setting, used));
    }
    let profile = Some(Profile { path, name: section.name, settings });
    Ok(Configured { arguments: with(given, added), profile })
}

/// The file that is given, else that of the XDG rules if it exists. `is_needed`: without a file, a
/// profile cannot be used.
fn path(matches: &ArgMatches, is_needed: bool) -> Result<Option<PathBuf>> {
    if let Some(given) = matches.get_one::<PathBuf>("config") {
        return Ok(Some(given.clone()));
    }
    let variable =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base =
        variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
    let Some(base) = base else {
        let unknown = "no configuration file is known: give --config, or set HOME";
        return if is_needed { Err(Error::usage(unknown)) } else { Ok(None) };
    };
    let standard = base.join("amistore/config");
    Ok((is_needed || crate::localfs::exists(&standard)?).then_some(standard))
}

/// The profile `selected`, else the default one if the file has it.
fn select(
    sections: Vec<Section>,
    selected: Option<&String>,
    path: &Path,
) -> Result<Option<Section>> {
    let name = selected.map_or(DEFAULT, String::as_str);
    let names: Vec<String> = sections.iter().map(|section| section.name.clone()).collect();
    match sections.into_iter().find(|section| section.name == name) {
        None if selected.is_some() => {
            let missing = "the configuration file has no such profile";
            Err(Error::new(ErrorKind::NotFound, missing)
                .at("profile", name)
                .at("path", path.display())
                .at("profiles", names.join(", ")))
        }
        section => Ok(section),
    }
}

/// Refuses keys that are options of no command, and options that stand twice and take one value.
fn check_keys(command: &Command, sections: &[Section], path: &Path) -> Result<()> {
    let options: Vec<&Arg> = command.get_subcommands().flat_map(Command::get_arguments).collect();
    for section in sections {
        let mut seen = BTreeSet::new();
        for Setting { key, line, .. } in &section.settings {
            let mut named = options.iter().filter(|arg| arg.get_long() == Some(key)).peekable();
            if named.peek().is_none() || NOT_IN_PROFILES.contains(&key.as_str()) {
                let unknown = Error::usage("no command has an option of this name");
                return Err(at(unknown.at("key", key), path, *line));
            }
            let is_repeated = !seen.insert(key);
            if is_repeated && !named.any(|arg| matches!(arg.get_action(), ArgAction::Append)) {
                let twice = Error::usage("this option takes one value, and stands twice");
                return Err(at(twice.at("key", key), path, *line));
            }
        }
    }
    Ok(())
}

/// The use of a setting beside the options that command line and environment have.
fn use_of(setting: &Setting, verb: &Command, given: &ArgMatches, path: &Path) -> Result<Use> {
    let Some(arg) = option(verb, &setting.key) else { return Ok(Use::OtherCommand) };
    let excluding = verb.get_arguments().filter(|other| {
        other.get_id() == arg.get_id() || exclude(verb, arg, other) || exclude(verb, other, arg)
    });
    for other in excluding {
        let name = other.get_long().unwrap_or_else(|| other.get_id().as_str()).to_owned();
        match source(given, other.get_id()) {
            Some(ValueSource::CommandLine) => return Ok(Use::CommandLine(name)),
            Some(ValueSource::EnvVariable) => return Ok(Use::Environment(name)),
            _ => {}
        }
    }
    if arg.get_action().takes_values() {
        return Ok(Use::Effective);
    }
    match setting.value.as_str() {
        "true" => Ok(Use::Effective),
        "false" => Ok(Use::Off),
        value => {
            let wrong = Error::usage("this option is true or false");
            let wrong = wrong.at("key", &setting.key).at("given", value);
            Err(at(wrong, path, setting.line))
        }
    }
}

/// Whether `arg` names `other` as an option that excludes it, or both are in a group of
/// alternatives.
fn exclude(verb: &Command, arg: &Arg, other: &Arg) -> bool {
    if arg.get_id() == other.get_id() {
        return false;
    }
    let conflicts = verb.get_arg_conflicts_with(arg);
    conflicts.iter().any(|conflict| conflict.get_id() == other.get_id())
        || verb.get_groups().any(|group| {
            let ids: Vec<&Id> = group.get_args().collect();
            !group.clone().is_multiple()
                && ids.contains(&arg.get_id())
                && ids.contains(&other.get_id())
        })
}

fn source(matches: &ArgMatches, id: &Id) -> Option<ValueSource> {
    // A positional argument of another form of the command has no entry.
    matches.try_contains_id(id.as_str()).ok().and_then(|_| matches.value_source(id.as_str()))
}

fn option<'a>(verb: &'a Command, long: &str) -> Option<&'a Arg> {
    verb.get_arguments().find(|arg| arg.get_long() == Some(long))
}

/// A setting as an argument.
fn argument(setting: &Setting, verb: &Command) -> OsString {
    let takes_value = option(verb, &setting.key).is_some_and(|arg| arg.get_action().takes_values());
    let Setting { key, value, .. } = setting;
    if takes_value { format!("--{key}={value}").into() } else { format!("--{key}").into() }
}

/// The arguments with more options, which come before the end of options.
fn with(mut given: Vec<OsString>, added: Vec<OsString>) -> Vec<OsString> {
    let end = given.iter().position(|argument| argument == "--").unwrap_or(given.len());
    given.splice(end..end, added);
    given
}
