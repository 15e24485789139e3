//! No circles of files: a file that uses another one is not used by it, directly or through others.
//!
//! The graph is read from the paths in the source, `crate::`, `super::` and `self::`, through the
//! `pub use` of modules. Paths of unit tests at the end of a file do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

type Module = Vec<String>;

/// The text of each module of `src` but the root.
fn modules() -> BTreeMap<Module, String> {
    fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).expect("lists") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    let module = |path: PathBuf| {
        let inner = path.strip_prefix(&root).expect("below src").with_extension("");
        let mut module: Module = inner.iter().map(|name| name.display().to_string()).collect();
        module.pop_if(|name| name == "mod");
        (module, code(&fs::read_to_string(&path).expect("reads")))
    };
    files
        .into_iter()
        .map(module)
        .filter(|(module, _)| *module != ["lib"] && *module != ["main"])
        .collect()
}

/// A source without comments and without the unit tests at its end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let without = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    text.lines().map(without).collect::<Vec<_>>().join("\n")
}

fn is_word(sign: char) -> bool {
    sign.is_alphanumeric() || sign == '_'
}

/// The paths of a use tree, such as `a::{b, c::{d as e, self}}`, with the names they get there.
/// Returns the text behind the tree.
fn paths<'a>(tree: &'a str, before: &[String], found: &mut Vec<(String, Module)>) -> &'a str {
    let mut path = before.to_vec();
    let mut rest = tree;
    loop {
        rest = rest.trim_start();
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner;
            loop {
                rest = paths(rest, &path, found).trim_start();
                match rest.strip_prefix(',') {
                    Some(next) if !next.trim_start().starts_with('}') => rest = next,
                    Some(next) => return next.trim_start().strip_prefix('}').unwrap_or(next),
                    None => return rest.strip_prefix('}').unwrap_or(rest),
                }
            }
        }
        let end = rest.find(|sign| !is_word(sign)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        match word {
            "super" => drop(path.pop()),
            "self" | "" => {}
            _ => path.push(word.to_owned()),
        }
        match after.strip_prefix("::") {
            Some(next) => rest = next,
            None => {
                let Some(renamed) = after.strip_prefix(" as ") else {
                    found.push((path.last().cloned().unwrap_or_default(), path));
                    return after;
                };
                let rest = renamed.trim_start_matches(is_word);
                found.push((renamed[..renamed.len() - rest.len()].to_owned(), path));
                return rest;
            }
        }
    }
}

/// The absolute paths that the text of a module names.
fn used(module: &[String], text: &str) -> Vec<Module> {
    let mut found = Vec::new();
    for head in ["crate::", "super::", "self::"] {
        for (at, _) in text.match_indices(head) {
            let before = text[..at].chars().next_back();
            // The first word of a path, not one in its middle.
            if before.is_some_and(|sign| is_word(sign) || sign == ':') {
                continue;
            }
            match head {
                "crate::" => _ = paths(&text[at + head.len()..], &[], &mut found),
                _ => _ = paths(&text[at..], module, &mut found),
            }
        }
    }
    found.into_iter().map(|(_, path)| path).collect()
}

/// Names that a module re-exports: `pub use`, with any visibility.
fn re_exports(module: &[String], text: &str) -> BTreeMap<String, Module> {
    let mut names = BTreeMap::new();
    for (at, _) in text.match_indices("pub") {
        let mut rest = &text[at + 3..];
        if let Some(inner) = rest.strip_prefix('(') {
            rest = inner.split_once(')').map_or("", |(_, rest)| rest);
        }
        let Some(tree) = rest.strip_prefix(" use ") else { continue };
        let mut found = Vec::new();
        match tree.strip_prefix("crate::") {
            Some(tree) => _ = paths(tree, &[], &mut found),
            None => _ = paths(tree, module, &mut found),
        }
        names.extend(found);
    }
    names
}

/// The module of which a path names something.
fn owner(
    path: &[String],
    modules: &BTreeMap<Module, String>,
    given: &BTreeMap<Module, BTreeMap<String, Module>>,
    depth: usize,
) -> Option<Module> {
    let len = (1..=path.len()).rev().find(|len| modules.contains_key(&path[..*len]))?;
    let (module, rest) = path.split_at(len);
    let further = rest.first().and_then(|name| given[module].get(name));
    match further {
        Some(further) if depth < 8 => {
            let path = [further.as_slice(), &rest[1..]].concat();
            owner(&path, modules, given, depth + 1)
        }
        _ => Some(module.to_vec()),
    }
}

/// Each module with those that it uses.
fn graph(modules: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let given: BTreeMap<_, _> =
        modules.iter().map(|(module, text)| (module.clone(), re_exports(module, text))).collect();
    let uses = |(module, text): (&Module, &String)| {
        let owners =
            used(module, text).into_iter().filter_map(|path| owner(&path, modules, &given, 0));
        (module.clone(), owners.filter(|owner| owner != module).collect())
    };
    modules.iter().map(uses).collect()
}

/// All that can be reached from a module.
fn reached(graph: &BTreeMap<Module, BTreeSet<Module>>, from: &Module) -> BTreeSet<Module> {
    let (mut reached, mut ahead) = (BTreeSet::new(), vec![from]);
    while let Some(module) = ahead.pop() {
        for next in &graph[module] {
            if reached.insert(next.clone()) {
                ahead.push(next);
            }
        }
    }
    reached
}

/// The largest sets of modules that reach each other, with their names.
fn circles(graph: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<BTreeSet<String>> {
    let reached: BTreeMap<&Module, _> =
        graph.keys().map(|module| (module, reached(graph, module))).collect();
    let circle = |module: &Module| -> BTreeSet<String> {
        let back = reached[module].iter().filter(|other| reached[other].contains(module));
        back.map(|module| module.join("::")).collect()
    };
    graph.keys().map(circle).filter(|circle| circle.len() > 1).collect()
}

#[test]
fn files_use_each_other_in_one_direction() {
    let circles = circles(&graph(&modules()));
    assert!(circles.is_empty(), "circles of files: {circles:?}");
}

#[test]
fn a_circle_is_found_through_nested_paths_and_re_exports() {
    let source = |module: &str, text: &str| {
        (module.split("::").map(ToOwned::to_owned).collect::<Module>(), code(text))
    };
    let modules = BTreeMap::from([
        source("a", "pub use b::B;\npub(crate) use self::c::{C, D as E};"),
        source("a::b", "use crate::{x, z::{self, y}};\nuse super::E;"),
        source("a::c", "fn f() { super::super::z::g(crate::a::B) } // crate::q::r"),
        source("z", "#[cfg(test)]\nmod tests {\nuse crate::a::b;\n}"),
    ]);
    // `E` is `c::D`: `b` does not use `a`, which only re-exports the name.
    let circle = ["a::b", "a::c"].map(ToOwned::to_owned);
    let found = circles(&graph(&modules));
    assert_eq!(found, BTreeSet::from([BTreeSet::from(circle)]));
    let graph = graph(&modules);
    let z: Module = vec!["z".to_owned()];
    assert!(graph[&z].is_empty() && graph.values().filter(|uses| uses.contains(&z)).count() == 2);
}
