//! Parses `metric{label="value", ...}` in PromQL syntax into a [`Selector`].

use super::types::{Matcher, Pattern, Selector, Test};
use crate::config::kind::{Scalar, string_like};
use crate::config::mistakes::{nearest, quoted};
use crate::config::value;
use crate::config::yaml::Yaml;
use crate::metrics::catalogue::{self, Desc};

/// Maximum length of a matcher's regular expression.
const MAX_PATTERN: usize = 1024;

pub(super) const SELECTOR: Scalar<Selector> = Scalar {
    text: "metric, optionally with label matchers in braces",
    schema: || string_like("^\\s*[A-Za-z_:]"),
    read: |node| value::string(node).and_then(parse),
    write: |selector| Yaml::Text(text(selector)),
};

/// A selector in PromQL syntax.
#[must_use]
pub fn text(selector: &Selector) -> String {
    let matchers = selector.matchers.iter().map(|matcher| {
        let (operator, text) = matcher.test.parts();
        let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{}{operator}\"{text}\"", matcher.label)
    });
    match selector.matchers.is_empty() {
        true => selector.metric.name.to_owned(),
        false => format!("{}{{{}}}", selector.metric.name, matchers.collect::<Vec<_>>().join(", ")),
    }
}

/// Parses a selector and checks its metric and labels against the catalogue.
fn parse(text: &str) -> Result<Selector, String> {
    let (name, matchers) = match text.find('{') {
        None => (text, None),
        Some(brace) => (&text[..brace], Some(&text[brace + 1..])),
    };
    let metric = metric(name.trim())?;
    let mut selector = Selector { metric, matchers: Vec::new() };
    let Some(mut rest) = matchers.map(str::trim_start) else { return Ok(selector) };
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return match after.trim() {
                "" => Ok(selector),
                after => Err(format!("unexpected {} after the closing brace", quoted(after))),
            };
        }
        let (matcher, after) = matcher(metric, rest)?;
        selector.matchers.push(matcher);
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest.starts_with('}') => {}
            None if rest.is_empty() => return Err("the closing brace is missing".to_owned()),
            None => return Err(format!("expected a comma or a closing brace before {}", quoted(rest))),
        }
    }
}

/// The catalogue entry, or a suggestion.
fn metric(name: &str) -> Result<&'static Desc, String> {
    if let Some(desc) = catalogue::all().find(|desc| desc.name == name) {
        return Ok(desc);
    }
    let part = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
    if let Some(whole) = part.filter(|whole| catalogue::all().any(|desc| desc.name == *whole)) {
        return Err(format!("use the name of the histogram: {whole}"));
    }
    let hint = match nearest(name, catalogue::all().map(|desc| desc.name)) {
        Some(near) => format!("; did you mean {near}?"),
        None => "; see docs/metrics.md for all metrics".to_owned(),
    };
    Err(format!("{} is not a metric of this agent{hint}", quoted(name)))
}

/// Parses a matcher at the start of `text`; returns it and the rest.
fn matcher<'a>(metric: &'static Desc, text: &'a str) -> Result<(Matcher, &'a str), String> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    let (label, rest) = (&text[..end], text[end..].trim_start());
    let Some(index) = metric.labels.iter().position(|known| *known == label) else {
        let known = match metric.labels {
            [] => "it has no labels".to_owned(),
            labels => format!("it has {}", labels.join(", ")),
        };
        return Err(format!("{} is not a label of {}: {known}", quoted(label), metric.name));
    };
    let operator =
        ["=~", "!~", "!=", "="].into_iter().find_map(|operator| Some((operator, rest.strip_prefix(operator)?)));
    let Some((operator, rest)) = operator else {
        return Err(format!("expected =, !=, =~ or !~ after label {label}"));
    };
    let (value, rest) = string(rest.trim_start()).map_err(|why| format!("the value of label {label} {why}"))?;
    let test = match operator {
        "=~" => Test::Matches(pattern(&value)?),
        "!~" => Test::MatchesNot(pattern(&value)?),
        "!=" => Test::NotEqual(value),
        _ => Test::Equal(value),
    };
    Ok((Matcher { label: metric.labels[index], index, test }, rest))
}

fn pattern(text: &str) -> Result<Pattern, String> {
    if text.len() > MAX_PATTERN {
        return Err(format!("the regular expression is longer than {MAX_PATTERN} bytes"));
    }
    Pattern::new(text).map_err(|error| format!("{} is not a valid regular expression: {error}", quoted(text)))
}

/// Parses a quoted string at the start of `text`; returns it unescaped, and the rest.
fn string(text: &str) -> Result<(String, &str), String> {
    let mut chars = text.char_indices();
    let Some((_, quote @ ('"' | '\''))) = chars.next() else {
        return Err("must be in quotes".to_owned());
    };
    let mut value = String::new();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.push(match chars.next() {
                Some((_, 'n')) => '\n',
                Some((_, 't')) => '\t',
                Some((_, c @ ('\\' | '"' | '\''))) => c,
                other => {
                    let escaped = other.map_or(String::new(), |(_, c)| c.to_string());
                    return Err(format!(r#"has the unknown escape "\{escaped}"; write a backslash as \\"#));
                }
            }),
            c if c == quote => return Ok((value, &text[at + 1..])),
            c => value.push(c),
        }
    }
    Err("has no closing quote".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(text: &str) -> String {
        parse(text).expect_err(text)
    }

    #[test]
    fn matchers_mean_what_they_mean_in_promql() {
        let selector =
            parse(r#"citadel_model_requests_total{code=~"5..|4\\d9", endpoint!="health" , model!~'x.*',}"#).unwrap();
        let selects = |model: &str, endpoint: &str, code: &str| {
            selector.selects(&[model, "11400", endpoint, code].map(Into::into).into())
        };
        assert!(selects("phi3", "completions", "503"));
        assert!(selects("phi3", "", "429"), "an absent label is an empty one");
        assert!(!selects("phi3", "completions", "5033"), "anchored at the end");
        assert!(!selects("phi3", "completions", "1503"), "and at the beginning");
        assert!(!selects("phi3", "health", "503"));
        assert!(!selects("xyz", "completions", "503"));
        assert!(parse("citadel_model_requests_total").unwrap().matchers.is_empty());
        assert!(parse("citadel_model_requests_total{}").unwrap().matchers.is_empty());
    }

    #[test]
    fn mistakes_say_what_would_be_right() {
        assert!(refused("citadel_model_request_total").contains("did you mean citadel_model_requests_total?"));
        assert!(refused("citadel_model_tcp_rtt_seconds_bucket").contains("use the name of the histogram"));
        assert!(refused(r#"citadel_model_requests_total{cod="200"}"#).contains("it has model, port, endpoint, code"));
        assert!(refused(r#"citadel_model_requests_total{code="200""#).contains("closing brace is missing"));
        assert!(refused(r#"citadel_model_requests_total{code=200}"#).contains("must be in quotes"));
        assert!(refused(r#"citadel_model_requests_total{code~"200"}"#).contains("expected =, !=, =~ or !~"));
        assert!(refused(r#"citadel_model_requests_total{code="200" port="1"}"#).contains("expected a comma"));
        assert!(refused(r#"citadel_model_requests_total{code="200"}[5m]"#).contains("after the closing brace"));
        assert!(refused(r#"citadel_model_requests_total{code=~"5("}"#).contains("is not a valid regular expression"));
        assert!(
            refused(r#"citadel_model_requests_total{code=~"5)|(4"}"#).contains("is not a valid regular expression")
        );
        assert!(refused(r#"citadel_model_requests_total{code=~"\d"}"#).contains("unknown escape"));
        assert!(refused("").contains("is not a metric"));
    }

    proptest! {
        #[test]
        fn anything_gets_an_answer(text in "\\PC{0,40}", tail in "[a-z\"'=~!{},\\\\ ]{0,30}") {
            _ = parse(&text);
            _ = parse(&format!("citadel_model_requests_total{{{tail}"));
        }
    }
}
