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
        generator_url: String::new(),
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

/// 2026-01-01.
const NEW_YEAR: Millis = 1_767_225_600_000;

/// What an engine sends that is started at `now` with these phases, saved at `saved`, and sees a page each second for 3
/// minutes: 90 s on which the alerts are true, then not.
fn sent_after_a_restart(phases: &[Phase], saved: Millis, now: Millis) -> Vec<(Millis, Arc<Notification>)> {
    let rule = "{alert: A, metric: citadel_model_connections_open, above: 3, for: 30s, severity: warning}";
    let labels = |port: &str| {
        let labels =
            [("alertname", "A"), ("severity", "warning"), ("instance", "host"), ("model", "phi3"), ("port", port)];
        labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    };
    let alerts = (0..).zip(phases).map(|(port, phase)| Alert {
        labels: labels(&i32::to_string(&port)),
        annotations: Texts::new(),
        phase: *phase,
    });
    let settings = Settings { interval: Duration::from_secs(1), ..settings(rule) };
    let mut engine = Engine::new(settings, alerts.collect(), saved, now);
    let mut sent = Vec::new();
    for second in 0..180 {
        let now = now.saturating_add(second * 1000);
        let mut page = Page::default();
        for port in 0..phases.len() {
            let open = if second < 90 { 5 } else { 0 };
            page.add(&CONNECTIONS_OPEN, ["phi3", &port.to_string()], Value::Integer(open));
        }
        engine.evaluate(&page, now);
        sent.extend(engine.due(now).into_iter().map(|alert| (now, alert)));
    }
    sent
}

#[test]
fn no_alert_leaves_that_ends_before_it_begins_whatever_the_clock_did_while_the_agent_was_away() {
    let hour = 60 * MINUTE;
    let day = 24 * hour;
    let years = 30 * 366 * day;
    // What the clock said when the alerts were saved, and what it says now.
    let clocks = [
        ("no step", NEW_YEAR, NEW_YEAR),
        ("a second back", NEW_YEAR, NEW_YEAR - 1000),
        ("an hour back", NEW_YEAR, NEW_YEAR - hour),
        ("a day forward", NEW_YEAR, NEW_YEAR + day),
        ("years forward", NEW_YEAR, NEW_YEAR + years),
        ("before NTP, as at the first boot", NEW_YEAR, 20_000),
        ("set, which it was not", 20_000, NEW_YEAR),
        ("a file from the end of time", Millis::MAX, NEW_YEAR),
        ("a file from its beginning", Millis::MIN, NEW_YEAR),
    ];
    for (what, saved, now) in clocks {
        let (since, later) = (saved.saturating_sub(2 * hour), saved.saturating_sub(hour));
        let mut phases = vec![
            Phase::Firing { since, untrue_since: None },
            Phase::Firing { since, untrue_since: Some(later) },
            Phase::Resolved { since, at: saved.saturating_sub(MINUTE) },
            Phase::Pending { since: saved.saturating_sub(20_000) },
        ];
        for absurd in [Millis::MIN, -1, 0, now + hour, Millis::MAX] {
            phases.extend([
                Phase::Firing { since: absurd, untrue_since: None },
                Phase::Firing { since: absurd, untrue_since: Some(-absurd.saturating_add(1)) },
                Phase::Resolved { since: absurd, at: since },
                Phase::Resolved { since, at: absurd },
                Phase::Resolved { since: absurd, at: absurd },
                Phase::Pending { since: absurd },
            ]);
        }
        let sent = sent_after_a_restart(&phases, saved, now);
        for (at, alert) in &sent {
            assert!(alert.starts_at < alert.ends_at, "{what}: {alert:?}");
            assert!(alert.starts_at <= *at, "{what}: {alert:?} at {at}");
        }
        for (port, phase) in (0..).zip(&phases) {
            let of_port = sent.iter().filter(|(_, alert)| alert.labels["port"] == i32::to_string(&port));
            // What fired before is sent at 0 and a minute later; what fires and what ends when it does, and a minute later.
            let times = of_port.count();
            assert!((2..=6).contains(&times), "{what}, {phase:?}: sent {times} times in 3 minutes");
        }
    }
}

#[test]
fn a_clock_set_back_over_a_restart_keeps_the_age_of_what_fires() {
    let hour = 60 * MINUTE;
    for now in [NEW_YEAR - hour, 20_000] {
        let sent =
            sent_after_a_restart(&[Phase::Firing { since: NEW_YEAR - 10 * MINUTE, untrue_since: None }], NEW_YEAR, now);
        assert_eq!(sent[0].1.starts_at, now - 10 * MINUTE, "and is sent at once");
    }
}
