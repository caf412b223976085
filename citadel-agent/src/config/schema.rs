//! Derived from the declared keys: the rows of `docs/configuration.md`, and the JSON Schema for editors.

use serde_json::{Map, Value as Json, json};

use super::kind::{Describe, Inner, Item};

/// A key, as in `docs/configuration.md`.
#[derive(Debug)]
pub struct Key {
    /// YAML path from the top of the file. `name[]` is an item of a list, `*` stands for any name.
    pub path: String,
    /// Type.
    pub kind: String,
    /// Default as in the file; empty if there is none.
    pub default: String,
    /// Documentation.
    pub meaning: String,
}

/// Names of all keys in a mapping with these items: `a.b` is the key `b` of the mapping `a`.
pub(super) fn names(items: &[Item]) -> Vec<String> {
    let mut names = Vec::new();
    for item in items {
        match item.kind.inner() {
            Inner::Part(inner) => names.extend(self::names(inner).into_iter().map(|name| below(item.name, &name))),
            _ => names.push(item.name.to_owned()),
        }
    }
    names
}

/// All keys, including those in lists and below names.
pub(super) fn keys(items: &[Item]) -> Vec<Key> {
    let mut keys = Vec::new();
    add_keys("", items, &mut keys);
    keys
}

fn add_keys(path: &str, items: &[Item], keys: &mut Vec<Key>) {
    for item in items {
        let (path, kind) = (below(path, item.name), item.kind.text());
        if !kind.is_empty() {
            let default = (item.default)();
            let default = if default == super::yaml::Yaml::Null { String::new() } else { default.flow() };
            keys.push(Key { path: path.clone(), kind, default, meaning: meaning(item) });
        }
        match item.kind.inner() {
            Inner::None => {}
            Inner::Part(inner) => add_keys(&path, inner, keys),
            Inner::Each(between, inner) => add_keys(&format!("{path}{between}"), inner, keys),
        }
    }
}

fn meaning(item: &Item) -> String {
    item.doc.lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned()
}

fn below(path: &str, name: &str) -> String {
    match (path, name) {
        ("", only) | (only, "") => only.to_owned(),
        (path, name) => format!("{path}.{name}"),
    }
}

/// A mapping with only these keys.
pub(super) fn object(items: &[Item]) -> Json {
    let mut schema = empty_object();
    for item in items {
        add(&mut schema, item.name, item);
    }
    schema
}

fn empty_object() -> Json {
    // A section whose keys are all commented out is null.
    json!({"type": ["object", "null"], "additionalProperties": false, "properties": {}})
}

fn add(object: &mut Json, name: &str, item: &Item) {
    let properties = properties(object);
    if let Some((outer, inner)) = name.split_once('.') {
        add(properties.entry(outer).or_insert_with(empty_object), inner, item);
        return;
    }
    let mut schema = item.kind.schema();
    if name.is_empty() {
        // The keys of the part are in this mapping.
        properties.append(self::properties(&mut schema));
        return;
    }
    if !item.doc.is_empty() {
        schema["description"] = meaning(item).into();
    }
    let default = (item.default)().json();
    if !default.is_null() && matches!(item.kind.inner(), Inner::None) {
        schema["default"] = default;
    }
    match properties.get_mut(name) {
        Some(object) => self::properties(object).append(self::properties(&mut schema)),
        None => _ = properties.insert(name.to_owned(), schema),
    }
}

fn properties(object: &mut Json) -> &mut Map<String, Json> {
    object["properties"].as_object_mut().expect("a mapping has properties")
}

/// A mapping with these keys, which are read manually.
pub(super) struct Group {
    pub(super) text: &'static str,
    pub(super) items: &'static [Item],
}

impl Describe for Group {
    fn text(&self) -> String {
        self.text.to_owned()
    }

    fn schema(&self) -> Json {
        object(self.items)
    }

    fn inner(&self) -> Inner {
        Inner::Part(self.items)
    }
}

/// The schema of a file.
pub(super) fn document(items: &[Item]) -> Json {
    let mut schema = object(items);
    schema["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    schema["title"] = "Configuration of citadel-agent".into();
    schema
}
