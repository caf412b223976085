//! `citadel-agent check`: what it finds, how it says so, its exit codes.

mod support;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::client::receive_post;
use support::journal::{Journal, journal_remote_at};
use support::prometheus::{Prometheus, Version};
use support::receiver::{Receiver, Reply};

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs these checks under a configuration.
fn check(only: &str, config: &str, more: &[&str]) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    std::fs::write(&path, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_citadel-agent"));
    command.args(["check", "--only", only]).args(more).arg("--config").arg(&path).stdin(Stdio::null());
    let output = command.env_remove("RUST_LOG").env("STATE_DIRECTORY", folder.path()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn a_cgroup_that_is_not_there_is_an_error_and_the_exit_code_says_so() {
    let ended = check("cgroup", "ebpf: {cgroup: /sys/fs/cgroup/absent-here}", &[]);
    // Where no cgroup v2 is mounted, that is the error.
    assert_eq!(ended.code, Some(1), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.starts_with("error   cgroup: ") && ended.stdout.contains("; to fix it: "), "{}", ended.stdout);
    assert_eq!(ended.stdout.lines().count(), 1);
    let off = check("cgroup", "ebpf: {net: false, recvq: false}", &[]);
    assert_eq!((off.code, off.stdout.as_str()), (Some(0), "ok      cgroup: not needed, because ebpf.net is false\n"));
}

#[test]
fn a_port_that_is_taken_is_an_error_with_its_holder() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let config = format!("local_collection: {{listen_address: 127.0.0.1, metrics_port: {port}}}");
    let ended = check("ports", &config, &["--format", "json"]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let json: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(json["severity"], "error");
    let findings = json["findings"].as_array().unwrap();
    // Both ports, and who can read the pages.
    assert_eq!(findings.len(), 3, "{findings:?}");
    assert_eq!((&findings[0]["check"], &findings[0]["severity"]), (&"ports".into(), &"error".into()));
    let text = findings[0]["text"].as_str().unwrap();
    assert!(text.contains(&format!("port {port} is already used by ")), "{text}");
    assert!(text.contains(&format!("(pid {})", std::process::id())), "{text}");
    assert!(!findings[0]["fix"].as_str().unwrap().is_empty());
}

#[test]
fn a_check_that_does_not_exist_and_a_mistaken_configuration_are_mistakes() {
    let ended = check("prots", "", &[]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("'ports'"), "{}", ended.stderr);
    assert_eq!(check("ports", "local_collection: {metrics_port: 0}", &[]).code, Some(2));
}

#[test]
fn what_lacks_something_but_works_has_an_exit_code_of_its_own() {
    // No disk has so much.
    let config =
        "remote_write: {max_bytes: 1000000TiB, min_free_bytes: 0, destinations: {a: {url: 'http://127.0.0.1:9/'}}}";
    let ended = check("state", config, &[]);
    assert_eq!(ended.code, Some(3), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("\nwarning state: space for "), "{}", ended.stdout);
}

#[test]
fn a_prometheus_is_asked_whether_it_takes_remote_write() {
    let config = |url: &str| format!("remote_write: {{destinations: {{p: {{url: '{url}'}}}}}}");
    let late = "storage: {tsdb: {out_of_order_time_window: 1h}}\n";
    let native = ["--enable-feature=native-histograms"];
    for (version, said) in [
        (Version::Old, "accepts remote write 1.0, classic histograms only"),
        (Version::New, "accepts remote write 2.0"),
    ] {
        let prometheus = Prometheus::receiving_with(version, late, &native);
        let ended = check("remote-write", &config(&prometheus.url()), &[]);
        assert_eq!(ended.code, Some(0), "{}", ended.stdout);
        let lines: Vec<&str> = ended.stdout.lines().collect();
        assert!(lines[0].ends_with(said), "{lines:?}");
        assert!(lines[1].ends_with("stores native histograms and accepts samples up to 1h late"), "{lines:?}");
        // Nothing was written by asking.
        assert_eq!(prometheus.query("{__name__=~\".+\"}").unwrap(), []);
        // What it takes as it comes from Debian is gone after an hour's outage.
        let plain = Prometheus::receiving(version, &[]);
        let ended = check("remote-write", &config(&plain.url()), &[]);
        assert_eq!(ended.code, Some(3), "{}", ended.stdout);
        assert!(ended.stdout.contains("rejects samples more than an hour late"), "{}", ended.stdout);
    }
    // The one that answers 204 to what it does not understand, and stores nothing.
    let old = Prometheus::receiving(Version::Old, &[]);
    let two = format!("remote_write: {{destinations: {{p: {{url: '{}', protocol: '2.0'}}}}}}", old.url());
    let ended = check("remote-write", &two, &[]);
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    assert!(ended.stdout.contains("stores nothing: it supports only 1.0"), "{}", ended.stdout);
    // One without the receiver, and none at all.
    let scraping = Prometheus::scraping(old.addr, &[]);
    scraping.wait_for("vector(1)");
    let ended = check("remote-write", &config(&scraping.url()), &[]);
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    assert!(ended.stdout.contains("--web.enable-remote-write-receiver"), "{}", ended.stdout);
    let gone = scraping.url();
    drop(scraping);
    let ended = check("remote-write", &config(&gone), &[]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.contains("does not answer"), "{}", ended.stdout);
}

#[test]
fn an_alertmanager_is_asked_with_an_empty_list() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let config =
        format!("remote_monitoring: {{enabled: true, dev_ops_server: x, alerting: {{alert_manager_url: '{url}'}}}}");
    let peer = std::thread::spawn(move || receive_post(listener.accept().unwrap().0, "200 OK"));
    let ended = check("alerts", &config, &[]);
    let request = peer.join().unwrap().unwrap();
    assert_eq!(request.body, b"[]", "nothing is told");
    assert_eq!((ended.code, ended.stdout), (Some(0), format!("ok      alerts: {url}/api/v2/alerts accepts alerts\n")));
    let gone = check("alerts", &config, &[]);
    assert_eq!(gone.code, Some(1), "{}", gone.stdout);
}

#[test]
fn receivers_of_logs_are_asked_with_an_empty_request() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::new(&folder.path().join("journal"));
    journal.line("a.service", "x");
    journal.wait_for(1);
    let (remote, url) = journal_remote_at(&folder.path().join("remote.journal"));
    let loki = Receiver::start(|_| Reply::Status(422, "", "error at least one valid stream is required for ingestion"));
    let otlp = Receiver::start(|_| Reply::Status(404, "", "404 page not found"));
    let config = |destinations: &str| {
        format!("logs: {{journal: {}, destinations: {{{destinations}}}}}", journal.folder.display())
    };
    let good = format!("a: {{url: '{url}', format: journal}}, b: {{url: '{}', format: loki}}", loki.url());
    let ended = check("logs", &config(&good), &[]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert!(lines[0].starts_with("ok      logs: the journal is readable; its last entry is from 2"), "{lines:?}");
    assert!(
        lines[1].ends_with("accepts systemd-journal-remote's format") && lines[2].ends_with("accepts Loki's push API"),
        "{lines:?}"
    );
    let ended = check("logs", &config(&format!("c: {{url: '{}'}}", otlp.url())), &[]);
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    assert!(
        ended
            .stdout
            .contains("does not accept OTLP (status 404): 404 page not found; to fix it: end the URL with /v1/logs"),
        "{}",
        ended.stdout
    );
    drop(remote);
    let ended = check("logs", &config(&format!("a: {{url: '{url}', format: journal}}")), &[]);
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    assert!(ended.stdout.contains("does not answer"), "{}", ended.stdout);
    let ended = check("logs", "logs: {journalctl: /nonexistent/journalctl}", &[]);
    assert_eq!(ended.code, Some(3), "{}", ended.stdout);
    assert!(
        ended.stdout.contains("the journal cannot be read: cannot start /nonexistent/journalctl"),
        "{}",
        ended.stdout
    );
    let off = check("logs", "logs: {enabled: false}", &[]);
    assert_eq!((off.code, off.stdout.as_str()), (Some(0), "ok      logs: not read: logs.enabled is off\n"));
}

#[test]
fn every_check_is_documented() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/installation.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    for name in citadel_agent::check::names() {
        assert!(docs.contains(&format!("| `{name}` |")), "docs/installation.md does not have the check {name}");
    }
}
