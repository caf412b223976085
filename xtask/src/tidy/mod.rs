//! The project's rules that no other tool checks. Each is a pure function of a file's text, or of a crate's.

mod imports;
mod source;

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::process;
use crate::workspace::Workspace;

/// Longest file, in lines: a longer one is hard to navigate.
const LONGEST_FILE: usize = 500;

/// The two commands that a newcomer needs, which the README must name.
const COMMANDS: [&str; 2] = ["cargo xtask run", "cargo xtask test"];

/// The crates whose files must not import each other in circles.
const CRATES: [&str; 7] = [
    "citadel-agent/src/",
    "citadel-agent-common/src/",
    "citadel-agent-ebpf/src/",
    "package/src/",
    "xtask/src/",
    "tests/src/",
    "tests/fake-nvml/src/",
];

/// Where the order of the agent's modules is written.
const ARCHITECTURE: &str = "docs/architecture.md";

/// A rule broken at a line, counted from 1.
#[derive(PartialEq, Eq, Debug)]
struct Problem {
    line: usize,
    what: String,
}

impl Problem {
    fn at(index: usize, what: impl Into<String>) -> Self {
        Self { line: index + 1, what: what.into() }
    }
}

/// Checks every file that git tracks or would track.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut list = workspace.command("git");
    let listed = process::output(list.args(["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    let mut count = 0;
    for path in listed.lines() {
        let file = workspace.root.join(path);
        // Deleted but not yet committed, or not text: nothing to check.
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        for problem in problems(path, &text) {
            eprintln!("{path}:{}: {}", problem.line, problem.what);
            count += 1;
        }
    }
    for problem in of_imports(workspace, &listed)? {
        eprintln!("{problem}");
        count += 1;
    }
    let front = fs::read_to_string(workspace.root.join("README.md")).context("cannot read README.md")?;
    for command in COMMANDS.iter().filter(|command| !front.contains(**command)) {
        eprintln!("README.md:1: does not name `{command}`");
        count += 1;
    }
    if count > 0 {
        bail!("{count} violations");
    }
    Ok(())
}

/// Circles of files, and imports against the documented order.
fn of_imports(workspace: &Workspace, listed: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for source in CRATES {
        let files = listed.lines().filter_map(|path| path.strip_prefix(source).filter(|file| file.ends_with(".rs")));
        let read =
            |file: &str| Some((file.to_owned(), fs::read_to_string(workspace.root.join(source).join(file)).ok()?));
        let own = imports::Crate::new(&files.filter_map(read).collect::<Vec<_>>());
        let circle =
            |files: Vec<&str>| format!("{source}: these files import each other in a circle: {}", files.join(", "));
        found.extend(own.circles().into_iter().map(circle));
        if source == CRATES[0] {
            let text = fs::read_to_string(workspace.root.join(ARCHITECTURE)).context(ARCHITECTURE)?;
            let order = imports::documented(&text);
            found.extend(own.out_of_order(&order).iter().map(|what| format!("{source}{what} in {ARCHITECTURE}")));
        }
    }
    Ok(found)
}

fn problems(path: &str, text: &str) -> Vec<Problem> {
    let mut found = machine_paths(text);
    if path.ends_with(".rs") {
        found.extend(length(text));
        // This file has to name what it forbids.
        if !path.ends_with("xtask/src/tidy/mod.rs") {
            found.extend(unfinished(text));
            found.extend(unsafe_without_reason(text));
        }
    }
    found
}

fn length(text: &str) -> Option<Problem> {
    let lines = text.lines().count();
    (lines > LONGEST_FILE)
        .then(|| Problem::at(LONGEST_FILE, format!("{lines} lines; split it, {LONGEST_FILE} at most")))
}

fn unfinished(text: &str) -> Vec<Problem> {
    // A test that only measures may be ignored; then the attribute has a reason.
    let marks = ["todo!(", "unimplemented!(", "#[ignore]"];
    let lines = text.lines().enumerate();
    lines
        .filter_map(|(index, line)| {
            let mark = marks.iter().find(|mark| line.contains(**mark))?;
            Some(Problem::at(index, format!("`{mark}`: finish or remove it")))
        })
        .collect()
}

/// Each `unsafe` block or impl has a SAFETY comment on its line or directly above its statement. Clippy checks this for
/// the host's crates; this also covers code that is compiled only for eBPF.
fn unsafe_without_reason(text: &str) -> Vec<Problem> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        if !(code.contains("unsafe {") || code.contains("unsafe impl")) || line.contains("SAFETY:") {
            continue;
        }
        // Up over the rest of the statement and its attributes, to the comment.
        let above = lines[..index].iter().rev();
        let mut above = above.skip_while(|line| !line.starts_with("//") && !ends_statement(line)).peekable();
        let comment = std::iter::from_fn(|| above.next_if(|line| line.starts_with("//")));
        if !comment.into_iter().any(|line| line.contains("SAFETY:")) {
            found.push(Problem::at(index, "`unsafe` without a SAFETY comment"));
        }
    }
    found
}

/// Whether what follows `line` is a new statement.
fn ends_statement(line: &str) -> bool {
    line.is_empty() || line.ends_with([';', '{', '}'])
}

/// The tree must work on every machine, so it names no folder of one.
fn machine_paths(text: &str) -> Vec<Problem> {
    let homes = [concat!("/", "root/"), concat!("/", "work/")];
    let lines = text.lines().enumerate();
    lines
        .filter_map(|(index, line)| {
            let home = homes.iter().find(|home| starts_a_path(line, home))?;
            Some(Problem::at(index, format!("contains `{home}`, a folder of one machine")))
        })
        .collect()
}

/// Whether `line` has `prefix` where an absolute path begins, rather than inside a longer path.
fn starts_a_path(line: &str, prefix: &str) -> bool {
    line.match_indices(prefix).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '.' | '_' | '-' | '}' | '/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(problems: &[Problem]) -> Vec<usize> {
        problems.iter().map(|problem| problem.line).collect()
    }

    #[test]
    fn a_file_may_have_500_lines_and_no_more() {
        assert_eq!(length(&"x\n".repeat(500)), None);
        assert_eq!(length(&"x\n".repeat(501)).unwrap().line, 501);
    }

    #[test]
    fn unsafe_needs_a_reason_above_its_statement() {
        let good = "// SAFETY: it is\n// fine.\nlet x =\n    unsafe { y() };\n";
        assert_eq!(unsafe_without_reason(good), []);
        assert_eq!(unsafe_without_reason("// SAFETY: fine\n#[inline]\nunsafe impl Send for X {}"), []);
        assert_eq!(unsafe_without_reason("// an unsafe { in a comment"), []);
        assert_eq!(lines(&unsafe_without_reason("// SAFETY: for another\nlet a = 1;\nunsafe { y() };")), [3]);
        assert_eq!(lines(&unsafe_without_reason("// no reason\nunsafe { y() };")), [2]);
    }

    #[test]
    fn unfinished_work_is_found() {
        let text = "fn a() {\n    todo!()\n}\n#[ignore]\n#[ignore = \"a measurement\"]\n";
        assert_eq!(lines(&unfinished(text)), [2, 4]);
    }

    #[test]
    fn folders_of_a_machine_are_found_but_not_relative_ones() {
        let text = concat!("see /", "root/x\nhttps://a.b/", "work/c\n\"/", "work/d\"\n$ROOT/", "work/x\n");
        assert_eq!(lines(&machine_paths(text)), [1, 3]);
    }
}
