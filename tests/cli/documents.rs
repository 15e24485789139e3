//! Help, completions, manual pages.
//!
//! The help is compared with `tests/cli/snapshots`; to accept a change, run the tests with
//! `AMISTORE_UPDATE_SNAPSHOTS=1` and read the difference.

use std::fs;
use std::path::Path;

use crate::support::cli::Sandbox;

const VERBS: [&str; 13] = [
    "store",
    "restore",
    "retire",
    "verify",
    "extract",
    "inspect",
    "copy",
    "ls",
    "serve",
    "tasks",
    "clean",
    "completions",
    "man",
];

#[track_caller]
fn matches_snapshot(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cli/snapshots")
        .join(format!("{name}.txt"));
    if std::env::var_os("AMISTORE_UPDATE_SNAPSHOTS").is_some() {
        fs::create_dir_all(path.parent().expect("a directory"))
            .expect("the directory of snapshots");
        fs::write(&path, text).expect("a snapshot to be written");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == expected,
        "the help of {name} is not that of {}; if it should be, run with \
         AMISTORE_UPDATE_SNAPSHOTS=1:\n{text}",
        path.display()
    );
}

#[test]
fn the_help_of_the_program_equals_its_snapshot() {
    // stdout is no terminal, so the help has the width for scripts.
    let outcome = Sandbox::new().run(&["--help"]).succeeded();
    assert_eq!(outcome.stderr, "");
    assert!(outcome.text().starts_with("Example:\n  amistore store "));
    matches_snapshot("help", &outcome.text());
}

#[test]
fn the_help_of_each_verb_equals_its_snapshot() {
    let sandbox = Sandbox::new();
    for verb in VERBS {
        let text = sandbox.run(&[verb, "--help"]).succeeded().text();
        assert!(text.starts_with(&format!("Example:\n  amistore {verb}")), "{text}");
        matches_snapshot(&format!("help-{verb}"), &text);
    }
}

#[test]
fn the_help_lists_every_verb() {
    let text = Sandbox::new().run(&["--help"]).text();
    assert!(VERBS.iter().all(|verb| text.contains(&format!("\n  {verb} "))), "{text}");
}

#[test]
fn the_version_is_that_of_the_package() {
    assert_eq!(
        Sandbox::new().run(&["--version"]).succeeded().text(),
        format!("amistore {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_call_without_arguments_prints_the_usage() {
    let outcome = Sandbox::new().run(&[]);
    assert_eq!((outcome.code, outcome.stdout.len()), (2, 0));
    outcome.says(&["Example:\n  amistore store ", "Usage: amistore"]);
}

#[test]
fn completions_are_made_for_common_shells() {
    let sandbox = Sandbox::new();
    for (shell, words) in [
        ("bash", "complete -F _amistore"),
        ("zsh", "#compdef amistore"),
        ("fish", "complete -c amistore"),
    ] {
        let text = sandbox.run(&["completions", shell]).succeeded().text();
        assert!(text.contains(words), "{shell}: {text}");
        assert!(VERBS.iter().all(|verb| text.contains(verb)), "{shell}");
    }
}

#[test]
fn bash_accepts_its_completions() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.shell(
        "command -v bash > /dev/null || exit 0; \"$AMISTORE\" completions bash > c; bash -n c",
    );
    assert_eq!(outcome.succeeded().stderr, "");
}

#[test]
fn an_unknown_shell_is_refused() {
    Sandbox::new().run(&["completions", "tcsh"]).failed(2, &["invalid value 'tcsh'", "bash"]);
}

#[test]
fn manual_pages_are_printed() {
    let sandbox = Sandbox::new();
    for (args, title) in
        [(&["man"][..], ".TH amistore 1"), (&["man", "store"], ".TH amistore-store 1")]
    {
        let text = sandbox.run(args).succeeded().text();
        assert!(text.contains(title) && text.contains(".SH SYNOPSIS"), "{text}");
    }
}

#[test]
fn all_manual_pages_are_written_to_a_directory_that_is_made() {
    let sandbox = Sandbox::new();
    // The second run finds the directory.
    for _ in 0..2 {
        sandbox.run(&["man", "--dir", "share/pages"]).succeeded();
    }
    let mut expected =
        vec!["share/".to_owned(), "share/pages/".to_owned(), "share/pages/amistore.1".to_owned()];
    expected.extend(VERBS.map(|verb| format!("share/pages/amistore-{verb}.1")));
    expected.sort();
    assert_eq!(sandbox.left(&[]), expected);
    assert!(
        expected[2..].iter().all(|page| sandbox.read(page).starts_with(b".ie")),
        "a page that is none"
    );
}

#[test]
fn a_manual_page_of_an_unknown_verb_is_not_found() {
    Sandbox::new()
        .run(&["man", "nonsense"])
        .failed(3, &["there is no such command", "command: nonsense"]);
}

#[test]
fn manual_pages_are_not_written_over_a_file() {
    let sandbox = Sandbox::new().and("file", "precious");
    sandbox
        .run(&["man", "--dir", "file"])
        .failed(9, &["cannot make the directory of manual pages", "path: file"]);
    assert_eq!(sandbox.read("file"), b"precious");
}
