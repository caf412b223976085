//! A strict reader of both text formats. It panics on what is not allowed, since it reads only what tests made.

use std::collections::BTreeMap;

/// Labels of a series, by name.
pub type Labels = BTreeMap<String, String>;

/// A page as read.
#[derive(Default, Debug, PartialEq)]
pub struct Parsed {
    /// HELP by family.
    pub help: BTreeMap<String, String>,
    /// TYPE by family.
    pub kind: BTreeMap<String, String>,
    /// UNIT by family.
    pub unit: BTreeMap<String, String>,
    /// Families in the order of their TYPE lines.
    pub order: Vec<String>,
    /// Values by name and labels.
    pub samples: BTreeMap<(String, Labels), f64>,
    /// Whether the page ends with `# EOF`.
    pub eof: bool,
}

impl Parsed {
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }
}

pub fn parse(page: &str) -> Parsed {
    let mut parsed = Parsed::default();
    assert!(page.is_empty() || page.ends_with('\n'), "the last line has no end");
    for line in page.split_terminator('\n') {
        assert!(!parsed.eof, "a line after # EOF: {line}");
        if line == "# EOF" {
            parsed.eof = true;
        } else if let Some(metadata) = line.strip_prefix("# ") {
            let (keyword, rest) = metadata.split_once(' ').expect("a keyword");
            let (name, text) = rest.split_once(' ').expect("a name");
            let into = match keyword {
                "HELP" => &mut parsed.help,
                "TYPE" => &mut parsed.kind,
                "UNIT" => &mut parsed.unit,
                _ => panic!("unknown metadata: {line}"),
            };
            assert_eq!(into.insert(name.to_owned(), unescape(text)), None, "{keyword} twice: {name}");
            if keyword == "TYPE" {
                parsed.order.push(name.to_owned());
            }
        } else {
            let (series, value) = sample(line);
            assert_eq!(parsed.samples.insert(series, value), None, "twice: {line}");
        }
    }
    parsed
}

/// Undoes the escapes of label values, which include those of HELP.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some(c @ ('\\' | '"')) => c,
                other => panic!("escape {other:?} in {text}"),
            },
            c => c,
        });
    }
    out
}

fn sample(line: &str) -> ((String, Labels), f64) {
    let name_end = line.find(['{', ' ']).expect("an end of the name");
    let (name, mut rest) = line.split_at(name_end);
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    assert!(!name.is_empty() && name.chars().all(valid), "name of {line}");
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").expect("a label");
            assert!(label.chars().all(valid), "label {label} of {line}");
            let end = closing_quote(after);
            assert_eq!(labels.insert(label.to_owned(), unescape(&after[..end])), None, "label {label} twice: {line}");
            rest = &after[end + 1..];
            match rest.chars().next() {
                Some(',') => rest = &rest[1..],
                Some('}') => break,
                other => panic!("{other:?} after a label: {line}"),
            }
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').expect("a space before the value");
    ((name.to_owned(), labels), value.parse().unwrap_or_else(|_| panic!("value of {line}")))
}

fn closing_quote(text: &str) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices() {
        match c {
            '"' if !escaped => return i,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    panic!("no closing quote: {text}");
}
