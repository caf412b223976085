//! `docs/configuration.md` and the table of keys say the same, and the table is true.

use crate::config::{Config, KEYS, Key, parse};

const DOCS: &str = include_str!("../../../../docs/configuration.md");

fn row(Key { path, kind, default, meaning }: &Key) -> String {
    let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
    format!("| `{path}` | {kind} | {default} | {meaning} |")
}

#[test]
fn every_key_is_documented_in_the_words_of_the_table() {
    let missing: Vec<_> = KEYS.iter().map(row).filter(|row| !DOCS.lines().any(|line| line == row)).collect();
    assert!(missing.is_empty(), "docs/configuration.md lacks these rows:\n{}", missing.join("\n"));
}

#[test]
fn no_key_is_documented_that_does_not_exist() {
    let rows: Vec<_> = KEYS.iter().map(row).collect();
    let strange: Vec<_> =
        DOCS.lines().filter(|line| line.starts_with("| `") && !rows.iter().any(|row| row == line)).collect();
    assert!(strange.is_empty(), "docs/configuration.md has rows of no key:\n{}", strange.join("\n"));
}

/// A name that can stand where a path has `*`: of a shipped rule, or any.
fn name_for(path: &str) -> &'static str {
    if path.starts_with("alerts.override") { "ModelErrors" } else { "example" }
}

/// `a.b: value` as YAML; `a[].b` is the only item of a list.
fn nested(path: &str, value: &str) -> String {
    path.replace('*', name_for(path)).split('.').rev().fold(value.to_owned(), |inner, name| {
        match name.strip_suffix("[]") {
            Some(name) => format!("{{\"{name}\": [{inner}]}}"),
            None => format!("{{\"{name}\": {inner}}}"),
        }
    })
}

#[test]
fn every_default_is_what_serves_when_the_key_is_absent() {
    // What stands in a section that a person names serves where that section is written; see `defaults_of_named_sections`.
    for Key { path, default, .. } in KEYS.iter().filter(|key| !key.default.is_empty() && !key.path.contains('*')) {
        assert_eq!(parse("FILE", &nested(path, default)), Ok(Config::default()), "{path}: {default}");
    }
}

#[test]
fn every_key_is_read_and_not_only_known() {
    for Key { path, .. } in KEYS {
        let errors = parse("FILE", &nested(path, "[[]]")).expect_err(path);
        let own = path.replace("[]", "[0]").replace('*', name_for(path));
        assert!(errors.mistakes().iter().any(|mistake| mistake.path.starts_with(&own)), "{path}: {errors}");
    }
}

#[test]
fn defaults_of_named_sections_are_what_serves_when_a_key_is_absent() {
    let with = |more: &str| {
        let text = nested("remote_write.destinations.*", &format!("{{url: 'http://a.test/'{more}}}"));
        parse("FILE", &text).unwrap_or_else(|errors| panic!("{errors}"))
    };
    let named =
        KEYS.iter().filter_map(|key| Some((key.path.strip_prefix("remote_write.destinations.*.")?, key.default)));
    for (key, default) in named.filter(|(_, default)| !default.is_empty()) {
        assert_eq!(with(&format!(", {key}: {default}")), with(""), "{key}: {default}");
    }
}

#[test]
fn the_example_in_the_docs_is_accepted() {
    let examples: Vec<_> = DOCS.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!examples.is_empty());
    for example in examples {
        parse("docs/configuration.md", example).unwrap_or_else(|errors| panic!("{errors}\n{example}"));
    }
}
