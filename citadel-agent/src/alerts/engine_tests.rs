use super::*;
use crate::config;
use crate::metrics::catalogue::models::{CONNECTIONS_OPEN, STREAM_CHUNKS};
use crate::metrics::family::Value;

const MINUTE: Millis = 60 * 1000;

fn settings(rules: &str) -> Settings {
    let rules = config::parse("rules", &format!("alerts: {{shipped: false, rules: [{rules}]}}")).unwrap().alerts.rules;
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Settings {
        rules,
        interval: Duration::from_secs(15),
        settling: Duration::ZERO,
        labels: Texts::from([label("instance", "host")]),
        generator_url: None,
    }
}

const RULE: &str = "{alert: A, metric: citadel_model_connections_open, above: 3, severity: warning, labels: {team: ml}, \
                    annotations: {text: '{{ $labels.model }} on {{ $labels.instance }}: {{ $value }} > {{ $threshold }}'}}";

fn page(open: u64) -> Page {
    let mut page = Page::default();
    page.add(&CONNECTIONS_OPEN, ["phi3", ""], Value::Integer(open));
    page
}

#[test]
fn a_notification_has_every_label_and_says_the_values() {
    let mut engine = Engine::new(settings(RULE), vec![], 0, 0);
    assert!(engine.evaluate(&page(5), MINUTE));
    let due = engine.due(MINUTE);
    let [alert] = due.as_slice() else { panic!("{due:?}") };
    let labels: Vec<_> = alert.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    // The empty port is no label.
    assert_eq!(labels, ["alertname=A", "instance=host", "model=phi3", "severity=warning", "team=ml"]);
    assert_eq!(alert.annotations["text"], "phi3 on host: 5 > 3");
    assert_eq!(engine.firing().map(|(_, count)| count), [0, 1, 0]);
}

#[test]
fn what_fires_is_said_each_minute_and_what_ended_for_a_quarter_of_an_hour() {
    let mut engine = Engine::new(settings(RULE), vec![], 0, 0);
    let mut said = Vec::new();
    // True for 5 minutes, then not, a page each 15 s.
    for step in 0..200 {
        let now = step * MINUTE / 4;
        engine.evaluate(&page(if step < 20 { 5 } else { 0 }), now);
        said.extend(engine.due(now).iter().map(|alert| (now, alert.starts_at, alert.ends_at)));
    }
    let (firing, resolved): (Vec<_>, Vec<_>) = said.into_iter().partition(|(now, _, ends_at)| ends_at > now);
    let expected: Vec<_> = (0..5).map(|minute| (minute * MINUTE, 0, (minute + 4) * MINUTE)).collect();
    assert_eq!(firing, expected);
    let expected: Vec<_> = (5..=20).map(|minute| (minute * MINUTE, 0, 5 * MINUTE)).collect();
    assert_eq!(resolved, expected);
    assert_eq!(engine.alerts().count(), 0, "and then it is forgotten");
}

#[test]
fn a_long_interval_makes_alerts_live_longer() {
    let mut engine = Engine::new(Settings { interval: Duration::from_secs(300), ..settings(RULE) }, vec![], 0, 0);
    engine.evaluate(&page(5), 0);
    assert_eq!(engine.due(0)[0].ends_at, 20 * MINUTE);
}

#[test]
fn a_restart_resolves_nothing_before_the_window_is_full_again() {
    let rule = "{alert: A, metric: citadel_model_stream_chunks_total, increase: 5m, above: 10, severity: info}";
    let page = |chunks: u64| {
        let mut page = Page::default();
        page.add(&STREAM_CHUNKS, ["phi3", "11400", "completions"], Value::Integer(chunks));
        page
    };
    let mut engine = Engine::new(settings(rule), vec![], 0, 0);
    for step in 0..40u64 {
        engine.evaluate(&page(step * 5), step as Millis * MINUTE / 4);
    }
    let before: Vec<Alert> = engine.alerts().cloned().collect();
    assert!(matches!(before[0].phase, Phase::Firing { .. }));

    let restarted = 10 * MINUTE;
    let mut engine = Engine::new(settings(rule), before.clone(), restarted, restarted);
    let mut now = restarted;
    while now < restarted + 5 * MINUTE {
        engine.evaluate(&page(0), now);
        assert_eq!(engine.alerts().cloned().collect::<Vec<_>>(), before, "counters began at 0, which says nothing yet");
        now += MINUTE / 4;
    }
    engine.evaluate(&page(0), now);
    assert!(engine.alerts().all(|alert| matches!(alert.phase, Phase::Resolved { .. })));
}

#[test]
fn alerts_of_a_rule_that_was_taken_away_are_resolved() {
    let mut engine = Engine::new(settings(RULE), vec![], 0, 0);
    engine.evaluate(&page(5), 0);
    let mut engine = Engine::new(settings(""), engine.alerts().cloned().collect(), 0, 0);
    assert!(engine.evaluate(&page(5), MINUTE));
    assert_eq!(engine.due(MINUTE)[0].ends_at, MINUTE);
}

#[test]
fn a_clock_that_is_set_makes_nothing_fire() {
    let rule = "{alert: A, metric: citadel_model_connections_open, above: 3, for: 5m, severity: info}";
    let mut engine = Engine::new(settings(rule), vec![], 0, 0);
    engine.evaluate(&page(5), 0);
    // From 1970 to now, as on a machine without a clock of its own.
    let years = 1_700_000_000_000;
    engine.clock_was_set(years);
    engine.evaluate(&page(5), years + MINUTE);
    assert_eq!(engine.firing()[0].1, 0, "one minute of five");
    engine.evaluate(&page(5), years + 5 * MINUTE);
    assert_eq!(engine.firing()[0].1, 1);
}
