//! The real binary: what it prints where, and its exit codes.

mod support;

use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const OPERATORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/monitoring-integration.yaml");

/// The binary with an environment of its own: the caller's settings must not decide a test.
fn agent(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_citadel-agent"));
    command.args(args).env_remove("RUST_LOG").env_remove("CITADEL_AGENT_CONFIG").stdin(Stdio::null());
    command
}

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

#[track_caller]
fn end(command: &mut Command) -> Ended {
    let output = command.output().expect("the binary starts");
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("UTF-8 on stdout"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8 on stderr"),
    }
}

fn file(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("config.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn version_says_which() {
    let ended = end(&mut agent(&["version"]));
    assert_eq!(ended.code, Some(0));
    let commit = ended.stdout.strip_prefix(concat!("citadel-agent ", env!("CARGO_PKG_VERSION"), " (commit "));
    let commit = commit.and_then(|rest| rest.strip_suffix(")\n")).expect(&ended.stdout);
    assert!(commit == "unknown" || commit.len() == 12 && commit.chars().all(|c| c.is_ascii_hexdigit()), "{commit}");
    assert_eq!(end(&mut agent(&["--version"])).stdout, ended.stdout);
}

#[test]
fn mistaken_usage_exits_with_2_and_help_with_0() {
    for args in [&[][..], &["rnu"], &["run", "--confg", "x"], &["config", "check"], &["run", "surplus"]] {
        let ended = end(&mut agent(args));
        assert_eq!(ended.code, Some(2), "{args:?}");
        assert_eq!(ended.stdout, "", "{args:?}");
        assert!(!ended.stderr.is_empty(), "{args:?}");
    }
    let help = end(&mut agent(&["--help"]));
    assert_eq!(help.code, Some(0));
    assert!(help.stdout.contains("Exit codes: 0 success, 1 failure, 2 invalid usage or configuration"));
}

#[test]
fn config_check_accepts_the_operators_file() {
    let ended = end(&mut agent(&["config", "check", OPERATORS]));
    assert_eq!((ended.code, ended.stdout, ended.stderr), (Some(0), format!("{OPERATORS}: ok\n"), String::new()));
}

#[test]
fn config_check_lists_every_mistake_on_stderr_and_exits_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "local_collection:\n  metrcs_port: 8000\nmodel_monitoring:\n  ports: { a: 0 }\n");
    let ended = end(&mut agent(&["config", "check", path.to_str().unwrap()]));
    assert_eq!(ended.code, Some(2));
    assert_eq!(ended.stdout, "");
    let path = path.display();
    assert_eq!(
        ended.stderr,
        format!(
            "{path}:2:3: local_collection: unknown key \"metrcs_port\"; did you mean \"metrics_port\"?\n\
             {path}:4:15: model_monitoring.ports.a: 0 is not a TCP port (1-65535)\n"
        )
    );
}

#[test]
fn a_configuration_is_checked_from_standard_input() {
    let check = |command: &str, text: &str| {
        let mut child = agent(&[command, "check", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let good = "local_collection: { metrics_port: 8123 }";
    assert_eq!(check("config", good), (Some(0), "standard input: ok\n".to_owned(), String::new()));
    assert!(check("alerts", good).1.starts_with("standard input: ok, "));
    for command in ["config", "alerts"] {
        let (code, stdout, stderr) = check(command, "local_collection: { metrcs_port: 8123 }");
        assert_eq!((code, stdout.as_str()), (Some(2), ""));
        assert!(stderr.starts_with("standard input:1:21: local_collection: unknown key \"metrcs_port\""), "{stderr}");
        let (code, _, stderr) = check(command, &" ".repeat(1 << 20 | 1));
        assert_eq!(code, Some(2));
        assert!(stderr.starts_with("standard input: is larger than the limit of 1048576 bytes"), "{stderr}");
    }
}

#[test]
fn a_missing_file_is_a_mistake_for_every_command() {
    for args in [
        &["run", "--config", "/nonexistent/x.yaml"][..],
        &["check", "--config", "/nonexistent/x.yaml"],
        &["config", "check", "/nonexistent/x.yaml"],
        &["config", "print", "--config", "/nonexistent/x.yaml"],
    ] {
        let ended = end(&mut agent(args));
        assert_eq!(ended.code, Some(2), "{args:?}");
        assert!(ended.stderr.starts_with("/nonexistent/x.yaml: no such file; "), "{args:?}: {}", ended.stderr);
    }
}

#[test]
fn config_print_is_a_file_that_prints_the_same() {
    let first = end(&mut agent(&["config", "print", "--config", OPERATORS]));
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), &first.stdout);
    let second = end(&mut agent(&["config", "print", "--config", path.to_str().unwrap()]));
    assert_eq!(second.stdout, first.stdout);
}

#[test]
fn config_schema_is_a_json_schema_of_the_file() {
    let printed = end(&mut agent(&["config", "schema"]));
    assert_eq!(printed.code, Some(0), "{}", printed.stderr);
    let schema: serde_json::Value = serde_json::from_str(&printed.stdout).unwrap();
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    let port = &schema["properties"]["local_collection"]["properties"]["metrics_port"];
    assert_eq!((&port["type"], &port["default"]), (&"integer".into(), &8000.into()), "{port}");
    assert_eq!(port["description"], "Port of the metrics pages.");
}

#[test]
fn the_environment_names_the_file_and_the_command_line_overrides_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "local_collection: { metrics_port: 9123 }");
    let from_env = end(agent(&["config", "print"]).env("CITADEL_AGENT_CONFIG", &path));
    assert!(from_env.stdout.contains("metrics_port: 9123"), "{}", from_env.stdout);
    let overridden = end(agent(&["config", "print", "--config", OPERATORS]).env("CITADEL_AGENT_CONFIG", &path));
    assert!(overridden.stdout.contains("metrics_port: 8000"), "{}", overridden.stdout);
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let mut child = agent(&["config", "print"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn a_full_disk_is_a_failure() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let ended = end(agent(&["config", "print"]).stdout(full));
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.starts_with("cannot write to standard output: "), "{}", ended.stderr);
}

#[test]
fn a_bad_rust_log_is_reported_and_not_ignored() {
    for command in ["run", "check"] {
        let ended = end(agent(&[command, "--config", OPERATORS]).env("RUST_LOG", "citadel_agent=loud"));
        assert_eq!(ended.code, Some(2));
        assert!(ended.stderr.starts_with("RUST_LOG: \"citadel_agent=loud\" is not a log filter; "), "{}", ended.stderr);
    }
}

/// The first line that `run` logs. `run` goes on until it is stopped, so it is.
fn first_log_line(command: &mut Command) -> serde_json::Value {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    // It may have ended by itself already, as far as this test is concerned.
    let _ = child.kill();
    child.wait().unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

#[test]
fn run_logs_json_and_says_first_which_file_it_uses() {
    let dir = tempfile::tempdir().unwrap();
    // Port numbers that nothing else on this machine is asked to use, were it to get as far as listening.
    let path = file(
        dir.path(),
        "local_collection: { listen_address: 127.0.0.1, metrics_port: 1, health_check_port: 2 }\nebpf: { net: false }\n",
    );
    let line = first_log_line(agent(&["run"]).env("CITADEL_AGENT_CONFIG", &path));
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["message"], "configuration loaded");
    assert_eq!(line["file"], path.to_str().unwrap());
}

#[test]
fn alert_rules_are_checked_printed_and_written_for_prometheus() {
    let ended = end(&mut agent(&["alerts", "check", OPERATORS]));
    assert_eq!((ended.code, ended.stderr), (Some(0), String::new()));
    assert!(ended.stdout.starts_with(&format!("{OPERATORS}: ok, ")), "{}", ended.stdout);

    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "alerts:\n  override: {ModelErrors: {threshold: 0.25}}\n  rules:\n    - {alert: A}\n");
    let ended = end(&mut agent(&["alerts", "check", path.to_str().unwrap()]));
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains(":4:7: alerts.rules[0].metric: is missing\n"), "{}", ended.stderr);

    let path = file(dir.path(), "alerts: {override: {ModelErrors: {threshold: 0.25}}}");
    let printed = end(&mut agent(&["alerts", "rules", "--config", path.to_str().unwrap()]));
    let again = file(dir.path(), &printed.stdout);
    let again = end(&mut agent(&["alerts", "rules", "--config", again.to_str().unwrap()]));
    assert_eq!(printed.stdout, again.stdout);
    assert!(printed.stdout.contains("above: 0.25"), "{}", printed.stdout);

    let rules =
        end(agent(&["alerts", "rules", "--prometheus"]).env("CITADEL_AGENT_CONFIG", dir.path().join("config.yaml")));
    assert!(rules.stdout.contains("> 0.25"), "{}", rules.stdout);
}

#[test]
fn a_test_alert_says_what_came_back() {
    let dir = tempfile::tempdir().unwrap();
    let ended = end(&mut agent(&["alerts", "test", "--config", file(dir.path(), "").to_str().unwrap()]));
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.starts_with("no Alertmanager is configured; "), "{}", ended.stderr);

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/api/v1/alerts", listener.local_addr().unwrap());
    let token = dir.path().join("token");
    std::fs::write(&token, "secret\n").unwrap();
    let text = format!(
        "remote_monitoring: {{enabled: true, dev_ops_server: x, alerting: {{webhook_url: '{url}', bearer_token_file: {}}}}}",
        token.display()
    );
    let path = file(dir.path(), &text);
    let peer =
        std::thread::spawn(move || support::client::receive_post(listener.accept().unwrap().0, "400 Bad Request"));
    let ended = end(&mut agent(&["alerts", "test", "--config", path.to_str().unwrap()]));
    let request = peer.join().unwrap().unwrap();
    assert_eq!(request.header("authorization"), Some("Bearer secret"));
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body[0]["labels"]["alertname"], "CitadelAgentTest");
    assert_eq!(ended.code, Some(1), "it was not taken");
    assert!(ended.stdout.contains("is API v1, which Alertmanager 0.27 removed"), "{}", ended.stdout);
    assert!(ended.stdout.ends_with("/api/v2/alerts: status 400\n"), "{}", ended.stdout);
}
