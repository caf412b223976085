//! Configuration: parses a file into a [`Config`] that is valid by construction.
//!
//! `file` reads bytes, `tree` turns them into a tree with positions, and the sections in [`resolved`] turn that into a
//! [`Config`]. A section is one file: its keys with types (`kind`), defaults, bounds and documentation, declared with
//! `section::section!`. Reading, printing (`yaml`), `docs/configuration.md` and the JSON Schema (`schema`) are derived
//! from the declaration. Everything except `file` and [`watch`] is pure. All errors of a file are reported at once,
//! each with its YAML path, line and column.

mod file;
mod kind;
mod mistakes;
pub mod resolved;
mod schema;
mod section;
mod tree;
mod value;
pub mod watch;
pub mod web;
mod yaml;

use std::io::Read;
use std::path::Path;

pub use file::{DEFAULT_PATH, MAX_FILE_BYTES};
pub(crate) use mistakes::nearest;
pub use mistakes::{ConfigErrors, Mistake, Pos};
pub use resolved::Config;
pub use resolved::alerts::selector_text;
pub use schema::Key;

use mistakes::Mistakes;
use section::{Part, Section};

/// Loads and validates the file at `path`, or returns [`Config::default`] without one.
///
/// # Errors
/// The file cannot be read (missing, a directory, larger than [`MAX_FILE_BYTES`], not UTF-8), is not YAML, or is
/// invalid.
pub fn load(path: Option<&Path>) -> Result<Config, ConfigErrors> {
    load_as(path, Empty::Defaults)
}

/// Validates the content of `input`; `name` is its name in messages.
///
/// # Errors
/// See [`load`].
pub fn load_from(name: &str, input: impl Read) -> Result<Config, ConfigErrors> {
    match file::read_from(input) {
        Ok(text) => parse(name, &text),
        Err(mistake) => Err(ConfigErrors::new(name, vec![mistake])),
    }
}

/// Like [`load`], for an agent that already has a configuration: an empty file is an error. A full disk or an editor
/// that is still writing can leave an empty file behind, which would reset every setting; `{}` does so on purpose.
///
/// # Errors
/// See [`load`], or the file is empty.
pub fn reload(path: Option<&Path>) -> Result<Config, ConfigErrors> {
    load_as(path, Empty::Mistake)
}

/// The meaning of an empty text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Empty {
    Defaults,
    Mistake,
}

fn load_as(path: Option<&Path>, empty: Empty) -> Result<Config, ConfigErrors> {
    let Some(path) = path else {
        return Ok(Config::default());
    };
    let name = path.display().to_string();
    match file::read(path) {
        Ok(text) => parse_as(&name, &text, empty),
        Err(mistake) => Err(ConfigErrors::new(&name, vec![mistake])),
    }
}

/// Validates `text`; `name` is its name in messages. An empty text is [`Config::default`].
///
/// # Errors
/// The text is not YAML or is invalid: all errors in file order.
pub fn parse(name: &str, text: &str) -> Result<Config, ConfigErrors> {
    parse_as(name, text, Empty::Defaults)
}

fn parse_as(name: &str, text: &str, empty: Empty) -> Result<Config, ConfigErrors> {
    parse_section(name, text, empty)
}

/// Checks a file whose whole is the section `P`.
fn parse_section<P: Part>(name: &str, text: &str, empty: Empty) -> Result<P, ConfigErrors> {
    let mut mistakes = Mistakes::new(|| schema::keys(P::KEYS).into_iter().map(|key| key.path).collect());
    let read = tree::parse(text, &mut mistakes).and_then(|root| {
        if empty == Empty::Mistake && root.as_ref().is_none_or(value::is_null) {
            mistakes.push(None, "", "the file is empty; write {} to use the defaults for everything");
            return None;
        }
        let root = Section::root(root.as_ref(), P::KEYS, &mut mistakes);
        Some(P::read(&root, &mut mistakes))
    });
    match (read, mistakes.into_vec()) {
        (Some(read), mistakes) if mistakes.is_empty() => Ok(read),
        (_, mistakes) => Err(ConfigErrors::new(name, mistakes)),
    }
}

/// The effective configuration as YAML, including defaults; [`parse`] returns an equal [`Config`].
#[must_use]
pub fn print(config: &Config) -> String {
    config.write().block()
}

/// Only the section `alerts`, with all active rules.
#[must_use]
pub fn print_alerts(config: &Config) -> String {
    let mut map = yaml::Yaml::empty_map();
    map.put("alerts", config.alerts.write());
    map.block()
}

/// All keys.
#[must_use]
pub fn keys() -> Vec<Key> {
    schema::keys(Config::KEYS)
}

/// The JSON Schema of the file, for editors.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    schema::document(Config::KEYS)
}

#[cfg(test)]
mod tests;
