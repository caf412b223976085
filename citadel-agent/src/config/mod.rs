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
    let Some(path) = path else {
        return Ok(Config::default());
    };
    let name = path.display().to_string();
    match file::read(path) {
        Ok(text) => parse(&name, &text),
        Err(mistake) => Err(ConfigErrors::new(&name, vec![mistake])),
    }
}

/// Checks `text`, which came from `name` (for the error texts). An empty text is [`Config::default`].
///
/// # Errors
/// The text is not YAML, or holds mistakes: all of them, in the order of the file.
pub fn parse(name: &str, text: &str) -> Result<Config, ConfigErrors> {
    let mut mistakes = mistakes::Mistakes::default();
    let config = tree::parse(text, &mut mistakes).and_then(|root| resolve::resolve(root.as_ref(), &mut mistakes));
    match (config, mistakes.into_vec()) {
        (Some(config), mistakes) if mistakes.is_empty() => Ok(config),
        (_, mistakes) => Err(ConfigErrors::new(name, mistakes)),
    }
}

#[cfg(test)]
mod tests;
