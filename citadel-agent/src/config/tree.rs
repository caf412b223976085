//! Parses YAML into a tree with positions, before anything is validated.
//!
//! Memory and stack are bounded by the text: nesting is limited, and aliases are rejected instead of expanded.

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, options};

use super::mistakes::{Mistakes, Pos, join, quoted};

/// The configuration has four levels; deeper nesting is invalid.
const MAX_NESTING: usize = 16;

/// A value and its position.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) pos: Pos,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    /// A scalar. Only a plain (unquoted) one can be something other than a string.
    Scalar { text: String, plain: bool },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in file order, including duplicates.
    Map(Vec<KeyValue>),
    /// An unsupported value, already reported.
    Refused,
}

/// A `key: value` entry of a mapping.
#[derive(Debug)]
pub(super) struct KeyValue {
    pub(super) key: String,
    pub(super) key_pos: Pos,
    pub(super) value: Node,
}

/// Parses one document. `None`: not YAML, and reported; `Some(None)`: only whitespace and comments.
pub(super) fn parse(text: &str, mistakes: &mut Mistakes) -> Option<Option<Node>> {
    let mut builder = Builder { mistakes, root: None, documents: 0, open: Vec::new() };
    match builder.run(text) {
        Ok(()) => Some(builder.root),
        Err(Fatal { pos, message }) => {
            // The tree read so far may be incomplete, so only the syntax error is certain.
            mistakes.push(pos, "", message);
            None
        }
    }
}

/// Stops parsing: the meaning of the rest is uncertain.
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

/// An open collection.
enum Open {
    List { pos: Pos, items: Vec<Node> },
    Map { pos: Pos, entries: Vec<KeyValue>, key: Option<(String, Pos)> },
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
            let message = format!("tag {} is not supported; write the plain value", quoted(&tag.original()));
            self.mistakes.push(pos, self.path(), message);
        }
        let tagged = event.tag().is_some();
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let message =
                        "a second YAML document starts here; the configuration must be a single document".to_owned();
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
                self.mistakes.push(pos, self.path(), "aliases (*name) are not supported; repeat the value");
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
            // Stream markers, document ends, and events that are disabled.
            _ => Ok(()),
        }
    }

    /// Adds a complete node: to the open collection, as a key or a value, or as the root.
    fn complete(&mut self, node: Node) -> Result<(), Fatal> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => match (key.take(), node.value) {
                (Some((key, key_pos)), value) => {
                    entries.push(KeyValue { key, key_pos, value: Node { pos: node.pos, value } });
                }
                (None, Value::Scalar { text, .. }) => *key = Some((text, node.pos)),
                (None, _) => {
                    return Err(Fatal { pos: node.pos, message: "a key must be a plain scalar".to_owned() });
                }
            },
        }
        Ok(())
    }

    /// YAML path of the current position.
    fn path(&self) -> String {
        self.open.iter().fold(String::new(), |path, open| match open {
            Open::List { items, .. } => format!("{path}[{}]", items.len()),
            Open::Map { key: Some((key, _)), .. } => join(&path, key),
            Open::Map { key: None, .. } => path,
        })
    }
}
