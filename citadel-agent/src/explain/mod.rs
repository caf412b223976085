//! Why a model is slow, failing or silent: two windows of the history against each other, and rules that name causes.
//!
//! `usual` leaves out of what a window is compared with the times that were wrong themselves, `case` turns windows into numbers a request, `verdict` decides what is wrong at all, `rules` are a table of pure functions
//! each of which names a cause, rules it out or says that it is not measured, `parts` divides the time to first token, and
//! `text` writes it for a person.

mod case;
pub mod command;
pub mod parts;
mod rules;
pub mod slowdown;
#[cfg(test)]
mod tests;
pub mod text;
mod usual;
mod verdict;
mod words;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use self::case::{Case, Gpu};
use self::rules::{Finding, RULES};
use self::usual::Usual;
use self::words::Words as _;
use crate::history::window::Window;
use crate::history::{FINE_MS, History, Millis, SPAN_MS, Subject};

/// How long before a window its comparison reaches back.
const BEFORE_MS: Millis = 60 * 60 * 1000;

/// A day.
const DAY_MS: Millis = 24 * 60 * 60 * 1000;

/// Most causes that are named: of more, the last ones explain next to nothing.
const MAX_CAUSES: usize = 5;

/// What a window is compared with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Against {
    /// The hour before it.
    #[default]
    Before,
    /// The same time a day earlier, and half an hour around it.
    Yesterday,
}

/// How a model does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Requests fail, or the model is gone.
    Failing,
    /// Requests are in flight and get no answer.
    Stalled,
    /// Requests take longer than before.
    Slow,
    /// Far fewer requests come than before.
    Starved,
    /// Too few requests to tell.
    Unknown,
    /// Nothing is wrong.
    Well,
}

impl Verdict {
    /// In one word, or few.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Stalled => "stalled",
            Self::Slow => "slow",
            Self::Starved => "starved of requests",
            Self::Unknown => "too few requests to tell",
            Self::Well => "well",
        }
    }
}

/// A cause, the most telling first.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Cause {
    /// Its rule: `cpu_starvation`.
    pub cause: String,
    /// How much of what is wrong it explains, from 0 to 1, where that can be told.
    pub share: Option<f64>,
    /// In a sentence, with its numbers.
    pub sentence: String,
}

/// A part of the mean time to first token, in seconds. The parts of each window add up to its time.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Part {
    /// What the time passed in.
    pub part: String,
    /// In the window.
    pub now: f64,
    /// In what it is compared with; `None` without requests there.
    pub before: Option<f64>,
}

/// What is to be said of one model.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// The model's name.
    pub model: String,
    /// Its port.
    pub port: u16,
    /// The window, milliseconds since the epoch.
    pub from_ms: i64,
    /// Its end.
    pub to_ms: i64,
    /// What it is compared with.
    pub against: Against,
    /// How the model does.
    pub verdict: Verdict,
    /// Since when something has been wrong without a break, if that began before the window; milliseconds since the epoch.
    #[serde(default)]
    pub since_ms: Option<i64>,
    /// What that was decided by, in a sentence.
    pub summary: String,
    /// Why, the most telling first.
    pub causes: Vec<Cause>,
    /// What is normal.
    pub ruled_out: Vec<String>,
    /// What cannot be told on this host.
    pub not_measured: Vec<String>,
    /// Parts of the mean time to first token (to the first byte where nothing is streamed).
    pub parts: Vec<Part>,
    /// Requests that ended in the window.
    pub requests: u64,
    /// Requests that ended in what it is compared with.
    pub requests_before: u64,
}

/// Explains one model, or all where `port` is `None`, between two times. Worst first.
#[must_use]
pub fn explain(
    history: &History,
    port: Option<u16>,
    from_ms: Millis,
    to_ms: Millis,
    against: Against,
) -> Vec<Explanation> {
    let subjects = history.subjects();
    let span = to_ms.saturating_sub(from_ms).clamp(FINE_MS, SPAN_MS);
    let now = (to_ms - span, to_ms);
    let before = match against {
        Against::Before => (now.0 - BEFORE_MS, now.0),
        Against::Yesterday => (now.0 - DAY_MS - BEFORE_MS / 2, now.1 - DAY_MS + BEFORE_MS / 2),
    };
    let windows = |usual: &Usual| -> Windows<'_> {
        let both = |subject| (subject, (history.window(subject, now.0, now.1), usual.window(history, subject)));
        subjects.keys().map(both).collect()
    };
    // Those of all models, because another may have taken what one lacks.
    let all = windows(&Usual::all(before));
    let models = subjects.iter().filter_map(|(subject, name)| match subject {
        Subject::Model(found) if port.is_none_or(|port| port == *found) => Some((subject, *found, name)),
        _ => None,
    });
    let mut explanations: Vec<_> = models
        .filter_map(|(subject, port, name)| {
            let usual = match against {
                Against::Before => Usual::of(history, subject, before),
                Against::Yesterday => Usual::all(before),
            };
            let own = (!usual.is_all()).then(|| windows(&usual));
            let mut explanation = explain_one(&subjects, subject, own.as_ref().unwrap_or(&all))?;
            (explanation.model, explanation.port) = (name.to_string(), port);
            (explanation.from_ms, explanation.to_ms, explanation.against) = (now.0, now.1, against);
            let is_wrong = matches!(explanation.verdict, Verdict::Failing | Verdict::Stalled | Verdict::Slow);
            explanation.since_ms = usual.wrong_since().filter(|_| is_wrong);
            Some(explanation)
        })
        .collect();
    explanations.sort_by_key(|explanation| explanation.verdict);
    explanations
}

/// The window of each subject, and what it is compared with.
type Windows<'a> = BTreeMap<&'a Subject, (Window, Window)>;

fn explain_one(subjects: &BTreeMap<Subject, SmolStr>, model: &Subject, windows: &Windows<'_>) -> Option<Explanation> {
    let nothing = (Window::default(), Window::default());
    let gpus = subjects.iter().filter_map(|(subject, index)| match subject {
        Subject::Gpu(uuid) => {
            let (now, before) = windows.get(subject)?.clone();
            Some(Gpu { uuid: uuid.to_string(), index: index.to_string(), now, before })
        }
        _ => None,
    });
    let gpus: Vec<_> = gpus.collect();
    let others = subjects.iter().filter(|(subject, _)| matches!(subject, Subject::Model(_)) && *subject != model);
    let others = others.filter_map(|(subject, name)| {
        let (now, before) = windows.get(subject)?;
        Some((name.as_str(), now, before))
    });
    let (own, own_before) = windows.get(model)?;
    let (host, host_before) = windows.get(&Subject::Host).unwrap_or(&nothing);
    Some(judge(&Case::new(own, own_before, (host, host_before), &gpus, others.collect())))
}

/// What is to be said of a case. Pure.
fn judge(case: &Case<'_>) -> Explanation {
    let (verdict, summary) = verdict::verdict(case);
    let (mut causes, mut ruled_out, mut not_measured) = (Vec::new(), Vec::new(), Vec::new());
    for rule in RULES {
        match (rule.judge)(case) {
            Finding::Cause { weight, share, sentence } => causes.push((weight, rule.name, share, sentence)),
            Finding::RuledOut(text) => ruled_out.push(text),
            Finding::NotMeasured(text) => not_measured.push(text),
            Finding::Silent => {}
        }
    }
    // Where nothing is wrong, nothing has a cause.
    match verdict {
        Verdict::Well | Verdict::Unknown => causes.clear(),
        // Only what happened to the model itself: few requests have other prompts by chance.
        Verdict::Starved => causes.retain(|(weight, ..)| *weight >= 1.0),
        _ => {}
    }
    if matches!(verdict, Verdict::Unknown | Verdict::Starved) {
        ruled_out.clear();
    }
    causes.sort_by(|a, b| b.0.total_cmp(&a.0));
    causes.truncate(MAX_CAUSES);
    let mut causes: Vec<_> = causes
        .into_iter()
        .map(|(_, name, share, sentence)| Cause {
            cause: name.to_owned(),
            share: share.map(|share| share.min(1.0)),
            sentence,
        })
        .collect();
    if causes.is_empty() && !matches!(verdict, Verdict::Well | Verdict::Unknown) {
        let sentence = rules::nothing_found(case, verdict);
        causes.push(Cause { cause: "not_found".to_owned(), share: None, sentence });
    }
    Explanation {
        model: String::new(),
        port: 0,
        from_ms: 0,
        to_ms: 0,
        against: Against::Before,
        verdict,
        since_ms: None,
        summary,
        causes,
        ruled_out,
        not_measured,
        parts: parts::parts(case),
        requests: case.now.ended as u64,
        requests_before: case.before.ended as u64,
    }
}

impl Explanation {
    /// Its first sentences, for an alert: what is wrong, and why most likely.
    #[must_use]
    pub fn first_sentences(&self) -> String {
        let causes = self.causes.iter().take(2).map(|cause| cause.sentence.as_str());
        std::iter::once(self.summary.as_str()).chain(causes).collect::<Vec<_>>().join(" ").cut(1000)
    }
}
