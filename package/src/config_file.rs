//! Generates the configuration file that packages install: all sections, with every key commented out and set to its default.
//!
//! Lines that start with `# ` are comments. Other lines that start with `#` are configuration: removing the `#` activates them.

use std::fmt::Write as _;

use citadel_agent::config::Key;

use crate::tree::{Node, Shape, sections};

/// Maximum line length of comments.
const WIDTH: usize = 110;

const HEAD: &str = "\
# The configuration of citadel-agent: citadel-agent.yaml(5).
#
# Every key is commented out and set to its default; keys without a value have no default. To change a key, remove the `#` in
# front of it. If the name of its section is commented out, uncomment that too.
# Check it:  citadel-agent config check /etc/citadel-agent/monitoring-integration.yaml
# Apply it:  systemctl reload citadel-agent
";

/// The whole file.
pub(crate) fn text() -> String {
    let mut out = HEAD.to_owned();
    for section in sections() {
        out.push('\n');
        live(&section, 0, &mut out);
    }
    out
}

/// Writes a section that is active in the file, with its keys commented out.
fn live(node: &Node, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    for line in node.key.iter().flat_map(explained) {
        _ = writeln!(out, "{indent}# {line}");
    }
    match &node.key {
        Some(key) if node.below.is_empty() => _ = writeln!(out, "{indent}#{}", written(&node.name, key)),
        _ if node.below.iter().all(|child| child.shape == Shape::Known) => {
            _ = writeln!(out, "{indent}{}:", node.name);
            for child in &node.below {
                live(child, depth + 1, out);
            }
        }
        // A section with a user-defined name is commented out as a whole.
        _ => {
            for line in named(node) {
                _ = writeln!(out, "{indent}#{line}");
            }
        }
    }
}

/// The lines of a node with its comments, not commented out.
fn plain(node: &Node) -> Vec<String> {
    let explained = node.key.iter().flat_map(explained).map(|line| format!("# {line}"));
    match &node.key {
        Some(key) if node.below.is_empty() => explained.chain([written(&node.name, key)]).collect(),
        _ => explained.chain(named(node)).collect(),
    }
}

/// The lines of a section, not commented out.
fn named(node: &Node) -> Vec<String> {
    let below = node.below.iter().flat_map(plain);
    match node.shape {
        Shape::Item => {
            let mut dash = "- ";
            let mark = |line: String| match line.starts_with('#') {
                true => format!("  {line}"),
                false => format!("{}{line}", std::mem::replace(&mut dash, "  ")),
            };
            below.map(mark).collect()
        }
        Shape::Known | Shape::Named => {
            let name = if node.shape == Shape::Named { "NAME" } else { &node.name };
            std::iter::once(format!("{name}:")).chain(below.map(|line| format!("  {line}"))).collect()
        }
    }
}

/// The key with its default.
fn written(name: &str, key: &Key) -> String {
    format!("{name}: {}", key.default).trim_end().to_owned()
}

/// Documentation and type of a key, wrapped into lines.
fn explained(key: &Key) -> Vec<String> {
    let text = format!("{} ({})", key.meaning, key.kind).replace('`', "");
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is a line");
        match line.is_empty() {
            true => line.push_str(word),
            false if line.len() + 1 + word.len() <= WIDTH => _ = write!(line, " {word}"),
            false => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use citadel_agent::config::{self, Config, keys};

    use super::*;

    /// A commented-out configuration line without its `#`; `None` for comments and active lines.
    fn uncommented(line: &str) -> Option<String> {
        let (indent, rest) = line.split_at(line.find(|c| c != ' ')?);
        let rest = rest.strip_prefix('#')?;
        let explains = rest.is_empty() || (rest.starts_with(' ') && !rest.starts_with("  "));
        (!explains).then(|| format!("{indent}{rest}"))
    }

    #[test]
    fn as_it_is_installed_it_changes_nothing_and_can_be_reloaded() {
        let folder = std::env::temp_dir().join(format!("citadel-config-{}", std::process::id()));
        std::fs::write(&folder, text()).unwrap();
        let (started, reloaded) = (config::load(Some(&folder)), config::reload(Some(&folder)));
        std::fs::remove_file(&folder).unwrap();
        assert_eq!(started, Ok(Config::default()));
        assert_eq!(reloaded, Ok(Config::default()));
    }

    #[test]
    fn without_the_mark_a_key_is_in_force_with_its_default() {
        let text = text();
        let mut tried = 0;
        for (index, line) in text.lines().enumerate() {
            let Some(bare) = uncommented(line).filter(|bare| {
                bare.split_once(": ")
                    .is_some_and(|(name, _)| name.trim().chars().all(|c| c.is_ascii_lowercase() || c == '_'))
            }) else {
                continue;
            };
            // In a section that is commented out as a whole, a single key has no parent.
            if line.trim_start().starts_with("#  ") {
                continue;
            }
            let mut lines: Vec<&str> = text.lines().collect();
            lines[index] = &bare;
            assert_eq!(config::parse("FILE", &lines.join("\n")), Ok(Config::default()), "{line}");
            tried += 1;
        }
        let keys = keys();
        let is_section = |path: &str| {
            keys.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with(['.', '['])))
        };
        let is_here = |key: &&Key| !key.path.contains(['*', '[']) && !is_section(&key.path);
        let known = keys.iter().filter(is_here).filter(|key| !key.default.is_empty()).count();
        assert_eq!(tried, known);
    }

    #[test]
    fn without_any_mark_all_keys_are_known_and_only_those_without_a_default_lack_something() {
        let all: Vec<_> = text().lines().map(|line| uncommented(line).unwrap_or_else(|| line.to_owned())).collect();
        let all = all.join("\n");
        let errors = config::parse("FILE", &all).expect_err("rules without a name are mistakes");
        assert!(!errors.to_string().contains("unknown key"), "{errors}");
        for key in keys() {
            let name = key.path.rsplit('.').next().unwrap().trim_end_matches("[]");
            assert!(
                all.lines().any(|line| line.trim_start_matches([' ', '-']).starts_with(&format!("{name}:"))),
                "{}",
                key.path
            );
        }
    }
}
