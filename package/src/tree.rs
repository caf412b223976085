//! The keys of the configuration as the tree that its file is.

use citadel_agent::config::{Key, keys};

/// What a name stands for in a key's path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// One of the agent's names.
    Known,
    /// Any name, of which the file may have several (`*`).
    Named,
    /// An item of the list that the name before is (`name[]`).
    Item,
}

/// A key, or a section of keys, which may be one as well.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) shape: Shape,
    /// The key itself; most sections have none.
    pub(crate) key: Option<Key>,
    pub(crate) below: Vec<Node>,
}

/// All keys, in the order of their declarations.
pub(crate) fn sections() -> Vec<Node> {
    let mut top = Vec::new();
    for key in keys() {
        let steps: Vec<_> = key.path.split('.').flat_map(steps).map(|(name, shape)| (name.to_owned(), shape)).collect();
        let mut key = Some(key);
        let mut level = &mut top;
        for (index, (name, shape)) in steps.iter().enumerate() {
            let at =
                level.iter().position(|node: &Node| node.name == *name && node.shape == *shape).unwrap_or_else(|| {
                    level.push(Node { name: name.clone(), shape: *shape, key: None, below: Vec::new() });
                    level.len() - 1
                });
            let node = &mut level[at];
            if index + 1 == steps.len() {
                node.key = key.take();
            }
            level = &mut node.below;
        }
    }
    top
}

/// `name[]` is a list and its item.
fn steps(part: &str) -> impl Iterator<Item = (&str, Shape)> {
    let (name, item) = match part.strip_suffix("[]") {
        Some(name) => (name, Some(("", Shape::Item))),
        None => (part, None),
    };
    let shape = if name == "*" { Shape::Named } else { Shape::Known };
    std::iter::once((name, shape)).chain(item)
}
