//! `docs/configuration.md` has the declared keys, and what is declared is true.

use std::{env, fs, path::Path};

use crate::config::{Config, Key, keys, parse};

/// A table of keys in the docs begins after `<!-- keys: SECTION -->` and ends with an empty line.
const MARK: &str = "<!-- keys: ";

/// The rows of the section `name`. What several mappings in it have in common is explained once.
fn table(name: &str) -> String {
    let mut table = "| key | type | default | meaning |\n|---|---|---|---|\n".to_owned();
    let mut explained = Vec::new();
    for Key { path, kind, default, meaning } in keys() {
        if path.split('.').next() != Some(name) {
            continue;
        }
        let explanation = (path.rsplit('.').next().unwrap_or_default().to_owned(), meaning.clone());
        let meaning = if explained.contains(&explanation) { "As above." } else { &meaning.replace('|', "\\|") };
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        table += &format!("| `{path}` | {kind} | {default} | {meaning} |\n");
        explained.push(explanation);
    }
    table
}

/// The docs with their tables as they should be, and the sections that have one.
fn with_tables(docs: &str) -> (String, Vec<String>) {
    let mut parts = docs.split(MARK);
    let mut text = parts.next().unwrap_or_default().to_owned();
    let mut sections = Vec::new();
    for part in parts {
        let (name, rest) = part.split_once(" -->\n").expect("a mark has an end");
        let (_, after) = rest.split_once("\n\n").expect("a table ends with an empty line");
        text += &format!("{MARK}{name} -->\n{}\n{after}", table(name));
        sections.push(name.to_owned());
    }
    (text, sections)
}

#[test]
fn docs_are_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let docs = fs::read_to_string(&path).unwrap();
    let (expected, mut sections) = with_tables(&docs);
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, expected).unwrap();
    } else {
        assert!(
            docs == expected,
            "docs/configuration.md is not what the sections declare: run UPDATE_DOCS=1 cargo test -p citadel-agent docs"
        );
    }
    let mut known: Vec<_> = keys().iter().filter_map(|key| Some(key.path.split('.').next()?.to_owned())).collect();
    known.dedup();
    sections.sort();
    known.sort();
    assert_eq!(sections, known, "each section has a table");
}

/// A name that can stand where a path has `*`: of a shipped rule, or any.
fn name_for(path: &str) -> &'static str {
    if path.starts_with("alerts.override") { "ModelErrors" } else { "example" }
}

/// `a.b: value` as YAML; `a[].b` is the only item of a list.
pub(super) fn nested(path: &str, value: &str) -> String {
    path.replace('*', name_for(path)).split('.').rev().fold(value.to_owned(), |inner, name| {
        match name.strip_suffix("[]") {
            Some(name) => format!("{{\"{name}\": [{inner}]}}"),
            None => format!("{{\"{name}\": {inner}}}"),
        }
    })
}

#[test]
fn every_default_is_what_serves_when_the_key_is_absent() {
    // What is in a section that a person names serves where that section is written; see `defaults_of_named_sections`.
    for Key { path, default, .. } in keys().iter().filter(|key| !key.default.is_empty() && !key.path.contains('*')) {
        assert_eq!(parse("FILE", &nested(path, default)), Ok(Config::default()), "{path}: {default}");
    }
}

#[test]
fn every_key_is_read_and_not_only_known() {
    for Key { path, .. } in keys() {
        let errors = parse("FILE", &nested(&path, "[[]]")).expect_err(&path);
        let own = path.replace("[]", "[0]").replace('*', name_for(&path));
        assert!(errors.mistakes().iter().any(|mistake| mistake.path.starts_with(&own)), "{path}: {errors}");
    }
}

#[test]
fn defaults_of_named_sections_are_what_serves_when_a_key_is_absent() {
    let with = |more: &str| {
        let text = nested("remote_write.destinations.*", &format!("{{url: 'http://a.test/'{more}}}"));
        parse("FILE", &text).unwrap_or_else(|errors| panic!("{errors}"))
    };
    for Key { path, default, .. } in keys() {
        if let Some(key) = path.strip_prefix("remote_write.destinations.*.").filter(|_| !default.is_empty()) {
            assert_eq!(with(&format!(", {key}: {default}")), with(""), "{key}: {default}");
        }
    }
}

#[test]
fn the_example_in_the_docs_is_accepted() {
    let docs = include_str!("../../../../docs/configuration.md");
    let examples: Vec<_> = docs.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!examples.is_empty());
    for example in examples {
        parse("docs/configuration.md", example).unwrap_or_else(|errors| panic!("{errors}\n{example}"));
    }
}
