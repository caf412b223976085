//! YAML text -> marked tree: what was written and where, before anything is checked against what is known.
//!
//! Memory and stack are bounded by the text: nesting has a limit and aliases are refused rather than expanded.

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, options};

use super::mistakes::{Mistakes, Pos, join, quoted};

/// The known configuration nests four deep; what is deeper cannot be right.
const MAX_NESTING: usize = 16;

/// A value and where it begins.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) pos: Pos,
    pub(super) value: Value,
}

/// What was written.
#[derive(Debug)]
pub(super) enum Value {
    /// A scalar. Only a plain (unquoted) one can be anything but a string.
    Scalar { text: String, plain: bool },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file, duplicates included.
    Map(Vec<Entry>),
    /// Something that is refused wherever it stands, and already reported.
    Refused,
}

/// One `key: value` of a mapping.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_pos: Pos,
    pub(super) value: Node,
}

/// Parses one document. `None`: not YAML, and reported; `Some(None)`: nothing but white space and comments.
pub(super) fn parse(text: &str, mistakes: &mut Mistakes) -> Option<Option<Node>> {
    let mut builder = Builder { mistakes, root: None, documents: 0, open: Vec::new() };
    match builder.run(text) {
        Ok(()) => Some(builder.root),
        Err(Fatal { pos, message }) => {
            // What was read so far may end in the middle of anything: only what stopped the reading is certain.
            mistakes.push(pos, "", message);
            None
        }
    }
}

/// What ends the reading: the rest has no certain meaning.
struct Fatal {
    pos: Pos,
    message: String,
}

impl From<ScanError> for Fatal {
    fn from(error: ScanError) -> Self {
        let pos = Pos { line: error.marker().line(), column: error.marker().col() + 1 };
        Fatal { pos, message: format!("not valid YAML: {}", error.info().replace('\n', "; ")) }
    }
}

/// A collection whose end has not come yet.
enum Open {
    List { pos: Pos, items: Vec<Node> },
    Map { pos: Pos, entries: Vec<Entry>, key: Option<(String, Pos)> },
}

struct Builder<'m> {
    mistakes: &'m mut Mistakes,
    root: Option<Node>,
    documents: usize,
    open: Vec<Open>,
}

impl Builder<'_> {
    fn run(&mut self, text: &str) -> Result<(), Fatal> {
        let options = options! {
            flow_nesting_limit: MAX_NESTING,
            block_nesting_limit: MAX_NESTING,
            emit_unresolved_aliases: true,
        };
        for event in Parser::new_from_str_with_options(text, options) {
            let (event, span) = event?;
            self.event(event, &span)?;
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), Fatal> {
        let pos = Pos { line: span.start.line(), column: span.start.col() + 1 };
        if let Some(tag) = event.tag() {
            let message = format!("the tag {} is not supported; write the plain value", quoted(&tag.original()));
            self.mistakes.push(pos, self.path(), message);
        }
        let tagged = event.tag().is_some();
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let message = "a second YAML document begins here; the configuration is one document".to_owned();
                    return Err(Fatal { pos, message });
                }
                Ok(())
            }
            Event::Scalar(..) if tagged => self.complete(Node { pos, value: Value::Refused }),
            Event::Scalar(text, style, ..) => {
                let value = Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                self.complete(Node { pos, value })
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.mistakes.push(pos, self.path(), "aliases (*name) are not supported; write the value out");
                self.complete(Node { pos, value: Value::Refused })
            }
            Event::SequenceStart(..) => {
                self.open.push(Open::List { pos, items: Vec::new() });
                Ok(())
            }
            Event::MappingStart(..) => {
                self.open.push(Open::Map { pos, entries: Vec::new(), key: None });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List { pos, items }) => self.complete(Node { pos, value: Value::List(items) }),
                Some(Open::Map { pos, entries, .. }) => self.complete(Node { pos, value: Value::Map(entries) }),
                None => Ok(()),
            },
            // Stream marks, document ends, and events that the options leave off.
            _ => Ok(()),
        }
    }

    /// Puts a complete node where it belongs: into the open collection, as a key or a value, or at the root.
    fn complete(&mut self, node: Node) -> Result<(), Fatal> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => match (key.take(), node.value) {
                (Some((key, key_pos)), value) => {
                    entries.push(Entry { key, key_pos, value: Node { pos: node.pos, value } });
                }
                (None, Value::Scalar { text, .. }) => *key = Some((text, node.pos)),
                (None, _) => {
                    return Err(Fatal { pos: node.pos, message: "a key must be a plain word".to_owned() });
                }
            },
        }
        Ok(())
    }

    /// YAML path of what is being read.
    fn path(&self) -> String {
        self.open.iter().fold(String::new(), |path, open| match open {
            Open::List { items, .. } => format!("{path}[{}]", items.len()),
            Open::Map { key: Some((key, _)), .. } => join(&path, key),
            Open::Map { key: None, .. } => path,
        })
    }
}
