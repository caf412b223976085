//! What is wrong with a configuration: every mistake, each with its place.

use std::fmt;

/// Most mistakes that an error text lists; the rest is counted.
const MAX_LISTED: usize = 100;

/// A place in the file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Pos {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// One mistake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// Where it is; `None` when it is about the file as a whole.
    pub pos: Option<Pos>,
    /// YAML path of the key, such as `model_monitoring.ports.hermes`; empty for the file as a whole.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// Every mistake of one file, in the order of the file. Displayed one line a mistake: `FILE:LINE:COLUMN: PATH: MESSAGE`.
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

    /// The mistakes, in the order of the file; at least one.
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
            more => write!(f, "\n{}: and {more} more mistakes", self.file),
        }
    }
}

impl std::error::Error for ConfigErrors {}

/// Where the readers put mistakes while they go on reading.
pub(super) struct Mistakes {
    list: Vec<Mistake>,
    /// Paths of all keys, for one that is in the wrong place.
    keys: fn() -> Vec<String>,
}

impl Mistakes {
    pub(super) fn new(keys: fn() -> Vec<String>) -> Self {
        Self { list: Vec::new(), keys }
    }

    pub(super) fn push(&mut self, pos: impl Into<Option<Pos>>, path: impl Into<String>, message: impl Into<String>) {
        self.list.push(Mistake { pos: pos.into(), path: path.into(), message: message.into() });
    }

    /// Whether one is about the value at `path`, or about something in it.
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

/// Text from the file as it may stand in a message: quoted, control characters escaped, cut when long.
pub(super) fn quoted(text: &str) -> String {
    const MAX: usize = 60;
    match text.char_indices().nth(MAX) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", &text[..end]),
    }
}

/// `path.key`, with the key in quotes when it is no plain word.
pub(super) fn join(path: &str, key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-/:+@".contains(c);
    let key = match key {
        key if !key.is_empty() && key.len() <= 60 && key.chars().all(plain) => key.to_owned(),
        key => quoted(key),
    };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// The candidate nearest to what was written, when it is near enough to be what was meant.
pub(crate) fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The distance is quadratic in the lengths, and nothing that long is a typo of a key.
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
