//! Configuration: what was written -> a [`Config`], valid by construction.
//!
//! `file` reads bytes, `tree` makes a marked tree of them (what was written, where), and the sections in [`resolved`] make a
//! [`Config`] of that. A section is one file: its keys with their types (`kind`), defaults, bounds and documentation, declared
//! with `section::section!`. Reading, printing (`yaml`), `docs/configuration.md` and the JSON Schema (`schema`) follow from the
//! declaration. All but `file` and [`watch`] are pure. Every mistake of a file is reported at once, each with its YAML path, line
//! and column.

mod file;
mod kind;
mod mistakes;
pub mod resolved;
mod schema;
mod section;
mod tree;
mod value;
pub mod watch;
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

/// Loads and checks the file at `path`; without one, the built-in [`Config::default`].
///
/// # Errors
/// The file cannot be read (missing, a directory, over [`MAX_FILE_BYTES`], not UTF-8), is not YAML, or holds mistakes.
pub fn load(path: Option<&Path>) -> Result<Config, ConfigErrors> {
    load_as(path, Empty::Defaults)
}

/// Checks what `input` holds, which is called `name` in the error texts.
///
/// # Errors
/// As [`load`].
pub fn load_from(name: &str, input: impl Read) -> Result<Config, ConfigErrors> {
    match file::read_from(input) {
        Ok(text) => parse(name, &text),
        Err(mistake) => Err(ConfigErrors::new(name, vec![mistake])),
    }
}

/// As [`load`], for an agent that has a configuration already: a file with nothing in it is a mistake. It is what a full disk or an
/// editor that is still writing leaves behind, and would take back every setting at once; `{}` says that it is meant.
///
/// # Errors
/// As [`load`], or the file is empty.
pub fn reload(path: Option<&Path>) -> Result<Config, ConfigErrors> {
    load_as(path, Empty::Mistake)
}

/// What a text with nothing in it means.
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

/// Checks `text`, which came from `name` (for the error texts). An empty text is [`Config::default`].
///
/// # Errors
/// The text is not YAML, or holds mistakes: all of them, in the order of the file.
pub fn parse(name: &str, text: &str) -> Result<Config, ConfigErrors> {
    parse_as(name, text, Empty::Defaults)
}

fn parse_as(name: &str, text: &str, empty: Empty) -> Result<Config, ConfigErrors> {
    let mut mistakes = Mistakes::new(|| keys().into_iter().map(|key| key.path).collect());
    let config = tree::parse(text, &mut mistakes).and_then(|root| {
        if empty == Empty::Mistake && root.as_ref().is_none_or(value::is_null) {
            mistakes.push(None, "", "it is empty; write {} for a configuration in which everything has its default");
            return None;
        }
        let root = Section::root(root.as_ref(), Config::KEYS, &mut mistakes);
        Some(Config::read(&root, &mut mistakes))
    });
    match (config, mistakes.into_vec()) {
        (Some(config), mistakes) if mistakes.is_empty() => Ok(config),
        (_, mistakes) => Err(ConfigErrors::new(name, mistakes)),
    }
}

/// The effective values as YAML, defaults included; [`parse`] of it gives an equal [`Config`].
#[must_use]
pub fn print(config: &Config) -> String {
    config.write().block()
}

/// Only the section `alerts`, with all rules in force.
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
