//! Rust's text as words, as far as imports are concerned.

use std::collections::BTreeSet;

/// The parts of a path.
pub(super) type Path = Vec<String>;

/// All paths in `text` that begin with `crate`, `super`, `self` or one of `children`, those of tests left out.
pub(super) fn paths(text: &str, children: &BTreeSet<&str>) -> Vec<Path> {
    let words = without_tests(&words(text));
    let mut found = Vec::new();
    let mut at = 0;
    // Braces that are open, and those among them of modules within the file, whose `super` is nearer.
    let (mut open, mut modules) = (0_usize, Vec::new());
    while let Some(word) = words.get(at) {
        match word.as_str() {
            "{" => {
                open += 1;
                if at >= 2 && words[at - 2] == "mod" {
                    modules.push(open);
                }
            }
            "}" => {
                modules.pop_if(|module| *module == open);
                open = open.saturating_sub(1);
            }
            _ => {}
        }
        let known = found.len();
        let before = |back: usize| at.checked_sub(back).and_then(|at| words.get(at)).map_or("", String::as_str);
        let begins = matches!(word.as_str(), "crate" | "super" | "self") || children.contains(word.as_str());
        // `use<'a>` says what a type captures.
        if word == "use" && words.get(at + 1).is_some_and(|next| next != "<") {
            at = tree(&words, at + 1, &[], &mut found);
        } else if begins && words.get(at + 1).is_some_and(|next| next == "::") && before(1) != "::" {
            let end = end_of_path(&words, at);
            // `pub(in crate::a)` imports nothing.
            if !(before(1) == "in" && before(2) == "(" && before(3) == "pub") {
                found.push(words[at..end].iter().filter(|word| *word != "::").cloned().collect());
            }
            at = end;
        } else {
            at += 1;
        }
        for path in &mut found[known..] {
            let inner = path.iter().take(modules.len()).take_while(|part| *part == "super").count();
            path.drain(..inner);
        }
    }
    found.retain(|path| {
        let first = path.first().map_or("", String::as_str);
        path.len() > 1 && matches!(first, "crate" | "super" | "self") || children.contains(first)
    });
    found
}

fn end_of_path(words: &[String], begin: usize) -> usize {
    let mut end = begin + 1;
    while words.get(end).is_some_and(|word| word == "::") && words.get(end + 1).is_some_and(|word| is_name(word)) {
        end += 2;
    }
    end
}

/// The paths of the `use` tree at `at`, below `prefix`; where it ends.
fn tree(words: &[String], mut at: usize, prefix: &[String], found: &mut Vec<Path>) -> usize {
    let mut path = prefix.to_vec();
    while let Some(word) = words.get(at) {
        match word.as_str() {
            "{" => {
                at += 1;
                // A semicolon: this is no tree, but a word `use` somewhere else.
                while words.get(at).is_some_and(|word| word != "}" && word != ";") {
                    at = tree(words, at, &path, found);
                    at += usize::from(words.get(at).is_some_and(|word| word == ","));
                }
                return at + 1;
            }
            "," | "}" | ";" => break,
            // `{self}` is the module itself; a new name names nothing.
            "self" if !prefix.is_empty() => {}
            "as" => at += 1,
            "::" => {}
            name => path.push(name.to_owned()),
        }
        at += 1;
    }
    found.push(path);
    at
}

/// The words without each item behind `#[cfg(test)]`.
fn without_tests(words: &[String]) -> Vec<String> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < words.len() {
        if words[at..].iter().map(String::as_str).take(MARK.len()).eq(MARK) {
            at = end_of_item(words, at + MARK.len());
        } else {
            kept.push(words[at].clone());
            at += 1;
        }
    }
    kept
}

/// Where the item at `at`, with its attributes, ends: behind its `;`, or its last brace.
fn end_of_item(words: &[String], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(word) = words.get(at) {
        at += 1;
        match word.as_str() {
            "{" | "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 && words.get(at).is_none_or(|next| next != ";") {
                    break;
                }
            }
            ";" if depth == 0 => break,
            _ => {}
        }
    }
    at
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names, `::` and other characters, without white space, comments and what is in strings.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => string(rest),
            'r' if rest.starts_with("r\"") || rest.starts_with("r#\"") => raw_string(rest),
            '\'' => character(rest),
            c if c.is_alphanumeric() || c == '_' => {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
                words.push(rest[..end].to_owned());
                end
            }
            ':' if rest.starts_with("::") => {
                words.push("::".to_owned());
                2
            }
            c => {
                if !c.is_whitespace() {
                    words.push(c.to_string());
                }
                c.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    words
}

/// How long the string is that `text` begins with.
fn string(text: &str) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|&(_, c)| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

fn raw_string(text: &str) -> usize {
    let hashes = text[1..].find('"').unwrap_or(0);
    let end = format!("\"{}", "#".repeat(hashes));
    let begin = 2 + hashes;
    text[begin..].find(&end).map_or(text.len(), |at| begin + at + end.len())
}

/// How long the character is that `text` begins with; of a lifetime, only the quote.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => {
            text[2..].find('\'').map_or(1, |at| if at == 0 { 4.min(text.len()) } else { 2 + at + 1 })
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        paths(text, &BTreeSet::from(["child"])).iter().map(|path| path.join("::")).collect()
    }

    #[test]
    fn trees_are_unfolded_and_other_crates_left_out() {
        let text =
            "use std::fs;\nuse crate::{a::{self, B}, c::D as E};\npub(super) use self::x::{Y, Z};\nuse child::*;";
        assert_eq!(found(text), ["crate::a", "crate::a::B", "crate::c::D", "self::x::Y", "self::x::Z", "child::*"]);
    }

    #[test]
    fn paths_in_code_are_found_and_those_in_text_are_not() {
        let text = "fn f<'a>(x: &'a super::T) -> char { child::f(\"crate::\\\"no\"); r#\"crate::no\"#; '\\''; crate::g::<u8>(other::child::f()) }";
        assert_eq!(found(text), ["super::T", "child::f", "crate::g"]);
        assert_eq!(
            found("mod m { use super::A; use super::super::b::B; } use super::c::C;"),
            ["super::b::B", "super::c::C"]
        );
        assert_eq!(found("/* crate::no */ self.a(); for x in crate::y() {}"), ["crate::y"]);
    }

    #[test]
    fn what_a_type_captures_is_no_import() {
        let text = "fn f<'a>() -> impl Fn() + use<'a> { let x = 1; crate::a::b() }\nfn g() -> impl Fn() + use<> { ; }";
        assert_eq!(found(text), ["crate::a::b"]);
    }
}
