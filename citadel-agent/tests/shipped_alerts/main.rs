//! Every shipped rule in simulated time, minutes after the agent's start: it fires once for what it is made for and stays,
//! however fast pages come and however slow the source is, and it does not fire for what looks alike.

mod cases;

use std::collections::BTreeSet;
use std::time::Duration;

use citadel_agent::alerts::{Engine, Phase, Settings, Texts};
use citadel_agent::config::resolved::Config;
use citadel_agent::config::resolved::alerts::{Rule, optional};
use citadel_agent::metrics::catalogue::agent::PROCESS_START;
use citadel_agent::metrics::catalogue::{self, Desc};
use citadel_agent::metrics::family::{Family, LabelValues, Page, Sample, Value};
use citadel_agent_common::hist::Histogram;

use cases::CASES;

/// When the agent starts: 2026-01-01, in seconds.
const START: i64 = 1_767_225_600;

/// What happens does so at this second after the start.
const EVENT: i64 = 180;

/// What a series does.
#[derive(Clone, Copy)]
enum Does {
    /// Has this value.
    Is(f64),
    /// Has the first value until the event, then the second.
    Then(f64, f64),
    /// Is absent until the event, then has this value.
    Appears(f64),
    /// Is absent until the event, then grows by so much a minute.
    AppearsAndGrows(f64),
    /// Is absent until its source is read for the first time, a minute before the event.
    IsReadLate(f64),
    /// Begins at the first value and changes by so much a minute, from the event on by the last.
    Grows(f64, f64, f64),
    /// Observes so many nanoseconds each 5 seconds, from the event on the second.
    Takes(u64, u64),
}

use Does::{Appears, AppearsAndGrows, Grows, Is, IsReadLate, Takes, Then};

impl Does {
    fn at(self, second: i64) -> Option<Value> {
        let happened = second >= EVENT;
        let minutes = |seconds: i64| seconds as f64 / 60.0;
        let value = match self {
            Is(value) => value,
            Then(before, after) => {
                if happened {
                    after
                } else {
                    before
                }
            }
            Appears(value) => happened.then_some(value)?,
            AppearsAndGrows(pace) => happened.then(|| (minutes(second - EVENT) * pace).floor() + 1.0)?,
            IsReadLate(value) => (second >= EVENT - 60).then_some(value)?,
            Grows(from, before, after) => {
                let value = from + minutes(second.min(EVENT)) * before + minutes((second - EVENT).max(0)) * after;
                value.max(0.0)
            }
            Takes(before, after) => {
                let mut histogram = Histogram::EMPTY;
                (0..second / 5).for_each(|i| histogram.observe(if i * 5 < EVENT { before } else { after }));
                return Some(Value::Histogram(Box::new(histogram)));
            }
        };
        Some(Value::Float(value))
    }
}

/// A series: metric, labels as in PromQL without quotes, what it does. Labels that are not named are `x`.
type Series = (&'static str, &'static str, Does);

/// What makes one rule fire within so many minutes (besides its `for`), and what does not.
struct Case {
    rule: &'static str,
    minutes: i64,
    fires: &'static [Series],
    does_not: &'static [Series],
}

const fn case(rule: &'static str, fires: &'static [Series], does_not: &'static [Series]) -> Case {
    Case { rule, minutes: 0, fires, does_not }
}

/// How pages come: each so many seconds, with what the source read at the last multiple of so many.
#[derive(Clone, Copy, Debug)]
struct Pace {
    interval: i64,
    source: i64,
}

const PACES: [Pace; 4] = [
    Pace { interval: 1, source: 1 },
    Pace { interval: 15, source: 15 },
    Pace { interval: 15, source: 60 },
    Pace { interval: 60, source: 60 },
];

fn desc(name: &str) -> &'static Desc {
    catalogue::all().find(|desc| desc.name == name).unwrap_or_else(|| panic!("{name}"))
}

fn page(series: &[Series], second: i64) -> Page {
    let mut page = Page::default();
    page.add(&PROCESS_START, [], Value::Integer(START.try_into().unwrap()));
    for (name, labels, does) in series {
        let Some(value) = does.at(second) else { continue };
        let desc = desc(name);
        let named: Vec<_> = labels.split(',').filter_map(|label| label.split_once('=')).collect();
        let value_of = |label: &&str| named.iter().find(|(name, _)| name == label).map_or("x", |(_, value)| value);
        assert!(named.iter().all(|(name, _)| desc.labels.contains(name)), "{name}{{{labels}}}");
        let sample =
            Sample { labels: desc.labels.iter().map(|label| value_of(label).into()).collect::<LabelValues>(), value };
        match page.families.iter_mut().find(|family| family.desc.name == desc.name) {
            Some(family) => family.samples.push(sample),
            None => page.families.push(Family { desc, samples: vec![sample], began: None }),
        }
    }
    page
}

/// The shipped rules, those that are off by default too.
fn all() -> impl Iterator<Item = Rule> {
    Config::default().alerts.rules.into_iter().chain(optional())
}

fn rule(name: &str) -> Rule {
    all().find(|rule| rule.name == name).unwrap_or_else(|| panic!("{name}"))
}

fn seconds(duration: Duration) -> i64 {
    duration.as_secs().try_into().unwrap()
}

/// From when to when the rule fires, in seconds after the start, until long after the event.
fn firing(rule: &Rule, series: &[Series], pace: Pace) -> Vec<(i64, i64)> {
    let settings = Settings {
        rules: vec![rule.clone()],
        interval: Duration::from_secs(pace.interval.unsigned_abs()),
        settling: Duration::ZERO,
        labels: Texts::new(),
        generator_url: String::new(),
    };
    let mut engine = Engine::new(settings, vec![], START * 1000, START * 1000);
    let mut periods: Vec<(i64, i64)> = Vec::new();
    let end = EVENT + seconds(rule.hold) + 2400;
    // The first page comes a moment after the start.
    for second in (1..end).step_by(pace.interval.unsigned_abs().try_into().unwrap()) {
        engine.evaluate(&page(series, second / pace.source * pace.source), (START + second) * 1000);
        if engine.alerts().any(|alert| matches!(alert.phase, Phase::Firing { .. })) {
            match periods.last_mut() {
                Some((_, until)) if *until == second - pace.interval => *until = second,
                _ => periods.push((second, second)),
            }
        }
    }
    periods
}

#[test]
fn there_is_a_case_for_every_shipped_rule() {
    let shipped: BTreeSet<_> = all().map(|rule| rule.name).collect();
    let tried: BTreeSet<_> = CASES.iter().map(|case| case.rule.to_owned()).collect();
    assert_eq!(shipped, tried);
    assert_eq!(CASES.len(), shipped.len());
}

#[test]
fn every_rule_fires_once_and_stays_in_the_first_minutes_of_the_agent() {
    let mut wrong = Vec::new();
    for (case, pace) in CASES.iter().flat_map(|case| PACES.map(|pace| (case, pace))) {
        let rule = rule(case.rule);
        // An observation comes each 5 seconds.
        let (hold, late) = (seconds(rule.hold), pace.interval + pace.source + 5);
        let (earliest, latest) = (EVENT + hold, EVENT + hold + case.minutes * 60 + late);
        let periods = firing(&rule, case.fires, pace);
        let is_right = |&(from, until): &(i64, i64)| (earliest..=latest).contains(&from) && until - from >= 600 - late;
        if periods.len() != 1 || !periods.iter().all(is_right) {
            wrong.push(format!("{}, {pace:?}: {periods:?}, to begin from {earliest} to {latest}", case.rule));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_rule_fires_for_what_looks_alike() {
    for (case, pace) in CASES.iter().flat_map(|case| PACES.map(|pace| (case, pace))) {
        assert_eq!(firing(&rule(case.rule), case.does_not, pace), [], "{}, {pace:?}", case.rule);
    }
}
