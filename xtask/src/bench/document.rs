//! `docs/overhead.md`: each benchmark writes its own sections and leaves the others alone.

use std::fs;

use anyhow::{Context as _, Result};

use crate::workspace::Workspace;

/// The document, relative to the workspace root.
const FILE: &str = "docs/overhead.md";

/// Replaces the section with the same heading, or appends it. A section begins with its `## ` heading.
pub(super) fn write_section(workspace: &Workspace, section: &str) -> Result<()> {
    change(workspace, |old| with_section(old, section))
}

/// Rewrites the document; sections that the new text lacks are kept from the old one.
pub(super) fn write_anew(workspace: &Workspace, new: &str) -> Result<()> {
    change(workspace, |old| renewed(old, new))
}

fn change(workspace: &Workspace, change: impl FnOnce(&str) -> String) -> Result<()> {
    let file = workspace.root.join(FILE);
    let old = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    fs::write(&file, change(&old)).with_context(|| format!("cannot write {}", file.display()))?;
    eprintln!("bench: written to {}", file.display());
    Ok(())
}

fn with_section(document: &str, section: &str) -> String {
    let mut parts = parts(document);
    match parts.iter_mut().find(|part| heading(part) == heading(section)) {
        Some(part) => *part = section,
        None => parts.push(section),
    }
    joined(&parts)
}

fn renewed(old: &str, new: &str) -> String {
    let mut document = parts(new);
    let known: Vec<_> = document.iter().map(|part| heading(part)).collect();
    // The first part is the text before the first heading.
    document.extend(parts(old).into_iter().skip(1).filter(|part| !known.contains(&heading(part))));
    joined(&document)
}

/// The text before the first section, then the sections.
fn parts(document: &str) -> Vec<&str> {
    let starts = document.match_indices("\n## ").map(|(at, _)| at + 1);
    let bounds: Vec<_> = std::iter::once(0).chain(starts).chain([document.len()]).collect();
    bounds.windows(2).map(|pair| &document[pair[0]..pair[1]]).collect()
}

fn heading(part: &str) -> &str {
    part.lines().next().unwrap_or_default()
}

fn joined(parts: &[&str]) -> String {
    let parts: Vec<_> = parts.iter().map(|part| part.trim_end()).collect();
    format!("{}\n", parts.join("\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "# Overhead\n\n## A\n\nold a\n\n## B\n\nold b\n";

    #[test]
    fn a_section_takes_the_place_of_its_old_self_and_of_nothing_else() {
        assert_eq!(with_section(OLD, "## A\n\nnew a\n"), "# Overhead\n\n## A\n\nnew a\n\n## B\n\nold b\n");
        assert_eq!(with_section(OLD, "## C\n\nc\n"), format!("{OLD}\n## C\n\nc\n"));
    }

    #[test]
    fn a_new_document_keeps_the_sections_that_it_lacks() {
        assert_eq!(renewed(OLD, "# New\n\n## A\n\nnew a\n"), "# New\n\n## A\n\nnew a\n\n## B\n\nold b\n");
    }
}
