//! Kinds of values: how a value is documented, read and printed.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::mistakes::{Mistakes, Pos, join, quoted};
use super::tree::{KeyValue, Node, Value};
use super::value::{self, expected, is_null};
use super::yaml::Yaml;

/// A value in the file, and its position.
pub(super) struct Written<'a> {
    pub(super) path: String,
    /// Position for errors if the value itself has none.
    pub(super) key_pos: Pos,
    pub(super) node: &'a Node,
}

impl<'a> Written<'a> {
    /// The value of `entry` in the mapping at `path`.
    pub(super) fn of(path: &str, entry: &'a KeyValue) -> Self {
        Self { path: join(path, &entry.key), key_pos: entry.key_pos, node: &entry.value }
    }

    /// The values of a mapping in file order; empty for anything else.
    pub(super) fn each(&self) -> impl Iterator<Item = Written<'a>> {
        let entries = if let Value::Map(entries) = &self.node.value { entries.as_slice() } else { &[] };
        entries.iter().map(|entry| Self::of(&self.path, entry))
    }

    /// The value of `key` in this mapping, if present.
    pub(super) fn entry(&self, key: &str) -> Option<Written<'a>> {
        let path = join(&self.path, key);
        self.each().find(|entry| entry.path == path)
    }

    /// Reports an error about the value.
    pub(super) fn mistake(&self, message: impl Into<String>, mistakes: &mut Mistakes) {
        let pos = if is_null(self.node) { self.key_pos } else { self.node.pos };
        mistakes.push(pos, &self.path, message);
    }

    /// Converts the value; an error is reported.
    pub(super) fn convert<T>(
        &self,
        convert: impl FnOnce(&Node) -> Result<T, String>,
        mistakes: &mut Mistakes,
    ) -> Option<T> {
        // An unsupported value has already been reported.
        if matches!(self.node.value, Value::Refused) {
            return None;
        }
        convert(self.node).map_err(|message| self.mistake(message, mistakes)).ok()
    }

    /// The items of a list, at most `most`; `what` describes the list in errors.
    pub(super) fn items(&self, what: &str, most: usize, mistakes: &mut Mistakes) -> Option<Vec<Written<'a>>> {
        let message = match &self.node.value {
            Value::List(items) if items.len() <= most => {
                let item = |(i, node): (usize, &'a Node)| {
                    let path = format!("{}[{i}]", self.path);
                    Written { path, key_pos: node.pos, node }
                };
                return Some(items.iter().enumerate().map(item).collect());
            }
            Value::List(items) => format!("has {} items; the limit is {most}", items.len()),
            Value::Refused => return None,
            _ => expected(what, self.node),
        };
        mistakes.push(self.node.pos, &self.path, message);
        None
    }

    /// The entries of a mapping with unique keys; `what` describes the mapping in errors.
    pub(super) fn entries(&self, what: &str, mistakes: &mut Mistakes) -> Option<Vec<&'a KeyValue>> {
        let written = match &self.node.value {
            Value::Map(written) => written,
            Value::Refused => return None,
            _ => {
                mistakes.push(self.node.pos, &self.path, expected(what, self.node));
                return None;
            }
        };
        let mut first = HashMap::new();
        let mut once = Vec::new();
        for entry in written {
            match first.get(entry.key.as_str()) {
                None => {
                    first.insert(entry.key.as_str(), entry.key_pos.line);
                    once.push(entry);
                }
                Some(line) => {
                    let message = format!("duplicate key; first defined on line {line}");
                    mistakes.push(entry.key_pos, join(&self.path, &entry.key), message);
                }
            }
        }
        Some(once)
    }
}

/// A key of a section, as declared with `section!`.
pub(super) struct Item {
    /// Path within the section; empty if its keys are in the section itself.
    pub(super) name: &'static str,
    /// Documentation, with line breaks as in the doc comment.
    pub(super) doc: &'static str,
    pub(super) kind: &'static dyn Describe,
    pub(super) default: fn() -> Yaml,
}

/// A key that is read manually.
pub(super) const fn key(name: &'static str, doc: &'static str, kind: &'static dyn Describe) -> Item {
    Item { name, doc, kind, default: || Yaml::Null }
}

/// The keys within a value.
pub(super) enum Inner {
    /// A scalar, or a list or mapping of scalars.
    None,
    /// A mapping with these keys.
    Part(&'static [Item]),
    /// Any number of mappings with these keys: `.*` under names, or `[]` in a list.
    Each(&'static str, &'static [Item]),
}

/// How values are documented.
pub(super) trait Describe {
    /// The syntax, for the table of keys. If empty, the key has no row, only the keys below it.
    fn text(&self) -> String;

    /// The syntax as JSON Schema. It may accept more than the agent does, but never less.
    fn schema(&self) -> Json;

    /// The keys within the value.
    fn inner(&self) -> Inner {
        Inner::None
    }
}

/// How values are read and printed.
pub(super) trait Kind: Describe {
    type Value;

    /// Reads the value. `None` if it is invalid, which is reported.
    fn read(&self, written: &Written<'_>, mistakes: &mut Mistakes) -> Option<Self::Value>;

    /// The value as a person would write it. [`Yaml::Null`]: as if the key were absent.
    fn write(&self, value: &Self::Value) -> Yaml;
}

/// A kind of scalar values.
pub(super) struct Scalar<T> {
    pub(super) text: &'static str,
    pub(super) schema: fn() -> Json,
    pub(super) read: fn(&Node) -> Result<T, String>,
    pub(super) write: fn(&T) -> Yaml,
}

impl<T> Describe for Scalar<T> {
    fn text(&self) -> String {
        self.text.to_owned()
    }

    fn schema(&self) -> Json {
        (self.schema)()
    }
}

impl<T> Kind for Scalar<T> {
    type Value = T;

    fn read(&self, written: &Written<'_>, mistakes: &mut Mistakes) -> Option<T> {
        written.convert(self.read, mistakes)
    }

    fn write(&self, value: &T) -> Yaml {
        (self.write)(value)
    }
}

pub(super) const BOOLEAN: Scalar<bool> = Scalar {
    text: "`true` or `false`",
    schema: || json!({"type": "boolean"}),
    read: value::boolean,
    write: |value| Yaml::Bool(*value),
};

pub(super) const TEXT: Scalar<String> =
    Scalar { text: "string", schema: || string_like("."), read: value::text, write: Yaml::text };

pub(super) const NUMBER: Scalar<f64> = Scalar {
    text: "number",
    schema: || json!({"type": "number"}),
    read: value::number,
    write: |value| Yaml::Float(*value),
};

pub(super) const COUNT: Scalar<u64> = Scalar {
    text: "integer, 0 or more",
    schema: || json!({"type": "integer", "minimum": 0}),
    read: value::count,
    write: |count| Yaml::Int(*count),
};

pub(super) const PORT: Scalar<u16> = Scalar {
    text: "TCP port, 1-65535",
    schema: || json!({"type": "integer", "minimum": 1, "maximum": 65535}),
    read: value::port,
    write: |port| Yaml::Int((*port).into()),
};

pub(super) const URL: Scalar<String> = Scalar {
    text: "http(s) URL",
    schema: || string_like("^[Hh][Tt][Tt][Pp][Ss]?://"),
    read: value::url,
    write: Yaml::text,
};

pub(super) const HOST: Scalar<String> =
    Scalar { text: "host name or IP address", schema: || string_like("^[^/]+$"), read: value::host, write: Yaml::text };

pub(super) const ABSOLUTE_PATH: Scalar<PathBuf> = Scalar {
    text: "absolute path",
    schema: || string_like("^/"),
    read: value::absolute_path,
    write: |path| Yaml::text(&path.display()),
};

pub(super) const BYTES: Scalar<u64> = Scalar {
    text: "bytes",
    schema: || json!({"type": ["integer", "string"], "minimum": 0, "pattern": "^[0-9]+\\s*([KMGT]i)?B$"}),
    read: value::bytes,
    write: |bytes| value::write_bytes(*bytes),
};

/// A string that matches `pattern`.
pub(super) fn string_like(pattern: &str) -> Json {
    json!({"type": "string", "minLength": 1, "pattern": pattern})
}

/// Durations in a range: whole seconds, or numbers with units.
pub(super) struct Span(pub(super) &'static str, pub(super) &'static str);

/// Intervals. The agent could not keep up with shorter ones, and longer ones are surely a wrong unit.
pub(super) const INTERVAL: Span = Span("100ms", "24h");

impl Describe for Span {
    fn text(&self) -> String {
        format!("duration, {} to {}", self.0, self.1)
    }

    fn schema(&self) -> Json {
        json!({"type": ["integer", "string"], "minimum": 0, "pattern": "^\\s*([0-9]+\\s*[a-zµA-Z]+\\s*)+$|^0$"})
    }
}

impl Kind for Span {
    type Value = Duration;

    fn read(&self, written: &Written<'_>, mistakes: &mut Mistakes) -> Option<Duration> {
        let bound = |text| humantime::parse_duration(text).expect("bounds are durations");
        written.convert(
            |node| value::duration_within(node, bound(self.0)..=bound(self.1), &format!("{} to {}", self.0, self.1)),
            mistakes,
        )
    }

    fn write(&self, value: &Duration) -> Yaml {
        Yaml::text(&humantime::format_duration(*value))
    }
}

/// One of several words. A word that YAML reads as a number (`1.0`) is taken as written.
pub(super) struct Words<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T> Describe for Words<T> {
    fn text(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|(word, _)| format!("`{word}`")).collect();
        let (last, others) = words.split_last().expect("there are words");
        format!("{} or {last}", others.join(", "))
    }

    fn schema(&self) -> Json {
        let words = self.0.iter().map(|(word, _)| Json::from(*word));
        let numbers = self.0.iter().filter_map(|(word, _)| word.parse::<f64>().ok()).map(Json::from);
        json!({"enum": words.chain(numbers).collect::<Vec<_>>()})
    }
}

impl<T: Copy + PartialEq> Kind for Words<T> {
    type Value = T;

    fn read(&self, written: &Written<'_>, mistakes: &mut Mistakes) -> Option<T> {
        written.convert(|node| value::word(node, self.0), mistakes)
    }

    fn write(&self, value: &T) -> Yaml {
        self.0.iter().find(|(_, other)| other == value).map_or(Yaml::Null, |(word, _)| Yaml::text(word))
    }
}

/// An optional value, which can be `null`.
pub(super) struct Optional<K>(pub(super) K);

impl<K: Describe> Describe for Optional<K> {
    fn text(&self) -> String {
        self.0.text()
    }

    fn schema(&self) -> Json {
        or_null(self.0.schema())
    }
}

impl<K: Kind> Kind for Optional<K> {
    type Value = Option<K::Value>;

    fn read(&self, written: &Written<'_>, mistakes: &mut Mistakes) -> Option<Self::Value> {
        if is_null(written.node) { Some(None) } else { self.0.read(written, mistakes).map(Some) }
    }

    fn write(&self, value: &Self::Value) -> Yaml {
        value.as_ref().map_or(Yaml::Null, |value| self.0.write(value))
    }
}

/// What `schema` accepts, and `null`.
pub(super) fn or_null(mut schema: Json) -> Json {
    if let Some(types) = schema.get_mut("type") {
        let mut all = types.as_array().cloned().unwrap_or_else(|| vec![types.clone()]);
        all.push("null".into());
        *types = all.into();
    } else if let Some(values) = schema.get_mut("enum").and_then(Json::as_array_mut) {
        values.push(Json::Null);
    } else {
        return json!({"anyOf": [schema, {"type": "null"}]});
    }
    schema
}

/// A list of distinct values.
pub(super) struct List<K> {
    pub(super) of: K,
    /// Name of the items, in the plural.
    pub(super) what: &'static str,
    pub(super) most: usize,
}

impl<K: Describe> Describe for List<K> {
    fn text(&self) -> String {
        format!("list of at most {} {}", self.most, self.what)
    }

    fn schema(&self) -> Json {
        json!({"type": "array", "items": self.of.schema(), "maxItems": self.most, "uniqueItems": true})
    }
}

impl<K: Kind<Value: PartialEq>> Kind for List<K> {
    type Value = Vec<K::Value>;

    fn read(&self, written: &Written<'_>, mistakes: &mut Mistakes) -> Option<Self::Value> {
        let items = written.items(&format!("a list of {}, or [] for none", self.what), self.most, mistakes)?;
        let mut values = Vec::new();
        for item in items {
            let Some(value) = self.of.read(&item, mistakes) else { continue };
            if values.contains(&value) {
                let text = match &item.node.value {
                    Value::Scalar { text, .. } => quoted(text),
                    _ => "it".to_owned(),
                };
                item.mistake(format!("{text} is listed twice"), mistakes);
            } else {
                values.push(value);
            }
        }
        Some(values)
    }

    fn write(&self, value: &Self::Value) -> Yaml {
        Yaml::List(value.iter().map(|item| self.of.write(item)).collect())
    }
}

/// A mapping of user-defined names to values.
pub(super) struct Mapping<K> {
    pub(super) text: &'static str,
    /// What is expected, for errors.
    pub(super) expected: &'static str,
    /// Maximum number of entries.
    pub(super) most: usize,
    /// Validates and normalizes a name.
    pub(super) name: fn(&str) -> Result<String, String>,
    pub(super) value: K,
}

impl<K: Describe> Describe for Mapping<K> {
    fn text(&self) -> String {
        self.text.to_owned()
    }

    fn schema(&self) -> Json {
        let mut schema = json!({"type": ["object", "null"], "additionalProperties": self.value.schema()});
        if self.most < usize::MAX {
            schema["maxProperties"] = self.most.into();
        }
        schema
    }

    fn inner(&self) -> Inner {
        match self.value.inner() {
            Inner::Part(items) => Inner::Each(".*", items),
            _ => Inner::None,
        }
    }
}

impl<K: Kind> Kind for Mapping<K> {
    type Value = BTreeMap<String, K::Value>;

    fn read(&self, written: &Written<'_>, mistakes: &mut Mistakes) -> Option<Self::Value> {
        let mut values = BTreeMap::new();
        if is_null(written.node) {
            return Some(values);
        }
        let entries = written.entries(self.expected, mistakes)?;
        if entries.len() > self.most {
            written.mistake(format!("has {} entries; the limit is {}", entries.len(), self.most), mistakes);
            return None;
        }
        for entry in entries {
            let item = Written::of(&written.path, entry);
            let name = (self.name)(&entry.key).unwrap_or_else(|message| {
                mistakes.push(entry.key_pos, &item.path, message);
                entry.key.clone()
            });
            if let Some(value) = self.value.read(&item, mistakes) {
                values.insert(name, value);
            }
        }
        Some(values)
    }

    fn write(&self, value: &Self::Value) -> Yaml {
        Yaml::Map(value.iter().map(|(name, value)| (name.clone(), self.value.write(value))).collect())
    }
}
