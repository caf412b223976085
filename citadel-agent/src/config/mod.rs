//! Configuration: raw (what was written) -> resolved (valid by construction).
//!
//! One hop a file: `file` reads bytes, `tree` makes a marked tree of them (what was written, where), `resolve` checks
//! that tree against the table in `keys` and makes a [`Config`], `print` writes one back. All but `file` and [`watch`]
//! are pure. Every mistake of a file is reported at once, each with its YAML path, line and column.

mod file;
mod keys;
mod mistakes;
mod print;
mod resolve;
pub mod resolved;
mod section;
mod tree;
mod value;
pub mod watch;

use std::path::Path;

pub use keys::{KEYS, Key};
pub(crate) use mistakes::nearest;
pub use mistakes::{ConfigErrors, Mistake, Pos};
pub use print::{print, print_alerts, selector_text};
pub use resolved::Config;

/// Where the configuration is looked for when no file is named.
pub const DEFAULT_PATH: &str = "/etc/citadel-agent/monitoring-integration.yaml";

/// Most bytes that a configuration file may have: a real one has some kilobytes.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Loads and checks the file at `path`; without one, the built-in [`Config::default`].
///
/// # Errors
/// The file cannot be read (missing, a directory, over [`MAX_FILE_BYTES`], not UTF-8), is not YAML, or holds mistakes.
pub fn load(path: Option<&Path>) -> Result<Config, ConfigErrors> {
    load_as(path, Empty::Defaults)
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
    let mut mistakes = mistakes::Mistakes::default();
    let config = tree::parse(text, &mut mistakes).and_then(|root| {
        if empty == Empty::Mistake && root.as_ref().is_none_or(|root| matches!(value::kind(root), value::Kind::Null)) {
            mistakes.push(None, "", "it is empty; write {} for a configuration in which everything has its default");
            return None;
        }
        resolve::resolve(root.as_ref(), &mut mistakes)
    });
    match (config, mistakes.into_vec()) {
        (Some(config), mistakes) if mistakes.is_empty() => Ok(config),
        (_, mistakes) => Err(ConfigErrors::new(name, mistakes)),
    }
}

#[cfg(test)]
mod tests;
