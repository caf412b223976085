//! The order of imports: no file imports, over whatever way, one that imports it; and no module of the agent imports one that
//! stands above it in `docs/architecture.md`.
//!
//! Imports are read as text: `use` and paths that begin with `crate`, `super`, `self` or the name of a child module. What a
//! folder's files take from the folder's own `mod.rs`, the types that they share, does not count, and neither do tests.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{self, Path};

/// A module and the file that it is.
type Files = BTreeMap<Path, String>;

/// Which files a file imports.
type Graph = BTreeMap<Path, BTreeSet<Path>>;

/// The files of one crate: their module paths, file names and imports.
#[derive(Default)]
pub(super) struct Crate {
    files: Files,
    imports: Graph,
}

impl Crate {
    /// Of all files below the `src` of a crate, with paths relative to it.
    pub(super) fn new(sources: &[(String, String)]) -> Self {
        let module = |file: &str| {
            let mut path: Path = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
            path.pop_if(|last| last == "mod" || last == "lib");
            path
        };
        let production = |file: &str| !file.split(['/', '.']).any(|part| part == "tests" || part.ends_with("_tests"));
        let sources: Vec<_> = sources.iter().filter(|(file, _)| production(file)).collect();
        let files: Files = sources.iter().map(|(file, _)| (module(file), file.clone())).collect();
        let imports = sources.iter().map(|(file, text)| {
            let own = module(file);
            let children: BTreeSet<&str> = files
                .keys()
                .filter(|path| path.split_last().is_some_and(|(_, parent)| parent == own))
                .map(last)
                .collect();
            let paths = source::paths(text, &children);
            let found = paths.iter().filter_map(|path| resolve(&own, path, &files));
            // Not itself and not the folders that it is in.
            let found: BTreeSet<Path> = found.filter(|path| !own.starts_with(path)).collect();
            (own, found)
        });
        let imports = imports.collect();
        Self { files, imports }
    }

    /// Each circle of files, as the files that are in it.
    pub(super) fn circles(&self) -> Vec<Vec<&str>> {
        // All that a file reaches; a circle is the files that reach each other.
        let reached: BTreeMap<&Path, BTreeSet<&Path>> =
            self.imports.keys().map(|file| (file, self.reached_from(file))).collect();
        let mut seen = BTreeSet::new();
        let mut circles = Vec::new();
        for (file, others) in &reached {
            if others.contains(*file) && !seen.contains(*file) {
                let circle: Vec<&Path> = others
                    .iter()
                    .copied()
                    .filter(|other| reached.get(other).is_some_and(|all| all.contains(*file)))
                    .collect();
                seen.extend(circle.iter().copied());
                circles.push(circle.into_iter().map(|path| self.files[path].as_str()).collect());
            }
        }
        circles
    }

    fn reached_from(&self, file: &Path) -> BTreeSet<&Path> {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&Path> = self.imports[file].iter().collect();
        while let Some(next) = open.pop() {
            if reached.insert(next) {
                open.extend(self.imports.get(next).into_iter().flatten());
            }
        }
        reached
    }

    /// What is wrong with the order of the crate's modules, which `order` lists from the top: an import may only go down.
    pub(super) fn out_of_order(&self, order: &[&str]) -> Vec<String> {
        let place = |module: &str| order.iter().position(|listed| *listed == module);
        let mut wrong = Vec::new();
        let mut unknown = BTreeSet::new();
        for (file, imports) in &self.imports {
            let Some(first) = file.first() else { continue };
            unknown.extend(place(first).is_none().then_some(first));
            // What a subcommand does stands beside what it is about, and belongs to the command line.
            let own = if last(file) == "command" { "cli" } else { first.as_str() };
            for import in imports {
                let Some(other) = import.first().filter(|other| *other != first) else { continue };
                if let (Some(from), Some(to)) = (place(own), place(other))
                    && to < from
                {
                    wrong.push(format!(
                        "{}: imports {}, but `{other}` stands above `{own}`",
                        self.files[file], self.files[import]
                    ));
                }
            }
        }
        wrong.extend(unknown.into_iter().map(|module| format!("the module `{module}` is not listed")));
        wrong
    }
}

fn last(path: &Path) -> &str {
    path.last().map_or("", String::as_str)
}

/// The module that `path`, written in the module `own`, names or is in.
fn resolve(own: &Path, path: &[String], files: &Files) -> Option<Path> {
    let (first, rest) = path.split_first()?;
    let ups = rest.iter().take_while(|part| *part == "super").count();
    let mut full = match first.as_str() {
        "crate" => Path::new(),
        "super" => own[..own.len().checked_sub(1 + ups)?].to_vec(),
        "self" => own[..own.len().checked_sub(ups)?].to_vec(),
        child => [own.as_slice(), &[child.to_owned()]].concat(),
    };
    full.extend(rest[ups..].iter().cloned());
    // What is left is an item of that module. The crate's root only declares modules.
    while !full.is_empty() && !files.contains_key(&full) {
        full.pop();
    }
    (!full.is_empty()).then_some(full)
}

/// The modules that the documentation lists, the topmost first: the first word of each line of the code block after the heading.
pub(super) fn documented(text: &str) -> Vec<&str> {
    let section = text.split("\n## The order of imports\n").nth(1).unwrap_or_default();
    let block = section.split("\n```").nth(1).unwrap_or_default();
    block.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_of(sources: &[(&str, &str)]) -> Crate {
        let owned = |&(file, text): &(&str, &str)| (file.to_owned(), text.to_owned());
        Crate::new(&sources.iter().map(owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_circle_is_found_over_any_way_and_named_by_its_files() {
        let found = crate_of(&[
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a/mod.rs", "mod x; pub use self::x::X;"),
            ("a/x.rs", "use crate::b::{self, B};"),
            ("b.rs", "fn f() { crate::c::g(); }"),
            ("c.rs", "use super::a::X;"),
            ("d.rs", "use crate::a::X;"),
        ]);
        assert_eq!(found.circles(), [["a/mod.rs", "a/x.rs", "b.rs", "c.rs"]]);
    }

    #[test]
    fn files_of_a_folder_share_what_its_mod_rs_declares_but_nothing_with_each_other_in_a_circle() {
        let folder = "mod x; mod y; pub struct A; fn f() { x::g() }";
        let shared = [("a/mod.rs", folder), ("a/x.rs", "use super::A;"), ("a/y.rs", "use crate::a::{A, x::X};")];
        assert!(crate_of(&shared).circles().is_empty());
        let circle = [("a/mod.rs", folder), ("a/x.rs", "use super::y::Y;"), ("a/y.rs", "use crate::a::{A, x::X};")];
        assert_eq!(crate_of(&circle).circles(), [["a/x.rs", "a/y.rs"]]);
    }

    #[test]
    fn tests_comments_and_visibility_import_nothing() {
        let text = "// use crate::a::A;\npub(in crate::a) struct B;\nconst TEXT: &str = \"crate::a::A\";\n\
                    #[cfg(test)]\nuse crate::a::A;\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n";
        let found = crate_of(&[("a.rs", "use crate::b::B;"), ("b.rs", text), ("b/tests.rs", "use crate::a::A;")]);
        assert!(found.circles().is_empty());
    }

    #[test]
    fn imports_go_down_the_documented_order() {
        let text = "# A\n\n## The order of imports\n\nFrom the top.\n\n```text\ncli      all\nsources  pages\nhost     facts\n```\n";
        let order = documented(text);
        assert_eq!(order, ["cli", "sources", "host"]);
        let found = crate_of(&[
            ("cli.rs", "use crate::sources::S;"),
            ("sources/mod.rs", "use crate::host::H;"),
            ("host/command.rs", "use crate::sources::S;"),
            ("host/mod.rs", "use crate::sources::S;"),
            ("new.rs", ""),
        ]);
        assert_eq!(
            found.out_of_order(&order),
            [
                "host/mod.rs: imports sources/mod.rs, but `sources` stands above `host`",
                "the module `new` is not listed",
            ]
        );
    }
}
