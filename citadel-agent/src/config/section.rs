//! One mapping with known keys, read key by key; mistakes are noted and the reading goes on.

use std::collections::HashMap;

use super::keys;
use super::mistakes::{Mistakes, Pos, join, nearest, quoted};
use super::tree::{Entry, Node, Value};
use super::value::{Kind, expected, kind};

/// A value and where it was written; `None`: nowhere, it is the default.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) pos: Option<Pos>,
}

/// Converts one written value, or says what is wrong with it.
pub(super) type Convert<T> = fn(&Node) -> Result<T, String>;

/// A mapping whose keys are those that [`keys::KEYS`] lists below its path.
pub(super) struct Section<'a> {
    /// Where it stands in the file, such as `alerts.rules[2]`.
    path: String,
    /// How [`keys::KEYS`] names that place, such as `alerts.rules[]`.
    table: String,
    /// Where it begins; `None`: nowhere.
    pos: Option<Pos>,
    entries: HashMap<&'a str, &'a Entry>,
}

impl<'a> Section<'a> {
    /// The top of the file.
    pub(super) fn root(node: Option<&'a Node>, mistakes: &mut Mistakes) -> Self {
        Self::open("", "", node, mistakes)
    }

    /// The section `name` in this one. An absent one, and one whose keys are all commented out, is empty.
    pub(super) fn section(&self, name: &str, mistakes: &mut Mistakes) -> Section<'a> {
        let node = self.entries.get(name).map(|entry| &entry.value);
        Self::open(&join(&self.path, name), &join(&self.table, name), node, mistakes)
    }

    /// The sections below `name`, each with the name that the file gives it; the table has their keys below `name.*`.
    pub(super) fn named(&self, name: &str, mistakes: &mut Mistakes) -> Vec<(String, Section<'a>)> {
        let plain = |name: &str| {
            let letters = name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
            match letters && name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
                true => Ok(()),
                false => Err(format!("{} is not a name: letters, digits, _ and -", quoted(name))),
            }
        };
        self.named_as(name, plain, mistakes)
    }

    /// The same, where other names are allowed; `check` says what is wrong with one.
    pub(super) fn named_as(
        &self,
        name: &str,
        check: impl Fn(&str) -> Result<(), String>,
        mistakes: &mut Mistakes,
    ) -> Vec<(String, Section<'a>)> {
        let Some((path, node)) = self.node(name).filter(|(_, node)| !matches!(kind(node), Kind::Null)) else {
            return Vec::new();
        };
        let table = format!("{}.*", join(&self.table, name));
        let mut sections = Vec::new();
        for entry in entries(&path, node, "a mapping of names to their settings", mistakes).unwrap_or_default() {
            let path = join(&path, &entry.key);
            if let Err(message) = check(&entry.key) {
                mistakes.push(entry.key_pos, &path, message);
            }
            let mut section = Self::open(&path, &table, Some(&entry.value), mistakes);
            section.pos = Some(entry.key_pos);
            sections.push((entry.key.clone(), section));
        }
        sections
    }

    /// YAML path of the section.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Where the section begins.
    pub(super) fn pos(&self) -> Option<Pos> {
        self.pos
    }

    /// The mapping at `path`, one of several alike, for which the table of keys has the name `table`.
    pub(super) fn open(path: &str, table: &str, node: Option<&'a Node>, mistakes: &mut Mistakes) -> Self {
        let mut section = Section {
            path: path.to_owned(),
            table: table.to_owned(),
            pos: node.map(|node| node.pos),
            entries: HashMap::new(),
        };
        let Some(node) = node.filter(|node| !matches!(kind(node), Kind::Null)) else {
            return section;
        };
        let Some(written) = entries(path, node, "a mapping of keys to values", mistakes) else {
            return section;
        };
        let known = keys::below(table);
        for entry in written {
            if known.contains(&entry.key.as_str()) {
                section.entries.insert(&entry.key, entry);
                continue;
            }
            let hint = match (nearest(&entry.key, known.iter().copied()), keys::home_of(&entry.key, table)) {
                (_, Some(home)) => format!("; it is a key of {home}"),
                (Some(near), None) => format!("; did you mean \"{near}\"?"),
                (None, None) => format!("; known here: {}", known.join(", ")),
            };
            mistakes.push(entry.key_pos, path, format!("unknown key {}{hint}", quoted(&entry.key)));
        }
        section
    }

    /// The value of `name`, else `default`. `None`: it was written and is wrong, and that is noted.
    pub(super) fn read<T>(
        &self,
        name: &str,
        default: T,
        convert: Convert<T>,
        mistakes: &mut Mistakes,
    ) -> Option<At<T>> {
        match self.entries.get(name) {
            None => Some(At { value: default, pos: None }),
            Some(entry) => self.convert(entry, convert, mistakes),
        }
    }

    /// The value of `name`, which may be left out or empty. `None`: it was written and is wrong, and that is noted.
    pub(super) fn optional<T>(&self, name: &str, convert: Convert<T>, mistakes: &mut Mistakes) -> Option<Option<T>> {
        match self.entries.get(name) {
            Some(entry) if !matches!(kind(&entry.value), Kind::Null) => {
                self.convert(entry, convert, mistakes).map(|at| Some(at.value))
            }
            _ => Some(None),
        }
    }

    /// The value of `name`, which must be there. `None`: it is not, or it is wrong, and that is noted.
    pub(super) fn required<T>(&self, name: &str, convert: Convert<T>, mistakes: &mut Mistakes) -> Option<T> {
        let Some(entry) = self.entries.get(name) else {
            mistakes.push(self.pos, join(&self.path, name), "is missing");
            return None;
        };
        self.convert(entry, convert, mistakes).map(|at| at.value)
    }

    /// Notes a mistake at the value of `name`, or about the mapping as a whole.
    pub(super) fn mistake(&self, name: Option<&str>, message: impl Into<String>, mistakes: &mut Mistakes) {
        let entry = name.and_then(|name| self.entries.get(name));
        let path = name.map_or_else(|| self.path.clone(), |name| join(&self.path, name));
        mistakes.push(entry.map_or(self.pos, |entry| Some(entry.value.pos)), path, message);
    }

    /// Whether `name` is written.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Whether the mapping is in the file at all.
    pub(super) fn is_written(&self) -> bool {
        self.pos.is_some()
    }

    /// The written value of `name` as it stands, with its path.
    pub(super) fn node(&self, name: &str) -> Option<(String, &'a Node)> {
        self.entries.get(name).map(|entry| (join(&self.path, name), &entry.value))
    }

    fn convert<T>(&self, entry: &Entry, convert: Convert<T>, mistakes: &mut Mistakes) -> Option<At<T>> {
        convert_at(join(&self.path, &entry.key), entry.key_pos, &entry.value, convert, mistakes)
    }
}

/// Converts the value at `path`, noting a mistake at the value, or at `fallback` where the value is nothing to point at.
pub(super) fn convert_at<T>(
    path: String,
    fallback: Pos,
    node: &Node,
    convert: Convert<T>,
    mistakes: &mut Mistakes,
) -> Option<At<T>> {
    if matches!(node.value, Value::Refused) {
        return None;
    }
    match convert(node) {
        Ok(value) => Some(At { value, pos: Some(node.pos) }),
        Err(message) => {
            let pos = if matches!(kind(node), Kind::Null) { fallback } else { node.pos };
            mistakes.push(pos, path, message);
            None
        }
    }
}

/// Converts the items of the list at `path`, noting those that are wrong or there twice.
pub(super) fn items<T: PartialEq>(path: &str, items: &[Node], convert: Convert<T>, mistakes: &mut Mistakes) -> Vec<T> {
    let mut values: Vec<T> = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let at_path = format!("{path}[{i}]");
        let Some(at) = convert_at(at_path.clone(), item.pos, item, convert, mistakes) else { continue };
        if values.contains(&at.value) {
            let written = match &item.value {
                Value::Scalar { text, .. } => quoted(text),
                _ => "it".to_owned(),
            };
            mistakes.push(at.pos, at_path, format!("{written} is in the list already"));
        } else {
            values.push(at.value);
        }
    }
    values
}

/// The entries of the mapping at `path`, each key once. `None`: it is no mapping, and that is noted.
pub(super) fn entries<'a>(path: &str, node: &'a Node, what: &str, mistakes: &mut Mistakes) -> Option<Vec<&'a Entry>> {
    let written = match &node.value {
        Value::Map(written) => written,
        Value::Refused => return None,
        _ => {
            mistakes.push(node.pos, path, expected(what, node));
            return None;
        }
    };
    let mut first = HashMap::new();
    let mut once = Vec::new();
    for entry in written {
        match first.insert(entry.key.as_str(), entry.key_pos) {
            None => once.push(entry),
            Some(earlier) => {
                first.insert(&entry.key, earlier);
                let message = format!("duplicate key; it is on line {} already", earlier.line);
                mistakes.push(entry.key_pos, join(path, &entry.key), message);
            }
        }
    }
    Some(once)
}

/// The items of a list, `most` at most.
pub(super) fn list<'a>(
    path: &str,
    node: &'a Node,
    what: &str,
    most: usize,
    mistakes: &mut Mistakes,
) -> Option<&'a [Node]> {
    let message = match &node.value {
        Value::List(items) if items.len() <= most => return Some(items),
        Value::List(items) => format!("{} items are more than {most}", items.len()),
        Value::Refused => return None,
        _ => expected(what, node),
    };
    mistakes.push(node.pos, path, message);
    None
}
