//! Lists whose items differ.

use crate::config::mistakes::Mistakes;
use crate::config::section::{self, Convert};
use crate::config::tree::Node;

/// Reads the list at `path`, of at most `most` of what `what` calls (in the plural). `None`: something is wrong with it as a
/// whole; an item that is wrong is noted and left out.
pub(super) fn distinct<T: PartialEq>(
    path: &str,
    node: &Node,
    (most, what): (usize, &str),
    convert: Convert<T>,
    mistakes: &mut Mistakes,
) -> Option<Vec<T>> {
    let items = section::list(path, node, &format!("a list of {what}, or [] for none"), most, mistakes)?;
    Some(section::items(path, items, convert, mistakes))
}
