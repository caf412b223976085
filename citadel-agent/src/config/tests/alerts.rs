//! Alert rules: what is accepted, what is refused and in which words.

use std::time::Duration;

use crate::config::resolved::alerts::{Compare, Function, Rule, Severity};
use crate::config::{Config, parse, print};

fn ok(text: &str) -> Config {
    parse("FILE", text).unwrap_or_else(|errors| panic!("refused:\n{text}\n{errors}"))
}

#[track_caller]
fn refused(text: &str, expected: &[&str]) {
    let errors = parse("FILE", text).expect_err(text).to_string();
    assert_eq!(errors.lines().collect::<Vec<_>>(), expected, "\n{text}");
}

/// Each item of a rule, so that a test says only what it is about.
fn rule(rest: &str) -> String {
    format!("alerts:\n  rules:\n    - {{alert: A, severity: info, {rest}}}\n")
}

const OWN: &str = r#"
alerts:
  shipped: false
  rules:
    - alert: Slow
      metric: citadel_model_requests_total{code=~"5..", endpoint!="health"}
      rate: 5m
      divide_by: {metric: citadel_model_requests_total, rate: 300}
      by: [model, port]
      at_least: 1e-1
      and:
        - {metric: citadel_model_connections_open, above: 0}
        - {metric: citadel_model_tcp_rtt_seconds, quantile: 0.5, over: 10m, below: 1}
      for: 1m
      keep_firing_for: 90s
      severity: critical
      labels: {team: "ml"}
      annotations:
        summary: "{{ $labels.model }} on {{ $labels.instance }}: {{ $value | humanizePercentage }} > {{ $threshold }}"
"#;

#[test]
fn a_rule_means_what_it_says() {
    let config = ok(OWN);
    let [rule] = config.alerts.rules.as_slice() else { panic!("{:?}", config.alerts) };
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    assert_eq!(rule.condition.operand.function, Function::Rate { window: minutes(5) });
    assert_eq!(rule.condition.divide_by.as_ref().unwrap().function, Function::Rate { window: minutes(5) });
    assert_eq!((rule.condition.compare, rule.condition.threshold), (Compare::AtLeast, 0.1));
    assert_eq!(rule.and[0].operand.function, Function::Value);
    assert_eq!(rule.and[1].operand.function, Function::Quantile { quantile: 0.5, window: minutes(10) });
    assert_eq!(rule.by.as_deref(), Some(&["model", "port"][..]));
    assert_eq!((rule.hold, rule.keep_firing, rule.severity), (minutes(1), Duration::from_secs(90), Severity::Critical));
    assert_eq!(rule.longest_window(), minutes(10));
    assert_eq!(ok(&print(&config)), config);
}

#[test]
fn shipped_rules_can_be_changed_replaced_and_left_out() {
    let shipped = Config::default().alerts.rules;
    let with = |text: &str| ok(text).alerts.rules;
    let named = |name: &'static str| move |rule: &&Rule| rule.name == name;

    let changed = with("alerts: {override: {ModelErrors: {threshold: 0.5, for: 0, severity: info}}}");
    let rule = changed.iter().find(named("ModelErrors")).unwrap();
    assert_eq!((rule.condition.threshold, rule.hold, rule.severity), (0.5, Duration::ZERO, Severity::Info));
    assert_eq!(changed.len(), shipped.len());

    let without = with("alerts: {override: {ModelErrors: {enabled: false}}}");
    assert_eq!(without.len(), shipped.len() - 1);
    assert!(!without.iter().any(|rule| rule.name == "ModelErrors"));

    let replaced = with(&rule_named_like_a_shipped_one());
    let rule = replaced.iter().find(named("ModelErrors")).unwrap();
    assert_eq!(rule.condition.operand.selector.metric.name, "citadel_model_connections_open");
    assert_eq!(replaced.len(), shipped.len());

    let more = with("alerts: {override: {ModelNoTraffic: {enabled: true, for: 1h}}}");
    assert_eq!(more.len(), shipped.len() + 1);
    assert_eq!(more.iter().find(named("ModelNoTraffic")).map(|rule| rule.hold), Some(Duration::from_secs(3600)));
    assert_eq!(with("alerts: {override: {ModelNoTraffic: {enabled: false}}}"), shipped);

    assert_eq!(with("alerts: {shipped: false}"), []);
}

fn rule_named_like_a_shipped_one() -> String {
    rule("metric: citadel_model_connections_open, above: 3").replace("alert: A,", "alert: ModelErrors,")
}

#[test]
fn every_mistake_of_a_rule_is_said_with_its_place() {
    refused(
        r#"
alerts:
  overide: {}
  override:
    ModelError: {threshold: 1}
    ModelErrors: {threshold: high, sevrity: info}
  rules:
    - alert: "two words"
      metric: citadel_model_conections_open
      above: "3"
      for: soon
      severity: bad
    - {alert: A, metric: citadel_model_connections_open, above: 1, below: 0, severity: info}
    - {alert: A, metric: citadel_model_connections_open, severity: info}
    - {metric: citadel_model_connections_open, above: 1}
"#,
        &[
            "FILE:3:3: alerts: unknown key \"overide\"; did you mean \"override\"?",
            "FILE:5:5: alerts.override.ModelError: there is no shipped rule with this name; did you mean ModelErrors?",
            "FILE:6:30: alerts.override.ModelErrors.threshold: expected a number, found the string \"high\"",
            "FILE:6:36: alerts.override.ModelErrors: unknown key \"sevrity\"; did you mean \"severity\"?",
            "FILE:8:14: alerts.rules[0].alert: \"two words\" is not an alert name: use up to 128 letters, digits and _ - . :",
            "FILE:9:15: alerts.rules[0].metric: \"citadel_model_conections_open\" is not a metric of this agent; did you mean citadel_model_connections_open?",
            "FILE:10:14: alerts.rules[0].above: expected a number, found the string \"3\"; remove the quotes",
            "FILE:11:12: alerts.rules[0].for: expected a duration such as 60 (seconds), \"15s\", \"500ms\" or \"5m\", found the string \"soon\": expected number at 0",
            "FILE:12:17: alerts.rules[0].severity: expected one of info, warning, critical, found the string \"bad\"",
            "FILE:13:75: alerts.rules[1].below: conflicts with above; a condition has only one comparison",
            "FILE:14:7: alerts.rules[2]: has no comparison; one of above, at_least, below, at_most, equal, not_equal is required",
            "FILE:15:7: alerts.rules[3].alert: is missing",
            "FILE:15:7: alerts.rules[3].severity: is missing",
        ],
    );
}

#[test]
fn two_rules_of_one_name_are_refused() {
    let item = "{alert: A, metric: citadel_model_connections_open, above: 1, severity: info}";
    refused(
        &format!("alerts:\n  rules:\n    - {item}\n    - {item}\n"),
        &["FILE:4:15: alerts.rules[1].alert: duplicate rule \"A\"; first defined on line 3"],
    );
}

#[test]
fn functions_fit_their_metrics() {
    let open = "metric: citadel_model_connections_open, above: 1";
    let total = "metric: citadel_model_requests_total, above: 1";
    let histogram = "metric: citadel_model_tcp_rtt_seconds, above: 1";
    for (rest, why) in [
        (format!("{open}, rate: 5m"), "is a gauge; rate and increase are only for counters"),
        (format!("{open}, quantile: 0.5, over: 5m"), "is not a histogram"),
        (format!("{total}, predict: 5m, over: 5m"), "is a counter; predict is only for gauges"),
        (histogram.to_owned(), "is a histogram; use quantile"),
        (format!("{histogram}, quantile: 0.5"), "quantile: requires `over`"),
        (format!("{histogram}, quantile: 1.5, over: 5m"), "1.5 is not a quantile"),
        (format!("{total}, rate: 5m, increase: 5m"), "increase: conflicts with rate"),
        (format!("{total}, rate: 0"), "0 is out of range (1s to 31d)"),
        (format!("{total}, rate: 5m, over: 5m"), "over: is only valid with quantile and predict"),
        (format!("{total}, by: [modl]"), "\"modl\" is not a label of citadel_model_requests_total"),
        (format!("{total}, and: [{{{open}}}]"), "have different labels"),
        (format!("{total}, by: [model], and: [{{{open}, by: [model]}}]"), "unknown key \"by\""),
        (format!("{total}, labels: {{model: a}}"), "\"model\" is already a label of citadel_model_requests_total"),
        (format!("{total}, labels: {{severity: a}}"), "\"severity\" is already a label of every alert"),
        (format!("{total}, labels: {{team: '{{{{ $value }}}}'}}"), "a label cannot be a template"),
        (format!("{total}, labels: {{__team: a}}"), "is not a label name"),
        (
            format!("{total}, by: [model], annotations: {{a: '{{{{ $labels.code }}}}'}}"),
            "the series has no label \"code\"",
        ),
    ] {
        let errors = parse("FILE", &rule(&rest)).expect_err(&rest).to_string();
        assert!(errors.contains(why) && errors.lines().count() == 1, "{rest}: {errors}");
    }
}
