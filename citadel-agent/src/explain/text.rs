//! Explanations as a person reads them.

use std::fmt::Write as _;

use super::words::{percent, time};
use super::{Against, Explanation, Part};

/// All of them, one below the other.
#[must_use]
pub fn render(explanations: &[Explanation]) -> String {
    let mut text = String::new();
    for explanation in explanations {
        if !text.is_empty() {
            text.push('\n');
        }
        add(&mut text, explanation);
    }
    if explanations.is_empty() {
        text.push_str("no model was measured in this time\n");
    }
    text
}

fn add(text: &mut String, explanation: &Explanation) {
    let Explanation { model, port, verdict, against, .. } = explanation;
    let against = match against {
        Against::Before => "the hour before",
        Against::Yesterday => "yesterday",
    };
    let span = time((explanation.to_ms - explanation.from_ms) as f64 / 1000.0);
    // Writing to a string does not fail.
    let since = |since: i64| format!(" for {}", time((explanation.to_ms - since) as f64 / 1000.0));
    let since = explanation.since_ms.map_or(String::new(), since);
    _ = writeln!(text, "{model} (port {port}): {}{since} ({span} against {against})", verdict.word());
    _ = writeln!(text, "  {}", explanation.summary);
    for (number, cause) in (1..).zip(&explanation.causes) {
        let share = cause.share.map_or(String::new(), |share| format!(" [{}]", percent(share)));
        _ = writeln!(text, "  {number}. {}{share}", cause.sentence);
    }
    if !explanation.parts.is_empty() {
        let total: f64 = explanation.parts.iter().map(|part| part.now).sum();
        let part = |Part { part, now, before }: &Part| match before {
            Some(before) => format!("{part} {} ({})", time(*now), time(*before)),
            None => format!("{part} {}", time(*now)),
        };
        let worth = explanation.parts.iter().filter(|part| part.now.max(part.before.unwrap_or(0.0)) > 0.0);
        let list = worth.map(part).collect::<Vec<_>>().join(", ");
        _ = writeln!(text, "  Of {} to the first token (before): {list}", time(total));
    }
    for (title, list) in [("Ruled out", &explanation.ruled_out), ("Not measured here", &explanation.not_measured)] {
        if !list.is_empty() {
            _ = writeln!(text, "  {title}:");
            for line in list {
                _ = writeln!(text, "    - {line}");
            }
        }
    }
}
