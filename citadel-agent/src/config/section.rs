//! Sections: mappings with known keys.
//!
//! [`section!`] declares a section as a struct whose fields are its keys, each with type, default, kind and
//! documentation. Reading and printing, the rows in `docs/configuration.md`, and the JSON Schema are derived from it.

use std::collections::HashMap;
use std::marker::PhantomData;

use serde_json::Value as Json;

use super::kind::{Describe, Inner, Item, Kind, Written};
use super::mistakes::{Mistakes, Pos, nearest, quoted};
use super::schema;
use super::tree::{KeyValue, Node};
use super::value::is_null;
use super::yaml::Yaml;

/// A value with keys in a mapping: a section, or a group of keys shared by several sections.
pub(super) trait Part: Sized {
    const KEYS: &'static [Item];

    /// Reads the value. Invalid keys get their default and are reported.
    fn read(section: &Section<'_>, mistakes: &mut Mistakes) -> Self;

    /// The value as a mapping.
    fn write(&self) -> Yaml;
}

/// Declares a section:
///
/// ```text
/// section! {
///     /// Documentation of the struct.
///     pub struct Name [check further_check] {
///         /// Documentation of the key.
///         #[key = "the_key"]
///         field: Type = default, KIND;
///     }
/// }
/// ```
///
/// Without `#[key]`, the key is the field's name; `a.b` is the key `b` of the mapping `a`. A [`part`] is a struct whose
/// keys are in the mapping with this name, or in this mapping if the name is empty. The optional `check` validates
/// constraints between keys: `fn(&Name, &Section<'_>, &mut Mistakes)`.
macro_rules! section {
    (
        $(#[doc = $about:literal])*
        $vis:vis struct $name:ident $([check $check:path])? {
            $(
                $(#[doc = $doc:literal])+
                $(#[key = $key:literal])?
                $field:ident: $type:ty = $default:expr, $kind:expr;
            )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, PartialEq, Debug)]
        $vis struct $name {
            $($(#[doc = $doc])+ $vis $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $crate::config::section::Part for $name {
            const KEYS: &'static [$crate::config::kind::Item] = &[$(
                $crate::config::kind::Item {
                    name: $crate::config::section::key_name!($field $($key)?),
                    doc: concat!($($doc, "\n"),+),
                    kind: &$kind,
                    default: || $crate::config::section::Field::written(&$kind, &$default),
                },
            )*];

            fn read(
                section: &$crate::config::section::Section<'_>,
                mistakes: &mut $crate::config::mistakes::Mistakes,
            ) -> Self {
                let read = Self {$(
                    $field: $crate::config::section::Field::get(
                        &$kind, section, $crate::config::section::key_name!($field $($key)?), || $default, mistakes
                    ),
                )*};
                $($check(&read, section, mistakes);)?
                read
            }

            fn write(&self) -> $crate::config::yaml::Yaml {
                let mut map = $crate::config::yaml::Yaml::empty_map();
                $(map.put(
                    $crate::config::section::key_name!($field $($key)?),
                    $crate::config::section::Field::written(&$kind, &self.$field),
                );)*
                map
            }
        }
    };
}
pub(super) use section;

macro_rules! key_name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $key:literal) => {
        $key
    };
}
pub(super) use key_name;

/// The declaration of a field: the kind of a value, or a [`part`].
pub(super) trait Field {
    type Value;

    /// The value in the file, or else the default.
    fn get(
        &self,
        section: &Section<'_>,
        name: &str,
        default: impl Fn() -> Self::Value,
        mistakes: &mut Mistakes,
    ) -> Self::Value;

    fn written(&self, value: &Self::Value) -> Yaml;
}

impl<K: Kind> Field for K {
    type Value = K::Value;

    fn get(
        &self,
        section: &Section<'_>,
        name: &str,
        default: impl Fn() -> Self::Value,
        mistakes: &mut Mistakes,
    ) -> Self::Value {
        section.written(name).and_then(|written| self.read(&written, mistakes)).unwrap_or_else(default)
    }

    fn written(&self, value: &Self::Value) -> Yaml {
        self.write(value)
    }
}

/// A struct with its own keys.
pub(super) struct PartOf<P>(PhantomData<P>);

/// The keys of `P`, in the mapping with the name of the field.
pub(super) const fn part<P: Part>() -> PartOf<P> {
    PartOf(PhantomData)
}

impl<P: Part> Describe for PartOf<P> {
    fn text(&self) -> String {
        String::new()
    }

    fn schema(&self) -> Json {
        schema::object(P::KEYS)
    }

    fn inner(&self) -> Inner {
        Inner::Part(P::KEYS)
    }
}

impl<P: Part> Field for PartOf<P> {
    type Value = P;

    fn get(&self, section: &Section<'_>, name: &str, _: impl Fn() -> P, mistakes: &mut Mistakes) -> P {
        P::read(&section.below(name), mistakes)
    }

    fn written(&self, value: &P) -> Yaml {
        value.write()
    }
}

/// The kind of mappings with the keys of `P`.
pub(super) struct Keys<P>(PhantomData<P>);

/// Mappings with the keys of `P`, as items of a list or values of a mapping.
pub(super) const fn keys_of<P: Part>() -> Keys<P> {
    Keys(PhantomData)
}

impl<P: Part> Describe for Keys<P> {
    fn text(&self) -> String {
        "mapping".to_owned()
    }

    fn schema(&self) -> Json {
        schema::object(P::KEYS)
    }

    fn inner(&self) -> Inner {
        Inner::Part(P::KEYS)
    }
}

impl<P: Part> Kind for Keys<P> {
    type Value = P;

    fn read(&self, written: &Written<'_>, mistakes: &mut Mistakes) -> Option<P> {
        Some(P::read(&Section::open(written, P::KEYS, mistakes), mistakes))
    }

    fn write(&self, value: &P) -> Yaml {
        value.write()
    }
}

/// The content of a section in a file: the entries of its known keys. Unknown and duplicate ones have been reported.
#[derive(Clone)]
pub(super) struct Section<'a> {
    /// Path in the file, such as `alerts.rules[2]`.
    path: String,
    /// Position; `None` if it is not in the file.
    pos: Option<Pos>,
    /// Entries by name, such as `prometheus.scrape_interval`, including the mappings in between.
    entries: HashMap<String, &'a KeyValue>,
}

impl<'a> Section<'a> {
    /// The whole file; `None` if it is empty.
    pub(super) fn root(node: Option<&'a Node>, keys: &[Item], mistakes: &mut Mistakes) -> Self {
        match node {
            None => Self { path: String::new(), pos: None, entries: HashMap::new() },
            Some(node) => Self::open(&Written { path: String::new(), key_pos: node.pos, node }, keys, mistakes),
        }
    }

    /// A mapping with these keys. If it is empty or all keys are commented out, it has none.
    pub(super) fn open(written: &Written<'a>, keys: &[Item], mistakes: &mut Mistakes) -> Self {
        let mut entries = HashMap::new();
        collect("", written, &schema::names(keys), &mut entries, mistakes);
        Self { path: written.path.clone(), pos: Some(written.key_pos), entries }
    }

    /// The mapping `name` within this one, or this one if the name is empty.
    pub(super) fn below(&self, name: &str) -> Section<'a> {
        if name.is_empty() {
            return self.clone();
        }
        let inner = |(path, entry): (&String, &&'a KeyValue)| {
            Some((path.strip_prefix(name)?.strip_prefix('.')?.to_owned(), *entry))
        };
        Section {
            path: self.path_of(name),
            pos: self.entries.get(name).map(|entry| entry.key_pos),
            entries: self.entries.iter().filter_map(inner).collect(),
        }
    }

    /// The value of `name`, if present.
    pub(super) fn written(&self, name: &str) -> Option<Written<'a>> {
        let entry = self.entries.get(name)?;
        Some(Written { path: self.path_of(name), key_pos: entry.key_pos, node: &entry.value })
    }

    /// The value of the required key `name`. `None` if it is missing or invalid, which is reported.
    pub(super) fn required<K: Kind>(&self, name: &str, kind: &K, mistakes: &mut Mistakes) -> Option<K::Value> {
        let Some(written) = self.written(name) else {
            mistakes.push(self.pos, self.path_of(name), "is missing");
            return None;
        };
        kind.read(&written, mistakes)
    }

    /// The value of `name`, if present and not `null`. `None` also if it is invalid, which is reported.
    pub(super) fn optional<K: Kind>(&self, name: &str, kind: &K, mistakes: &mut Mistakes) -> Option<Option<K::Value>> {
        match self.written(name) {
            Some(written) if !is_null(written.node) => kind.read(&written, mistakes).map(Some),
            _ => Some(None),
        }
    }

    /// Position of the value of `name`; `None` if it is not in the file.
    pub(super) fn pos_of(&self, name: &str) -> Option<Pos> {
        self.entries.get(name).map(|entry| entry.value.pos)
    }

    /// Whether `name` is in the file.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Whether the section is in the file.
    pub(super) fn is_written(&self) -> bool {
        self.pos.is_some()
    }

    /// Whether no error has been reported for `name`, so that its value is the one in the file.
    pub(super) fn is_right(&self, name: &str, mistakes: &Mistakes) -> bool {
        !mistakes.concern(&self.path_of(name))
    }

    /// Reports an error at the value of `name`, or about the section as a whole.
    pub(super) fn mistake(&self, name: Option<&str>, message: impl Into<String>, mistakes: &mut Mistakes) {
        let path = name.map_or_else(|| self.path.clone(), |name| self.path_of(name));
        mistakes.push(name.and_then(|name| self.pos_of(name)).or(self.pos), path, message);
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

/// Adds the entries of the mapping `written`, with keys prefixed by `prefix`, to `entries`.
fn collect<'a>(
    prefix: &str,
    written: &Written<'a>,
    names: &[String],
    entries: &mut HashMap<String, &'a KeyValue>,
    mistakes: &mut Mistakes,
) {
    if is_null(written.node) {
        return;
    }
    let mut known: Vec<_> = (names.iter())
        .filter_map(|name| name.strip_prefix(prefix))
        .map(|rest| rest.split('.').next().unwrap_or(rest))
        .collect();
    known.dedup();
    for entry in written.entries("a mapping of keys to values", mistakes).unwrap_or_default() {
        if !known.contains(&entry.key.as_str()) {
            let hint = match (mistakes.home_of(&entry.key), nearest(&entry.key, known.iter().copied())) {
                (Some(home), _) => format!("; it belongs in {home}"),
                (None, Some(near)) => format!("; did you mean \"{near}\"?"),
                (None, None) => format!("; known keys: {}", known.join(", ")),
            };
            mistakes.push(entry.key_pos, &written.path, format!("unknown key {}{hint}", quoted(&entry.key)));
            continue;
        }
        let name = format!("{prefix}{}", entry.key);
        if !names.contains(&name) {
            collect(&format!("{name}."), &Written::of(&written.path, entry), names, entries, mistakes);
        }
        entries.insert(name, entry);
    }
}
