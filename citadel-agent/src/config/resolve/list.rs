//! Lists whose items differ.

use crate::config::mistakes::{Mistakes, quoted};
use crate::config::section::{Convert, convert_at};
use crate::config::tree::{Node, Value};
use crate::config::value::expected;

/// Reads the list at `path`, of at most `most` of what `what` calls (in the plural). `None`: something is wrong with it as a
/// whole; an item that is wrong is noted and left out.
pub(super) fn distinct<T: PartialEq>(
    path: &str,
    node: &Node,
    (most, what): (usize, &str),
    convert: Convert<T>,
    mistakes: &mut Mistakes,
) -> Option<Vec<T>> {
    let items = match &node.value {
        Value::List(items) => items,
        Value::Refused => return None,
        _ => {
            mistakes.push(node.pos, path, expected(&format!("a list of {what}, or [] for none"), node));
            return None;
        }
    };
    if items.len() > most {
        mistakes.push(node.pos, path, format!("{} {what} are more than {most}", items.len()));
        return None;
    }
    let mut values: Vec<T> = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let item_path = format!("{path}[{i}]");
        let Some(at) = convert_at(item_path.clone(), item.pos, item, convert, mistakes) else { continue };
        if values.contains(&at.value) {
            let written = match &item.value {
                Value::Scalar { text, .. } => quoted(text),
                _ => "it".to_owned(),
            };
            mistakes.push(at.pos, item_path, format!("{written} is in the list already"));
        } else {
            values.push(at.value);
        }
    }
    Some(values)
}
