//! Parses the text of an annotation into a [`Template`]: a subset of Prometheus' templates with the same meaning.

use super::types::{Format, Part, Template};
use crate::config::kind::{Scalar, TEXT};
use crate::config::mistakes::{nearest, quoted};
use crate::config::value;
use crate::config::yaml::Yaml;

pub(super) const TEMPLATE: Scalar<Template> = Scalar {
    text: "text with placeholders",
    schema: TEXT.schema,
    read: |node| value::string(node).and_then(parse),
    write: |template| Yaml::Text(text(template)),
};

fn text(Template(parts): &Template) -> String {
    let number = |variable: &str, format: &Format| match Format::NAMED.iter().find(|(named, _)| named == format) {
        None => format!("{{{{ ${variable} }}}}"),
        Some((_, name)) => format!("{{{{ ${variable} | {name} }}}}"),
    };
    let part = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Label(name) => format!("{{{{ $labels.{name} }}}}"),
        Part::Value(format) => number("value", format),
        Part::Threshold(format) => number("threshold", format),
    };
    parts.iter().map(part).collect()
}

/// Parses a text with template expressions in double braces.
fn parse(text: &str) -> Result<Template, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((placeholder, after)) = after.split_once("}}") else {
            return Err("a template expression has no closing }}".to_owned());
        };
        literal(&mut parts, before)?;
        parts.push(part(placeholder.trim())?);
        rest = after;
    }
    literal(&mut parts, rest)?;
    Ok(Template(parts))
}

fn literal(parts: &mut Vec<Part>, text: &str) -> Result<(), String> {
    if text.contains("}}") {
        return Err("}} without a matching {{".to_owned());
    }
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
    Ok(())
}

fn part(placeholder: &str) -> Result<Part, String> {
    let (variable, format) = match placeholder.split_once('|') {
        None => (placeholder, None),
        Some((variable, format)) => (variable.trim(), Some(format.trim())),
    };
    if let Some(label) = variable.strip_prefix("$labels.") {
        let name = label.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        return match (name, format) {
            (true, None) => Ok(Part::Label(label.to_owned())),
            (true, Some(_)) => Err(format!("$labels.{label} is a string and cannot be formatted")),
            (false, _) => Err(format!("{} is not a label name", quoted(label))),
        };
    }
    let make = match variable {
        "$value" => Part::Value,
        "$threshold" => Part::Threshold,
        _ => {
            let known = "$labels.NAME, $value and $threshold, numbers optionally followed by | and a format";
            return Err(format!("{} is not a template expression; use {known}", quoted(placeholder)));
        }
    };
    let Some(written) = format else { return Ok(make(Format::Plain)) };
    let named = Format::NAMED.iter().find(|(_, name)| *name == written);
    named.map(|(format, _)| make(*format)).ok_or_else(|| {
        let names = Format::NAMED.map(|(_, name)| name);
        let hint = nearest(written, names).map_or(names.join(", "), |near| format!("did you mean {near}?"));
        format!("{} is not a format; {hint}", quoted(written))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn placeholders_are_told_from_text() {
        let parts = parse("{{ $labels.model }} at {{$value|humanizeDuration}}, above {{ $threshold }}").unwrap().0;
        assert_eq!(
            parts,
            [
                Part::Label("model".to_owned()),
                Part::Text(" at ".to_owned()),
                Part::Value(Format::HumanizeDuration),
                Part::Text(", above ".to_owned()),
                Part::Threshold(Format::Plain),
            ]
        );
        assert_eq!(parse("100 % {of} it").unwrap().0, [Part::Text("100 % {of} it".to_owned())]);
    }

    #[test]
    fn what_prometheus_would_read_otherwise_is_refused() {
        for (text, why) in [
            ("{{ $value", "no closing }}"),
            ("a }} b", "without a matching"),
            ("{{ value }}", "is not a template expression"),
            ("{{ $value | humanise }}", "did you mean humanize?"),
            ("{{ $labels.model | humanize }}", "cannot be formatted"),
            ("{{ $labels.a-b }}", "is not a label name"),
            ("{{ query \"up\" }}", "is not a template expression"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn anything_gets_an_answer(text in "[{}$|a-z. ]{0,40}") {
            _ = parse(&text);
        }
    }
}
