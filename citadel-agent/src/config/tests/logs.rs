//! The section `logs`.

use crate::config::resolved::logs::{Format, Severity};
use crate::config::{parse, print};

#[test]
fn a_whole_section_is_read_and_printed() {
    let text = r#"
logs:
  enabled: true
  journalctl: /usr/bin/journalctl
  journal: /var/log/journal
  directory: /var/lib/x
  units: ["nginx*.service", "[!a]b.service"]
  containers: ["web-?"]
  kernel: false
  severity: warning
  rate_limit: 0
  events: {preempted: "is (not )?preempted"}
  destinations:
    loki: {url: "http://loki:3100/loki/api/v1/push", format: loki, timeout: 5s, headers: {X-Scope-OrgID: a}}
    otel: {url: "https://otel/v1/logs", bearer_token_file: /etc/token}
"#;
    let config = parse("FILE", text).unwrap_or_else(|errors| panic!("{errors}"));
    let logs = &config.logs;
    assert_eq!((logs.severity, logs.rate_limit, logs.kernel), (Severity::Warning, 0, false));
    assert_eq!(logs.destinations["loki"].format, Format::Loki);
    assert_eq!(logs.destinations["otel"].format, Format::Otlp);
    assert_eq!(parse("FILE", &print(&config)), Ok(config));
}

#[test]
fn mistakes_are_named() {
    let refused = |section: &str| parse("FILE", &format!("logs: {section}\n")).unwrap_err().to_string();
    for (section, message) in [
        ("{destinations: {a: {format: loki}}}", "logs.destinations.a: has no url"),
        ("{destinations: {a: {url: 'http://a/', format: syslog}}}", "expected one of otlp, loki, journal"),
        ("{events: {xid: a}}", "is a built-in event"),
        ("{events: {Big: a}}", "is not an event name"),
        ("{events: {a: '('}}", "is not a valid regular expression"),
        ("{units: ['[a']}", "is not a valid pattern"),
        ("{severity: loud}", "expected one of critical, error, warning, info, debug"),
        ("{rate_limit: -1}", "expected an integer, 0 or more"),
        ("{unit: a}", "did you mean \"units\"?"),
    ] {
        let said = refused(section);
        assert!(said.contains(message), "{section}: {said}");
    }
}
