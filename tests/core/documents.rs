//! Documents: links lead to files that exist, and the README stays short.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<PathBuf> {
    let mut found = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    for directory in ["docs", "format-spec", "format-spec/vectors"] {
        for entry in fs::read_dir(root().join(directory)).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|suffix| suffix == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// The targets of the links of a document, without addresses of the web.
fn targets(document: &str) -> Vec<&str> {
    document
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target)
        .filter(|target| !target.contains("://"))
        .collect()
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let in_anchor = |sign: &char| sign.is_alphanumeric() || matches!(sign, ' ' | '-' | '_');
    heading.trim().to_lowercase().chars().filter(in_anchor).collect::<String>().replace(' ', "-")
}

#[test]
fn targets_of_documents_exist() {
    let mut seen = 0;
    for path in documents() {
        let document = fs::read_to_string(&path).expect("text");
        for target in targets(&document) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let linked = match file {
                "" => path.clone(),
                file => path.parent().expect("a parent").join(file),
            };
            assert!(linked.exists(), "{} links to {target}", path.display());
            if !heading.is_empty() {
                let text = fs::read_to_string(&linked).expect("text");
                let found = text
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .any(|line| anchor(line.trim_start_matches('#')) == heading);
                assert!(found, "{} links to {target}: no such heading", path.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen} links were found");
}

#[test]
fn the_readme_is_short_and_names_every_document() {
    let readme = fs::read_to_string(root().join("README.md")).expect("the README");
    assert!(readme.lines().count() <= 120, "{} lines", readme.lines().count());
    for command in ["cargo run --release -- store --disk ", "\ncargo test\n"] {
        assert!(readme.contains(command), "the README has the command {command}");
    }
    let linked = targets(&readme);
    for path in documents() {
        let name = path.strip_prefix(root()).expect("below the root").to_str().expect("UTF-8");
        if name.starts_with("docs/") {
            let found = linked.iter().any(|target| target.split('#').next() == Some(name));
            assert!(found, "the README does not link to {name}");
        }
    }
}
