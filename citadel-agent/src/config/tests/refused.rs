//! What is refused, and in which words: the texts are what an operator has to mend a file with.

use std::path::Path;

use super::OPERATORS;
use crate::config::{MAX_FILE_BYTES, load, parse};

/// Asserts that `text` is refused with exactly these lines.
#[track_caller]
fn refused(text: &str, expected: &[&str]) {
    let errors = parse("FILE", text).expect_err(text).to_string();
    let found: Vec<_> = errors.lines().collect();
    assert_eq!(found, expected, "\n{errors}\n");
}

#[test]
fn every_mistake_at_once_in_the_order_of_the_file() {
    let text = OPERATORS
        .replace("  enabled: true", "  enabled: yes")
        .replace("metrics_port: 8000", "metrcs_port: 8000")
        .replace("\"INFO\"", "\"INFOO\"")
        .replace("hermes: 11401", "hermes: 114010")
        .replace("openchat: 11402", "openchat: 11400")
        .replace("- \"/v1/models\"", "- \"v1/models\"");
    refused(
        &text,
        &[
            r#"FILE:3:12: remote_monitoring.enabled: expected true or false, found the string "yes""#,
            r#"FILE:20:3: local_collection: unknown key "metrcs_port"; did you mean "metrics_port"?"#,
            r#"FILE:22:14: local_collection.log_level: expected TRACE, DEBUG, INFO, WARN or ERROR, found the string "INFOO"; did you mean INFO?"#,
            r#"FILE:35:13: model_monitoring.ports.hermes: 114010 is not a TCP port (1-65535)"#,
            r#"FILE:36:15: model_monitoring.ports.openchat: port 11400 is already used by mixtral (line 34)"#,
            r#"FILE:44:7: model_monitoring.health_endpoints[1]: "v1/models" does not start with '/'"#,
        ],
    );
}

#[test]
fn unknown_keys() {
    refused(
        "locl_collection: {}\nmetrics_port: 1\nzebra: 2\nlocal_collection: { Log_Level: INFO }\n<<: {}\n",
        &[
            r#"FILE:1:1: unknown key "locl_collection"; did you mean "local_collection"?"#,
            r#"FILE:2:1: unknown key "metrics_port"; it belongs in local_collection"#,
            r#"FILE:3:1: unknown key "zebra"; known keys: remote_monitoring, local_collection, model_monitoring, remote_write, ebpf, gpu, storage, services, logs, alerts"#,
            r#"FILE:4:21: local_collection: unknown key "Log_Level"; did you mean "log_level"?"#,
            r#"FILE:5:1: unknown key "<<"; known keys: remote_monitoring, local_collection, model_monitoring, remote_write, ebpf, gpu, storage, services, logs, alerts"#,
        ],
    );
}

#[test]
fn wrong_types() {
    refused("8000", &["FILE:1:1: expected a mapping of keys to values, found the number 8000"]);
    refused("- a\n", &["FILE:1:1: expected a mapping of keys to values, found a list"]);
    refused(
        r#"
local_collection:
  metrics_port: "8000"
  health_check_port: eight
  log_level: 3
  collection_interval: 1.5
  listen_address: [1]
  endpoints: /metrics
model_monitoring:
  ports: [11400]
  health_endpoints: /health
remote_monitoring:
  enabled: 1
  grafana: { datasource: 7, dashboard_url: {} }
ebpf:
  net:
  cgroup: true
"#,
        &[
            r#"FILE:3:17: local_collection.metrics_port: expected a TCP port, found the string "8000"; remove the quotes"#,
            r#"FILE:4:22: local_collection.health_check_port: expected a TCP port (1-65535), found the string "eight""#,
            "FILE:5:14: local_collection.log_level: expected TRACE, DEBUG, INFO, WARN or ERROR, found the number 3",
            r#"FILE:6:24: local_collection.collection_interval: expected a duration such as 60 (seconds), "15s", "500ms" or "5m", found the number 1.5"#,
            "FILE:7:19: local_collection.listen_address: expected an IP address in quotes, found a list",
            r#"FILE:8:14: local_collection.endpoints: expected a mapping of keys to values, found the string "/metrics""#,
            "FILE:10:10: model_monitoring.ports: expected a mapping of model names to ports, or {} for none, found a list",
            r#"FILE:11:21: model_monitoring.health_endpoints: expected a list of paths, or [] for none, found the string "/health""#,
            "FILE:13:12: remote_monitoring.enabled: expected true or false, found the number 1",
            "FILE:14:26: remote_monitoring.grafana.datasource: expected a string, found the number 7; quote it if it is meant as a string",
            "FILE:14:44: remote_monitoring.grafana.dashboard_url: expected a string, found a mapping",
            "FILE:16:3: ebpf.net: expected true or false, found nothing",
            "FILE:17:11: ebpf.cgroup: expected a string, found true; quote it if it is meant as a string",
        ],
    );
}

#[test]
fn ports_out_of_range() {
    refused(
        "local_collection: { metrics_port: 0, health_check_port: -1 }\nmodel_monitoring:\n  ports: { a: 65536, b: 99999999999999999999999, c: 1.0, d: 0x10000 }\n",
        &[
            "FILE:1:35: local_collection.metrics_port: 0 is not a TCP port (1-65535)",
            "FILE:1:57: local_collection.health_check_port: -1 is not a TCP port (1-65535)",
            "FILE:3:15: model_monitoring.ports.a: 65536 is not a TCP port (1-65535)",
            "FILE:3:25: model_monitoring.ports.b: 99999999999999999999999 is not a TCP port (1-65535)",
            "FILE:3:53: model_monitoring.ports.c: expected a TCP port (1-65535), found the number 1.0",
            "FILE:3:61: model_monitoring.ports.d: 0x10000 is not a TCP port (1-65535)",
        ],
    );
}

#[test]
fn a_port_has_one_owner() {
    refused(
        "local_collection: { metrics_port: 8001 }\n",
        &[
            "FILE:1:35: local_collection.metrics_port: 8001 is also the health_check_port (its default); they must differ",
        ],
    );
    refused(
        "local_collection:\n  health_check_port: 9000\n  metrics_port: 9000\n",
        &["FILE:3:17: local_collection.metrics_port: 9000 is also the health_check_port; they must differ"],
    );
    refused(
        "model_monitoring:\n  ports:\n    a: 8000\n    b: 8001\n    c: 8001\n",
        &[
            "FILE:3:8: model_monitoring.ports.a: port 8000 is the agent's own metrics_port",
            "FILE:4:8: model_monitoring.ports.b: port 8001 is the agent's own health_check_port",
            "FILE:5:8: model_monitoring.ports.c: port 8001 is already used by b (line 4)",
            "FILE:5:8: model_monitoring.ports.c: port 8001 is the agent's own health_check_port",
        ],
    );
    refused(
        "model_monitoring: { ports: {}, discover: '7999-8000' }\n",
        &["FILE:1:42: model_monitoring.discover: 7999-8000 contains the agent's own metrics_port, 8000"],
    );
    refused(
        "local_collection: { metrics_port: 11450 }\n",
        &["FILE:1:35: local_collection.metrics_port: 11450 is in model_monitoring.discover (11400-11500)"],
    );
    refused(
        "model_monitoring: { discover: none }\nlocal_collection: { metrics_port: 11400 }\n",
        &["FILE:2:35: local_collection.metrics_port: 11400 is the default port of the model mixtral"],
    );
}

#[test]
fn duplicate_keys() {
    refused(
        "ebpf: { net: true, net: false }\nmodel_monitoring:\n  ports: { a: 1, b: 2, a: 3, a: 4 }\nebpf: {}\n",
        &[
            "FILE:1:20: ebpf.net: duplicate key; first defined on line 1",
            "FILE:3:24: model_monitoring.ports.a: duplicate key; first defined on line 3",
            "FILE:3:30: model_monitoring.ports.a: duplicate key; first defined on line 3",
            "FILE:4:1: ebpf: duplicate key; first defined on line 1",
        ],
    );
}

#[test]
fn model_names() {
    let long = "n".repeat(129);
    refused(
        &format!(
            "model_monitoring:\n  ports:\n    '': 1\n    -x: 2\n    a b: 3\n    \"a\\u001b[31m\": 4\n    modèle: 5\n    {long}: 6\n"
        ),
        &[
            r#"FILE:3:5: model_monitoring.ports."": the model name is empty"#,
            r#"FILE:4:5: model_monitoring.ports.-x: "-x" is not a model name: use letters, digits and . _ - / : + @, starting with a letter or digit"#,
            r#"FILE:5:5: model_monitoring.ports."a b": "a b" is not a model name: use letters, digits and . _ - / : + @, starting with a letter or digit"#,
            r#"FILE:6:5: model_monitoring.ports."a\u{1b}[31m": "a\u{1b}[31m" is not a model name: use letters, digits and . _ - / : + @, starting with a letter or digit"#,
            r#"FILE:7:5: model_monitoring.ports."modèle": "modèle" is not a model name: use letters, digits and . _ - / : + @, starting with a letter or digit"#,
            &format!(
                r#"FILE:8:5: model_monitoring.ports."{}"...: the model name is longer than 128 bytes"#,
                &long[..60]
            ),
        ],
    );
}

#[test]
fn pages() {
    refused(
        r#"
local_collection:
  endpoints:
    system_metrics: metrics/system
    gpu_metrics: /
    model_metrics: /metrics
    storage_metrics: "/a//b/{x}"
    service_metrics: ""
"#,
        &[
            r#"FILE:4:21: local_collection.endpoints.system_metrics: "metrics/system" does not start with '/'"#,
            r#"FILE:5:18: local_collection.endpoints.gpu_metrics: "/" is the overview page; choose another path"#,
            r#"FILE:6:20: local_collection.endpoints.model_metrics: "/metrics" is already used by the page with all metrics"#,
            r#"FILE:7:22: local_collection.endpoints.storage_metrics: "/a//b/{x}" is not a path of letters, digits, '.', '_', '~' and '-' between single '/'"#,
            r#"FILE:8:22: local_collection.endpoints.service_metrics: is empty; remove the key to use the default"#,
        ],
    );
    refused(
        "local_collection:\n  endpoints: { system_metrics: /x, gpu_metrics: /x, model_metrics: /metrics/storage }\n",
        &[
            r#"FILE:2:49: local_collection.endpoints.gpu_metrics: "/x" is already used by system_metrics"#,
            r#"FILE:2:68: local_collection.endpoints.model_metrics: "/metrics/storage" is already used by storage_metrics (its default)"#,
        ],
    );
}

#[test]
fn health_endpoints() {
    refused(
        "model_monitoring: { health_endpoints: [/a, /a, 7, '/b c', [/d], '/e#f'] }",
        &[
            r#"FILE:1:44: model_monitoring.health_endpoints[1]: "/a" is listed twice"#,
            "FILE:1:48: model_monitoring.health_endpoints[2]: expected a string, found the number 7; quote it if it is meant as a string",
            r#"FILE:1:51: model_monitoring.health_endpoints[3]: "/b c" contains ' ', which is not allowed in a request path; escape it (%XX)"#,
            "FILE:1:59: model_monitoring.health_endpoints[4]: expected a string, found a list",
            r#"FILE:1:65: model_monitoring.health_endpoints[5]: "/e#f" contains '#', which is not allowed in a request path; escape it (%XX)"#,
        ],
    );
}

#[test]
fn system_calls() {
    refused(
        "ebpf: { syscall_names: [read, epol_wait, read, 7, ioctl] }",
        &[
            r#"FILE:1:31: ebpf.syscall_names[1]: "epol_wait" is not a system call that can be measured; did you mean epoll_wait?"#,
            r#"FILE:1:42: ebpf.syscall_names[2]: "read" is listed twice"#,
            "FILE:1:48: ebpf.syscall_names[3]: expected a system call, found the number 7",
        ],
    );
    refused(
        "ebpf: { syscall_form: kprobe }",
        &[r#"FILE:1:23: ebpf.syscall_form: expected one of auto, raw_tp, found the string "kprobe""#],
    );
    refused(
        "ebpf: { syscall_names: [] }",
        &["FILE:1:24: ebpf.syscall_names: is empty; to measure none, set ebpf.syscalls to false"],
    );
    refused(
        "ebpf: { syscall_names: read }",
        &[r#"FILE:1:24: ebpf.syscall_names: expected a list of system calls, found the string "read""#],
    );
}

#[test]
fn too_many_health_endpoints() {
    let paths: Vec<_> = (0..17).map(|i| format!("/{i}")).collect();
    refused(
        &format!("model_monitoring: {{ health_endpoints: [{}] }}", paths.join(", ")),
        &["FILE:1:39: model_monitoring.health_endpoints: has 17 items; the limit is 16"],
    );
}

#[test]
fn a_refused_value_is_reported_once() {
    refused(
        "remote_monitoring: { enabled: true, dev_ops_server: *server, prometheus: !!map {} }\n",
        &[
            "FILE:1:53: remote_monitoring.dev_ops_server: aliases (*name) are not supported; repeat the value",
            r#"FILE:1:80: remote_monitoring.prometheus: tag "!!map" is not supported; write the plain value"#,
        ],
    );
}

#[test]
fn durations() {
    let wrong = |written: &str| {
        let text = format!("local_collection: {{ collection_interval: {written} }}");
        let errors = parse("FILE", &text).expect_err(written).to_string();
        errors.strip_prefix("FILE:1:42: local_collection.collection_interval: ").expect("the place").to_owned()
    };
    assert_eq!(wrong("0"), "0 is out of range (100ms to 24h)");
    assert_eq!(wrong("-5"), "-5 is out of range (100ms to 24h)");
    assert_eq!(wrong("99ms"), r#""99ms" is out of range (100ms to 24h)"#);
    assert_eq!(wrong("25h"), r#""25h" is out of range (100ms to 24h)"#);
    assert_eq!(wrong("99999999999999999999"), "99999999999999999999 is out of range (100ms to 24h)");
    let expected = r#"expected a duration such as 60 (seconds), "15s", "500ms" or "5m", found "#;
    assert_eq!(wrong("'60'"), format!(r#"{expected}the string "60": time unit needed, for example 60sec or 60ms"#));
    assert!(wrong("soon").starts_with(&format!(r#"{expected}the string "soon": "#)));
    assert_eq!(wrong("true"), format!("{expected}true"));
}

#[test]
fn discovery() {
    refused(
        "model_monitoring: { discover: 11500-11400 }",
        &[r#"FILE:1:31: model_monitoring.discover: the range 11500-11400 is empty; write "11400-11500""#],
    );
    refused(
        "model_monitoring: { discover: 0-70000 }",
        &["FILE:1:31: model_monitoring.discover: 0 is not a TCP port (1-65535)"],
    );
    refused(
        "model_monitoring: { discover: all }",
        &[
            r#"FILE:1:31: model_monitoring.discover: expected a range of ports such as "11400-11500", or none, found the string "all""#,
        ],
    );
    refused(
        "model_monitoring: { discover: true }",
        &[
            r#"FILE:1:31: model_monitoring.discover: expected a range of ports such as "11400-11500", or none, found true"#,
        ],
    );
}

#[test]
fn urls_and_hosts() {
    let text = r#"
remote_monitoring:
  dev_ops_server: "http://x"
  prometheus: { remote_write_url: "192.168.10.36:9090" }
  grafana: { dashboard_url: "ftp://x/" }
  alerting:
    alert_manager_url: "http://x:70000"
    webhook_url: "http://user:secret@x/"
"#;
    refused(
        text,
        &[
            r#"FILE:3:19: remote_monitoring.dev_ops_server: "http://x" is not a host name or an IP address (no scheme, no port)"#,
            r#"FILE:4:35: remote_monitoring.prometheus.remote_write_url: "192.168.10.36:9090" is not a URL: it must start with http:// or https://"#,
            r#"FILE:5:29: remote_monitoring.grafana.dashboard_url: "ftp://x/" is not a URL: it must start with http:// or https://"#,
            r#"FILE:7:24: remote_monitoring.alerting.alert_manager_url: "http://x:70000" is not a URL: its port is not a TCP port (1-65535)"#,
            r#"FILE:8:18: remote_monitoring.alerting.webhook_url: must not contain a user name or password, because URLs are logged"#,
        ],
    );
    for (url, why) in [
        ("http://", ""),
        ("http:///path", ""),
        ("http://a b/", ""),
        ("http://x:0/", "its port is not a TCP port (1-65535)"),
        ("http://x:/", "its port is not a TCP port (1-65535)"),
        ("http://x/#top", "it contains a '#'"),
        ("not://u:p@x/", "must not contain a user name or password, because URLs are logged"),
        ("10.0.0.1:9090/api/v1/write", "it must start with http:// or https://"),
        ("prometheus/api/v1/write", "it must start with http:// or https://"),
        ("/write", "it must start with http:// or https://"),
    ] {
        let text = format!("remote_monitoring: {{ prometheus: {{ remote_write_url: '{url}' }} }}");
        let errors = parse("FILE", &text).expect_err(url).to_string();
        let says_no_url = errors.contains("is not a URL: ");
        assert!(says_no_url != why.starts_with("must not") && errors.ends_with(why), "{errors}");
    }
}

#[test]
fn an_enabled_remote_names_its_server() {
    refused(
        "remote_monitoring:\n  enabled: true\n",
        &["FILE:2:12: remote_monitoring.dev_ops_server: is required because remote_monitoring.enabled is true"],
    );
}

#[test]
fn what_yaml_can_do_and_a_configuration_needs_not() {
    refused(
        "ebpf: &a { net: !!bool true }\nlocal_collection: *a\nmodel_monitoring: { health_endpoints: [*b] }\n",
        &[
            r#"FILE:1:24: ebpf.net: tag "!!bool" is not supported; write the plain value"#,
            "FILE:2:19: local_collection: aliases (*name) are not supported; repeat the value",
            "FILE:3:40: model_monitoring.health_endpoints[0]: aliases (*name) are not supported; repeat the value",
        ],
    );
    refused("? [a]\n: b\n", &["FILE:1:3: a key must be a plain scalar"]);
    refused(
        "ebpf: {}\n---\nebpf: {}\n",
        &["FILE:2:1: a second YAML document starts here; the configuration must be a single document"],
    );
}

#[test]
fn not_yaml() {
    refused(
        "ebpf:\n  net: true\n bad\n",
        &["FILE:3:2: not valid YAML: while parsing a block mapping, did not find expected key"],
    );
    refused("ebpf: [1\n", &["FILE:1:7: not valid YAML: unclosed bracket '['"]);
    refused("ebpf: \"x\n", &["FILE:1:7: not valid YAML: unclosed quote"]);
    refused(
        "ebpf:\n\tnet: true\n",
        &["FILE:2:2: not valid YAML: tabs disallowed within this context (block indentation)"],
    );
    refused("ebpf: \u{1}\n", &["FILE:1:7: not valid YAML: unexpected character: `\\u{1}'"]);
    refused(&"[".repeat(100_000), &["FILE:1:17: not valid YAML: recursion limit exceeded"]);
    refused(&"- ".repeat(100_000), &["FILE:1:33: not valid YAML: recursion limit exceeded"]);
}

#[test]
fn aliases_cannot_multiply() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..100 {
        let alias = format!("*a{}", i - 1);
        bomb += &format!("a{i}: &a{i} [{}]\n", [alias.as_str(); 9].join(", "));
    }
    let errors = parse("FILE", &bomb).unwrap_err();
    assert_eq!(errors.mistakes().len(), 100 + 99 * 9);
}

#[test]
fn a_flood_of_mistakes_is_cut_and_counted() {
    let text: String = (0..1000).map(|i| format!("zebra{i}: 1\n")).collect();
    let errors = parse("FILE", &text).unwrap_err().to_string();
    assert_eq!(errors.lines().count(), 101);
    assert!(errors.ends_with("\nFILE: and 900 more errors"));
}

#[test]
fn files_that_cannot_be_one() {
    let dir = tempfile::tempdir().unwrap();
    let error = |path: &Path| load(Some(path)).unwrap_err().to_string();

    let missing = dir.path().join("missing.yaml");
    assert!(
        error(&missing).starts_with(&format!("{}: no such file; specify another with --config", missing.display()))
    );
    assert_eq!(
        error(dir.path()),
        format!("{}: is a directory; the configuration must be a file", dir.path().display())
    );
    assert_eq!(error(Path::new("/dev/null")), "/dev/null: is not a regular file");

    let latin1 = dir.path().join("latin1.yaml");
    std::fs::write(&latin1, b"# caf\xc3\xa9\n# caf\xc3\xa9 caf\xe9\n").unwrap();
    assert_eq!(error(&latin1), format!("{}:2:11: byte 0xe9 is not UTF-8; save the file as UTF-8", latin1.display()));

    let huge = dir.path().join("huge.yaml");
    std::fs::write(&huge, vec![b'#'; usize::try_from(MAX_FILE_BYTES).unwrap() + 1]).unwrap();
    assert!(error(&huge).ends_with("is larger than the limit of 1048576 bytes"));
    std::fs::write(&huge, vec![b'#'; usize::try_from(MAX_FILE_BYTES).unwrap()]).unwrap();
    assert!(load(Some(&huge)).is_ok());
}

#[test]
fn a_fifo_is_refused_and_not_waited_for() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    let name = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: `name` is a string that ends in NUL and outlives the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    assert!(load(Some(&path)).unwrap_err().to_string().ends_with("is not a regular file"));
}
