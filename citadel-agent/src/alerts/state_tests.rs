use proptest::prelude::*;

use super::*;
use crate::config;

const SECOND: Millis = 1000;

/// A rule that holds for 30 s and keeps firing for 20 s.
fn rule(name: &str) -> Rule {
    let text = format!(
        "alerts: {{shipped: false, rules: [{{alert: {name}, metric: citadel_model_connections_open, above: 0, for: 30s, \
         keep_firing_for: 20s, severity: warning}}]}}"
    );
    config::parse("rule", &text).unwrap().alerts.rules.remove(0)
}

fn labels(name: &str) -> Texts {
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Texts::from([label("alertname", name), label("severity", "warning"), label("model", "phi3")])
}

fn found(name: &str) -> Vec<Found> {
    vec![Found { labels: labels(name), annotations: Texts::new() }]
}

/// An alert's life, a step each 10 s.
struct Life {
    rule: Rule,
    state: AlertStates,
    now: Millis,
}

impl Life {
    fn new() -> Self {
        Self { rule: rule("A"), state: AlertStates::default(), now: 0 }
    }

    fn step(&mut self, is_true: bool) -> Option<Phase> {
        self.step_settled(is_true, true)
    }

    fn step_settled(&mut self, is_true: bool, settled: bool) -> Option<Phase> {
        self.now += 10 * SECOND;
        self.state.step(&self.rule, if is_true { found("A") } else { vec![] }, self.now, settled);
        self.phase()
    }

    fn steps(&mut self, truths: &[bool]) -> Option<Phase> {
        truths.iter().fold(self.phase(), |_, &is_true| self.step(is_true))
    }

    fn phase(&self) -> Option<Phase> {
        self.state.alerts().next().map(|alert| alert.phase)
    }
}

const FIRING: [bool; 4] = [true; 4];

#[test]
fn it_fires_when_it_was_true_for_long_enough_without_a_break() {
    let mut life = Life::new();
    assert_eq!(life.steps(&[true, true, true]), Some(Phase::Pending { since: 10 * SECOND }));
    assert_eq!(life.step(false), None, "a break, and all begins anew");
    assert_eq!(life.steps(&[true, true, true]), Some(Phase::Pending { since: 50 * SECOND }));
    assert_eq!(life.step(true), Some(Phase::Firing { since: 80 * SECOND, untrue_since: None }));
    assert_eq!(life.state.firing(Severity::Warning), 1);
    assert_eq!(life.state.firing(Severity::Critical), 0);
}

#[test]
fn it_keeps_firing_and_forgets_a_break_that_was_short() {
    let mut life = Life::new();
    let since = 40 * SECOND;
    assert_eq!(life.steps(&FIRING), Some(Phase::Firing { since, untrue_since: None }));
    assert_eq!(life.step(false), Some(Phase::Firing { since, untrue_since: Some(50 * SECOND) }));
    assert_eq!(life.step(true), Some(Phase::Firing { since, untrue_since: None }));
    assert_eq!(life.steps(&[false, false]), Some(Phase::Firing { since, untrue_since: Some(70 * SECOND) }));
    assert_eq!(life.step(false), Some(Phase::Resolved { since, at: 90 * SECOND }));
    assert_eq!(life.state.firing(Severity::Warning), 0);
}

#[test]
fn a_resolved_one_is_remembered_for_a_while_and_can_begin_again() {
    let mut life = Life::new();
    life.steps(&FIRING);
    let resolved = Some(Phase::Resolved { since: 40 * SECOND, at: 70 * SECOND });
    assert_eq!(life.steps(&[false; 3]), resolved);
    assert_eq!(life.steps(&[false; 90]), resolved);
    assert_eq!(life.step(false), None, "15 minutes are over");

    life.steps(&FIRING);
    life.steps(&[false; 3]);
    assert_eq!(life.step(true), Some(Phase::Pending { since: life.now }), "from the beginning, with its `for`");
}

#[test]
fn without_for_it_fires_at_once() {
    let mut life = Life::new();
    life.rule.hold = std::time::Duration::ZERO;
    assert_eq!(life.step(true), Some(Phase::Firing { since: 10 * SECOND, untrue_since: None }));
}

#[test]
fn what_has_not_been_seen_for_long_enough_is_not_taken_for_untrue() {
    let mut life = Life::new();
    let firing = life.steps(&FIRING);
    life.state = AlertStates::restored(life.state.alerts().cloned().collect(), life.now, life.now);
    assert_eq!(life.step_settled(false, false), firing);
    assert!(matches!(life.step_settled(false, true), Some(Phase::Firing { untrue_since: Some(_), .. })));
}

#[test]
fn what_was_found_since_the_restart_is_believed_at_once() {
    let mut life = Life::new();
    life.steps(&FIRING);
    life.state = AlertStates::restored(life.state.alerts().cloned().collect(), life.now, life.now);
    life.step_settled(true, false);
    assert!(matches!(life.step_settled(false, false), Some(Phase::Firing { untrue_since: Some(_), .. })));
}

#[test]
fn the_time_away_counts_neither_for_nor_against_what_was_pending() {
    let mut life = Life::new();
    life.steps(&[true, true]);
    let saved = |state: &AlertStates| state.alerts().cloned().collect::<Vec<_>>();
    let minute = 60 * SECOND;
    life.state = AlertStates::restored(saved(&life.state), life.now, life.now + minute);
    life.now += minute;
    assert_eq!(life.step(true), Some(Phase::Pending { since: 70 * SECOND }), "20 of the 30 seconds are over");
    assert!(matches!(life.step(true), Some(Phase::Firing { .. })));

    let mut forgotten = Life::new();
    forgotten.steps(&[true, true]);
    let state = AlertStates::restored(saved(&forgotten.state), forgotten.now, forgotten.now + 2 * 60 * minute);
    assert_eq!(state.alerts().count(), 0);
}

#[test]
fn a_firing_one_outlives_a_restart_with_its_beginning() {
    let mut life = Life::new();
    let firing = life.steps(&FIRING);
    let alerts: Vec<Alert> = life.state.alerts().cloned().collect();
    let text = serde_json::to_string(&alerts).unwrap();
    life.state = AlertStates::restored(serde_json::from_str(&text).unwrap(), life.now, life.now + 3600 * SECOND);
    life.now += 3600 * SECOND;
    assert_eq!(life.step(true), firing);
}

#[test]
fn a_clock_set_back_over_a_restart_makes_nothing_pending_for_longer() {
    let mut life = Life::new();
    life.steps(&[true, true]);
    let day = 24 * 3600 * SECOND;
    // The clock was a day ahead until now.
    life.state.clock_was_set(day);
    life.state = AlertStates::restored(life.state.alerts().cloned().collect(), life.now + day, life.now);
    assert_eq!(life.step(true), Some(Phase::Pending { since: 10 * SECOND }));
    assert!(matches!(life.step(true), Some(Phase::Firing { .. })));
}

#[test]
fn alerts_of_a_rule_that_is_gone_end() {
    let mut life = Life::new();
    life.steps(&FIRING);
    assert!(life.state.end_others(|name| name == "B", life.now));
    assert_eq!(life.phase(), Some(Phase::Resolved { since: 40 * SECOND, at: 40 * SECOND }));
    assert!(!life.state.end_others(|name| name == "B", life.now), "once");
}

#[test]
fn rules_do_not_touch_each_others_alerts() {
    let mut state = AlertStates::default();
    let (a, b) = (rule("A"), rule("B"));
    for step in 0..5 {
        state.step(&a, found("A"), step * 10 * SECOND, true);
        state.step(&b, vec![], step * 10 * SECOND, true);
    }
    assert_eq!(state.alerts().map(Alert::name).collect::<Vec<_>>(), ["A"]);
    assert_eq!(state.firing(Severity::Warning), 1);
}

#[test]
fn a_clock_that_is_set_moves_all_times_along() {
    let mut life = Life::new();
    life.steps(&[true, true]);
    life.state.clock_was_set(1000 * SECOND);
    life.now += 1000 * SECOND;
    assert_eq!(life.step(true), Some(Phase::Pending { since: 1010 * SECOND }));
    assert!(matches!(life.step(true), Some(Phase::Firing { .. })));
}

proptest! {
    /// What the phases promise, whatever is true when.
    #[test]
    fn it_fires_if_and_only_if_it_was_true_for_long_enough(truths in prop::collection::vec(prop::bool::weighted(0.8), 1..60)) {
        let mut life = Life::new();
        for at in 0..truths.len() {
            let phase = life.step(truths[at]);
            let run = truths[..=at].iter().rev().take_while(|&&is_true| is_true).count();
            let gap = truths[..=at].iter().rev().take_while(|&&is_true| !is_true).count();
            if run >= 4 {
                prop_assert!(matches!(phase, Some(Phase::Firing { untrue_since: None, .. })), "true for 30 s: {:?}", phase);
            }
            if gap >= 3 {
                prop_assert!(!matches!(phase, Some(Phase::Firing { .. } | Phase::Pending { .. })), "untrue for 20 s: {:?}", phase);
            }
            if let Some(Phase::Firing { since, .. }) = phase {
                let fired = usize::try_from(since / (10 * SECOND)).unwrap();
                prop_assert!(truths[fired - 4..fired].iter().all(|&is_true| is_true), "it fired after 30 s of truth");
            }
        }
    }

    /// A restart in no time changes nothing.
    #[test]
    fn a_restart_is_as_if_nothing_had_been(truths in prop::collection::vec(prop::bool::weighted(0.7), 2..60), cut in 0usize..60) {
        let (mut through, mut restarted) = (Life::new(), Life::new());
        for (at, is_true) in truths.into_iter().enumerate() {
            if at == cut {
                let alerts = restarted.state.alerts().cloned().collect();
                restarted.state = AlertStates::restored(alerts, restarted.now, restarted.now);
            }
            prop_assert_eq!(through.step(is_true), restarted.step(is_true));
        }
    }
}
