//! Configuration errors: all errors of a file, each with its position.

use std::fmt;

/// Maximum number of errors listed in a message; the rest is counted.
const MAX_LISTED: usize = 100;

/// A position in the file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Pos {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// An error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// Position; `None` for an error about the file as a whole.
    pub pos: Option<Pos>,
    /// YAML path of the key, such as `model_monitoring.ports.hermes`; empty for the file as a whole.
    pub path: String,
    /// What is wrong, and how to correct it.
    pub message: String,
}

/// All errors of a file, in file order. Displayed as one line per error: `FILE:LINE:COLUMN: PATH: MESSAGE`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigErrors {
    file: String,
    mistakes: Vec<Mistake>,
}

impl ConfigErrors {
    pub(super) fn new(file: &str, mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort_by_key(|mistake| mistake.pos);
        Self { file: file.to_owned(), mistakes }
    }

    /// The errors in file order; at least one.
    #[must_use]
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Mistake { pos, path, message }) in self.mistakes.iter().take(MAX_LISTED).enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:", self.file)?;
            if let Some(Pos { line, column }) = pos {
                write!(f, "{line}:{column}:")?;
            }
            if !path.is_empty() {
                write!(f, " {path}:")?;
            }
            write!(f, " {message}")?;
        }
        match self.mistakes.len().saturating_sub(MAX_LISTED) {
            0 => Ok(()),
            more => write!(f, "\n{}: and {more} more errors", self.file),
        }
    }
}

impl std::error::Error for ConfigErrors {}

/// Collects errors while reading continues.
pub(super) struct Mistakes {
    list: Vec<Mistake>,
    /// Paths of all keys, for suggestions about misplaced keys.
    keys: fn() -> Vec<String>,
}

impl Mistakes {
    pub(super) fn new(keys: fn() -> Vec<String>) -> Self {
        Self { list: Vec::new(), keys }
    }

    pub(super) fn push(&mut self, pos: impl Into<Option<Pos>>, path: impl Into<String>, message: impl Into<String>) {
        self.list.push(Mistake { pos: pos.into(), path: path.into(), message: message.into() });
    }

    /// Whether an error concerns the value at `path` or something within it.
    pub(super) fn concern(&self, path: &str) -> bool {
        self.list.iter().any(|mistake| {
            mistake.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    /// The section that has a key of this name.
    pub(super) fn home_of(&self, name: &str) -> Option<String> {
        (self.keys)().into_iter().find_map(|path| {
            path.rsplit_once('.')
                .filter(|(_, last)| last.trim_end_matches("[]") == name)
                .map(|(home, _)| home.to_owned())
        })
    }

    pub(super) fn into_vec(self) -> Vec<Mistake> {
        self.list
    }
}

/// Quotes text from the file for a message: control characters are escaped, long text is truncated.
pub(super) fn quoted(text: &str) -> String {
    const MAX: usize = 60;
    match text.char_indices().nth(MAX) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", &text[..end]),
    }
}

/// `path.key`, with the key in quotes unless it is a plain word.
pub(super) fn join(path: &str, key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-/:+@".contains(c);
    let key = match key {
        key if !key.is_empty() && key.len() <= 60 && key.chars().all(plain) => key.to_owned(),
        key => quoted(key),
    };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// The candidate most similar to `written`, if it is similar enough.
pub(crate) fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The distance has quadratic cost, and a long text is not a typo of a key.
    const LONGEST: usize = 64;
    if written.len() > LONGEST {
        return None;
    }
    let written = written.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&written, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
