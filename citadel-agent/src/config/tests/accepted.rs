//! What is accepted, and what it means.

use std::time::Duration;

use tracing::Level;

use super::OPERATORS;
use crate::config::resolved::probing::{self, HealthEndpoints, Own, Scheme};
use crate::config::resolved::{Access, Models, Remote};
use crate::config::{Config, load, parse, print, reload};

fn ok(text: &str) -> Config {
    parse("FILE", text).unwrap_or_else(|errors| panic!("refused:\n{text}\n{errors}"))
}

#[test]
fn the_operators_file_says_what_it_says() {
    let config = ok(OPERATORS);
    let remote = Remote {
        dev_ops_server: "192.168.10.36".to_owned(),
        remote_write_url: Some("http://192.168.10.36:9090/api/v1/write".to_owned()),
        scrape_interval: Duration::from_secs(15),
        evaluation_interval: Duration::from_secs(15),
        grafana_url: Some("http://192.168.10.36:3000".to_owned()),
        grafana_datasource: Some("prometheus".to_owned()),
        alert_manager_url: Some("http://192.168.10.36:9093".to_owned()),
        webhook_url: Some("http://192.168.10.36:9093/api/v1/alerts".to_owned()),
        alertmanagers: vec![],
        alerting_access: Access::default(),
    };
    assert_eq!(config.remote, Some(remote));
}

#[test]
fn the_default_is_the_operators_file_with_nothing_sent_anywhere_and_probes_that_cost_nothing() {
    let operators = ok(OPERATORS);
    let HealthEndpoints::Listed(paths) = &operators.models.health_endpoints else { panic!("it names them") };
    assert_eq!(*paths, ["/health", "/v1/models", "/metrics"]);
    let default = Config::default();
    assert_eq!(default.models.health_endpoints, HealthEndpoints::Auto);
    let models = Models { health_endpoints: HealthEndpoints::Auto, ..operators.models.clone() };
    assert_eq!(default, Config { remote: None, models, ..operators });
    assert_eq!(load(None).unwrap(), Config::default());
}

#[test]
fn an_empty_file_and_empty_sections_are_the_default() {
    for text in [
        "",
        "\n",
        "# nothing yet\n",
        "---\n",
        "---\n...\n",
        "\u{feff}# byte order mark\n",
        "null",
        "{}",
        "local_collection:\nmodel_monitoring:\nremote_monitoring:\nebpf: ~\n",
        "local_collection:\n  # metrics_port: 1\n  endpoints:\n",
    ] {
        assert_eq!(ok(text), Config::default(), "{text:?}");
    }
}

/// At a reload: there it would take back every setting at once.
#[test]
fn a_file_that_was_emptied_is_refused_at_a_reload_unless_it_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    for text in ["", " \n\t\n", "# nothing\n", "---\n", "null", "~", "\u{feff}# byte order mark\n"] {
        std::fs::write(&path, text).unwrap();
        let error = reload(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("the file is empty; write {}") && error.contains("config.yaml"), "{text:?}: {error}");
        assert!(text.contains('\t') || load(Some(&path)).unwrap() == Config::default(), "{text:?}");
    }
    std::fs::write(&path, "{}").unwrap();
    assert_eq!(reload(Some(&path)).unwrap(), Config::default());
    assert_eq!(reload(None).unwrap(), Config::default());
}

#[test]
fn what_the_agent_adds_can_be_set() {
    let config = ok("
local_collection: { listen_address: 127.0.0.1, collection_interval: 500ms }
model_monitoring: { ports: {}, discover: '12000-12010', health_endpoints: [] }
ebpf: { net: false, cgroup: /sys/fs/cgroup/unified }
");
    assert_eq!(config.local.listen_address.to_string(), "127.0.0.1");
    assert_eq!(config.local.collection_interval, Duration::from_millis(500));
    assert!(config.models.ports.is_empty());
    assert_eq!(config.models.discover, Some(12000..=12010));
    assert_eq!(config.models.health_endpoints, HealthEndpoints::Listed(vec![]));
    assert!(!config.ebpf.net);
    assert_eq!(config.ebpf.cgroup.unwrap().to_str(), Some("/sys/fs/cgroup/unified"));
}

#[test]
fn discovery_is_a_range_one_port_or_off() {
    let discover = |written: &str| ok(&format!("model_monitoring: {{ discover: {written} }}")).models.discover;
    assert_eq!(discover("11400-11500"), Some(11400..=11500));
    assert_eq!(discover("'11400 - 11401'"), Some(11400..=11401));
    assert_eq!(discover("11400"), Some(11400..=11400));
    assert_eq!(discover("'11400'"), Some(11400..=11400));
    for off in ["none", "None", "'none'", "false"] {
        assert_eq!(discover(off), None, "{off}");
    }
}

#[test]
fn durations_are_seconds_or_have_a_unit() {
    let interval = |written: &str| {
        ok(&format!("local_collection: {{ collection_interval: {written} }}")).local.collection_interval
    };
    assert_eq!(interval("60"), Duration::from_secs(60));
    assert_eq!(interval("'15s'"), Duration::from_secs(15));
    assert_eq!(interval("500ms"), Duration::from_millis(500));
    assert_eq!(interval("5m"), Duration::from_secs(300));
    assert_eq!(interval("1h 30m"), Duration::from_secs(5400));
    assert_eq!(interval("100ms"), Duration::from_millis(100));
    assert_eq!(interval("24h"), Duration::from_secs(86400));
}

#[test]
fn log_levels_in_any_case() {
    let level = |written: &str| ok(&format!("local_collection: {{ log_level: {written} }}")).local.log_level;
    for (written, expected) in [
        ("TRACE", Level::TRACE),
        ("debug", Level::DEBUG),
        ("Info", Level::INFO),
        ("warn", Level::WARN),
        ("\"WARNING\"", Level::WARN),
        ("error", Level::ERROR),
    ] {
        assert_eq!(level(written), expected);
    }
}

#[test]
fn a_remote_section_that_is_not_enabled_sends_nothing() {
    let unsent = Config { remote: None, ..ok(OPERATORS) };
    assert_eq!(ok(&OPERATORS.replace("enabled: true", "enabled: false")), unsent);
    assert_eq!(ok(&OPERATORS.replace("  enabled: true\n", "")), unsent);
}

#[test]
fn names_as_people_give_them_to_models() {
    let config = ok("model_monitoring: { ports: { Qwen/Qwen2.5-7B: 1, 123: 2, \"null\": 3, phi3@v1+x: 4 } }");
    let names: Vec<_> = config.models.ports.values().map(String::as_str).collect();
    assert_eq!(names, ["Qwen/Qwen2.5-7B", "123", "null", "phi3@v1+x"]);
}

#[test]
fn urls_of_both_schemes_and_address_families() {
    for url in ["http://[::1]:9090/api/v1/write", "https://prometheus.example/write?tenant=a"] {
        let text = format!(
            "remote_monitoring: {{ enabled: true, dev_ops_server: '::1', prometheus: {{ remote_write_url: '{url}' }} }}"
        );
        assert_eq!(ok(&text).remote.unwrap().remote_write_url.as_deref(), Some(url));
    }
}

const PROBES: &str = "
model_monitoring:
  models:
    phi3:
      health_endpoints: [/health/liveliness]
      health_interval: 60
      scheme: https
      certificate_file: /etc/vllm/cert.pem
      api_key_file: /etc/citadel-agent/phi3.key
      headers: {X-Tenant: ops}
    11404: {health_endpoints: auto, health_timeout: 1s, ca_file: /etc/ca.pem, server_name: yi.test}
";

#[test]
fn single_models_are_probed_otherwise() {
    let own = ok(PROBES).models.own;
    let phi3 = Own {
        health_endpoints: Some(HealthEndpoints::Listed(vec!["/health/liveliness".to_owned()])),
        health_interval: Some(Duration::from_secs(60)),
        health_timeout: None,
        access: probing::Access {
            scheme: Scheme::Https,
            certificate_file: Some("/etc/vllm/cert.pem".into()),
            api_key_file: Some("/etc/citadel-agent/phi3.key".into()),
            headers: [("x-tenant".to_owned(), "ops".to_owned())].into(),
            ..probing::Access::default()
        },
    };
    assert_eq!(own["phi3"], phi3);
    let yi = &own["11404"];
    assert_eq!((&yi.health_endpoints, yi.health_timeout), (&Some(HealthEndpoints::Auto), Some(Duration::from_secs(1))));
    assert_eq!((yi.access.server_name.as_deref(), yi.access.ca_file.is_some()), (Some("yi.test"), true));
    for (wrong, why) in [
        ("headers: {Authorization: Bearer x}", "api_key_file"),
        ("headers: {Host: x}", "host is set by the probe"),
        ("headers: {'a b': x}", "header field name"),
        ("{scheme: http, ca_file: /a}", "can be verified only with https"),
        ("{certificate_file: /a, ca_file: /a}", "conflicts with ca_file"),
        ("health_endpoints: [health]", "does not start with '/'"),
        ("health_endpoints: maybe", "a list of paths"),
        ("scheme: tls", "one of auto, http, https"),
    ] {
        let body = if wrong.starts_with('{') { wrong.to_owned() } else { format!("{{{wrong}}}") };
        let errors = parse("FILE", &format!("model_monitoring: {{models: {{phi3: {body}}}}}")).expect_err(wrong);
        assert!(errors.to_string().contains(why), "{wrong}: {errors}");
    }
}

#[test]
fn what_is_printed_says_the_same() {
    for config in [Config::default(), ok(OPERATORS), ok(PROBES)] {
        assert_eq!(ok(&print(&config)), config);
    }
    // The shipped rules, which follow, have files of their own.
    let default = print(&Config::default());
    let (found, _) = default.split_once("alerts:\n").unwrap();
    same_lines(found, include_str!("default.yaml"));
}

/// Compares line by line, so that a failure names the line.
fn same_lines(found: &str, expected: &str) {
    for (number, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "line {}", number + 1);
    }
    assert_eq!(found.lines().count(), expected.lines().count());
}
