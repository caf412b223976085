//! Writes values: YAML block style for a file, flow style for the documentation, JSON for the schema.

use std::fmt::{Display, Write};

use serde_json::Value as Json;

/// A value to write.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Yaml {
    Null,
    Bool(bool),
    Int(u64),
    Float(f64),
    Text(String),
    List(Vec<Yaml>),
    /// In output order.
    Map(Vec<(String, Yaml)>),
}

impl Yaml {
    pub(super) fn text<T: Display + ?Sized>(text: &T) -> Self {
        Self::Text(text.to_string())
    }

    pub(super) fn empty_map() -> Self {
        Self::Map(Vec::new())
    }

    /// Adds `value` to a mapping as `name`; `a.b` is `b` in the mapping `a`, and an empty name adds the entries of
    /// `value`. An existing mapping is extended.
    pub(super) fn put(&mut self, name: &str, value: Yaml) {
        let Self::Map(entries) = self else { return };
        match (name, name.split_once('.'), value) {
            ("", _, Self::Map(more)) => entries.extend(more),
            (_, split, value) => {
                let (outer, inner) = split.unwrap_or((name, ""));
                match (entries.iter_mut().find(|(name, _)| name == outer), split) {
                    (Some((_, map)), _) => map.put(inner, value),
                    (None, None) => entries.push((name.to_owned(), value)),
                    (None, Some(_)) => {
                        let mut map = Self::empty_map();
                        map.put(inner, value);
                        entries.push((outer.to_owned(), map));
                    }
                }
            }
        }
    }

    /// A mapping in block style.
    pub(super) fn block(&self) -> String {
        let mut text = String::new();
        self.lines(0, &mut text);
        text
    }

    fn lines(&self, depth: usize, out: &mut String) {
        let Self::Map(entries) = self else { return };
        for (name, value) in entries {
            _ = write!(out, "{:1$}{2}:", "", depth * 2, key(name));
            match value {
                Self::Map(inner) if !inner.is_empty() => {
                    out.push('\n');
                    value.lines(depth + 1, out);
                }
                Self::List(items) if items.iter().any(|item| matches!(item, Self::Map(_))) => {
                    out.push('\n');
                    for item in items {
                        // The dash replaces the first entry's indentation.
                        let start = out.len();
                        item.lines(depth + 2, out);
                        out.replace_range(start + (depth + 1) * 2..start + (depth + 2) * 2, "- ");
                    }
                }
                scalar => _ = writeln!(out, " {}", scalar.flow()),
            }
        }
    }

    /// The value in flow style, on one line.
    pub(super) fn flow(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            // The shortest text that parses to this number.
            Self::Float(value) => format!("{value:?}"),
            Self::Text(text) if is_plain(text) => text.clone(),
            Self::Text(text) => quote(text),
            Self::List(items) => format!("[{}]", items.iter().map(Self::flow).collect::<Vec<_>>().join(", ")),
            Self::Map(entries) => {
                let entries = entries.iter().map(|(name, value)| format!("{}: {}", key(name), value.flow()));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
            }
        }
    }

    pub(super) fn json(&self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Float(value) => (*value).into(),
            Self::Text(text) => text.as_str().into(),
            Self::List(items) => items.iter().map(Self::json).collect(),
            Self::Map(entries) => entries.iter().map(|(name, value)| (name.clone(), value.json())).collect(),
        }
    }
}

/// Whether any parser, including YAML 1.1, reads the bare text as this string.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    text.starts_with(|c: char| c == '/' || c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
        && !WORDS.iter().any(|word| word.eq_ignore_ascii_case(text))
}

/// A key: bare if it cannot be misread.
fn key(name: &str) -> String {
    match !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c)) {
        true => name.to_owned(),
        false => quote(name),
    }
}

/// A double-quoted scalar: a JSON string is one (YAML 1.2.2, 7.3.1).
fn quote(text: &str) -> String {
    Json::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_in_blocks_and_its_values_on_a_line() {
        let mut file = Yaml::empty_map();
        file.put("a.b", Yaml::Int(1));
        file.put("a", Yaml::Map(vec![("c".to_owned(), Yaml::empty_map())]));
        file.put("", Yaml::Map(vec![("d".to_owned(), Yaml::List(vec![Yaml::text("yes"), Yaml::text("/x")]))]));
        let item = Yaml::Map(vec![("f g".to_owned(), Yaml::Float(0.5)), ("h".to_owned(), Yaml::Null)]);
        file.put("e", Yaml::List(vec![item.clone(), item]));
        let expected =
            "a:\n  b: 1\n  c: {}\nd: [\"yes\", /x]\ne:\n  - \"f g\": 0.5\n    h: null\n  - \"f g\": 0.5\n    h: null\n";
        assert_eq!(file.block(), expected);
        assert_eq!(
            file.flow(),
            r#"{a: {b: 1, c: {}}, d: ["yes", /x], e: [{"f g": 0.5, h: null}, {"f g": 0.5, h: null}]}"#
        );
    }
}
