//! Names in PromQL expressions: enough of the language to hold them against the catalogue.

use std::collections::BTreeSet;

/// What stands before a list of labels in parentheses.
const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// Words that are neither metrics nor labels.
const WORDS: [&str; 6] = ["and", "or", "unless", "offset", "bool", "atan2"];

/// A metric of an expression and the labels that its matchers name.
pub type Selector = (String, BTreeSet<String>);

/// The metrics of an expression, and the labels that it groups or matches by.
pub fn names(expression: &str) -> (Vec<Selector>, BTreeSet<String>) {
    let (mut metrics, mut grouped) = (Vec::<Selector>::new(), BTreeSet::new());
    let mut rest = expression;
    // What the next parenthesis or brace holds.
    let mut labels_follow = false;
    while let Some(c) = rest.chars().next() {
        let end = match c {
            '[' => rest.find(']').map_or(rest.len(), |end| end + 1),
            '"' | '\'' => after_string(rest, c),
            '{' => {
                let end = after_braces(rest);
                let labels = matched(&rest[1..end - 1]);
                metrics.last_mut().expect("a name before the braces").1.extend(labels);
                end
            }
            '(' if labels_follow => {
                let end = rest.find(')').expect("a closing parenthesis");
                grouped
                    .extend(rest[1..end].split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()));
                end + 1
            }
            c if c.is_ascii_digit() => {
                rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len())
            }
            c if c.is_ascii_alphabetic() || c == '_' => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':').unwrap_or(rest.len());
                let (word, after) = (&rest[..end], rest[end..].trim_start());
                labels_follow = GROUPING.contains(&word);
                // An aggregation may have its labels before its argument: `sum by (a) (x)`.
                let called = after.starts_with('(')
                    || GROUPING.iter().any(|grouping| after.starts_with(&format!("{grouping} (")));
                if !labels_follow && !called && !WORDS.contains(&word) {
                    metrics.push((word.to_owned(), BTreeSet::new()));
                }
                rest = after;
                continue;
            }
            c => c.len_utf8(),
        };
        labels_follow &= c.is_whitespace();
        rest = &rest[end..];
    }
    (metrics, grouped)
}

/// Where the string that begins `text` ends.
fn after_string(text: &str, quote: char) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|&(_, c)| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.expect("a closing quote").0 + 1
}

/// Where the braces that begin `text` end.
fn after_braces(text: &str) -> usize {
    let mut at = 1;
    loop {
        match text[at..].chars().next().expect("a closing brace") {
            '}' => return at + 1,
            c @ ('"' | '\'') => at += after_string(&text[at..], c),
            c => at += c.len_utf8(),
        }
    }
}

/// Label names of the matchers between braces.
fn matched(mut text: &str) -> Vec<String> {
    let mut labels = Vec::new();
    while let Some(end) = text.find(['=', '!']) {
        labels.push(text[..end].trim_matches([' ', ',']).to_owned());
        let quote = text.find(['"', '\'']).expect("a value in quotes");
        let value = &text[quote..];
        text = &value[after_string(value, value.chars().next().unwrap())..];
    }
    labels
}
