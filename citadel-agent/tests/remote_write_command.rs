//! Remote write from the command line, and under a running agent: `export`, `remote-write test`, and a reload.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use citadel_agent::remote_write::wire::{v1, v2};
use prost::Message as _;
use support::child::Running;
use support::client;
use support::prometheus::{Prometheus, Version};
use support::receiver::{Got, Receiver, Reply};
use support::sending::taken;
use tempfile::TempDir;

fn agent(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_citadel-agent"));
    command.args(args).env("RUST_LOG", "error").env_remove("CITADEL_AGENT_CONFIG").stdin(Stdio::null());
    command
}

/// An agent that measures no model, with `remote_write` as given.
fn config(dir: &Path, remote_write: &str) -> PathBuf {
    let port = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let (metrics, health) = (port(), port());
    let text = format!(
        "local_collection: {{ listen_address: 127.0.0.1, metrics_port: {metrics}, health_check_port: {health} }}\n\
         model_monitoring: {{ ports: {{}}, discover: none, health_endpoints: [] }}\nebpf: {{ net: false, recvq: false, sched: false }}\n\
         remote_write:\n  interval: 100ms\n  instance: gpu1\n  min_free_bytes: 0\n  directory: {}\n{remote_write}\n",
        dir.join("spool").display()
    );
    let path = dir.join("config.yaml");
    fs::write(&path, text).unwrap();
    path
}

fn destination(url: &str) -> String {
    format!("  destinations: {{ sink: {{ url: '{url}' }} }}")
}

fn run(args: &[&str], config: &Path) -> Output {
    agent(args).arg("--config").arg(config).output().unwrap()
}

#[test]
fn export_writes_the_body_of_a_request_in_either_protocol() {
    let dir = TempDir::new().unwrap();
    let config = config(dir.path(), "");
    let file = dir.path().join("page.pb");
    for protocol in ["1", "2"] {
        let args = ["export", "--once", "--protocol", protocol, "--output", file.to_str().unwrap()];
        let output = run(&args, &config);
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("curl --data-binary"), "{said}");
        // What an older Prometheus would do without a word.
        assert_eq!(said.contains("answers 204 to this but stores nothing"), protocol == "2", "{said}");
        let message = snap::raw::Decoder::new().decompress_vec(&fs::read(&file).unwrap()).unwrap();
        let names: BTreeSet<String> = match protocol {
            "1" => {
                let request = v1::WriteRequest::decode(message.as_slice()).unwrap();
                let labels = request.timeseries.into_iter().flat_map(|series| series.labels);
                labels.filter(|label| label.name == "__name__").map(|label| label.value).collect()
            }
            _ => v2::Request::decode(message.as_slice()).unwrap().symbols.into_iter().collect(),
        };
        assert!(names.contains("citadel_agent_build_info"), "{names:?}");
        assert!(names.contains("process_start_time_seconds"));
        assert!(!names.iter().any(|name| name.starts_with("citadel_model_request")), "nobody has measured them");
    }
    // To standard output, byte for byte what would go to a file.
    let output = run(&["export", "--once"], &config);
    assert!(snap::raw::Decoder::new().decompress_vec(&output.stdout).is_ok());
    assert_eq!(run(&["export"], &config).status.code(), Some(2), "--once has to be said");
}

#[test]
fn what_export_wrote_is_taken_by_a_prometheus_as_it_stands() {
    let dir = TempDir::new().unwrap();
    let config = config(dir.path(), "");
    for (version, protocol, content_type) in [
        (Version::Old, "1", "application/x-protobuf"),
        (Version::New, "2", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
    ] {
        let prometheus = Prometheus::receiving(version, &[]);
        let body = run(&["export", "--once", "--protocol", protocol], &config).stdout;
        let mut stream = TcpStream::connect(prometheus.addr).unwrap();
        write!(
            stream,
            "POST /api/v1/write HTTP/1.0\r\nContent-Encoding: snappy\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .unwrap();
        stream.write_all(&body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(client::parse(&answer).status, 204, "{version:?}");
        assert_eq!(prometheus.value("citadel_agent_build_info{instance=\"gpu1\"}"), 1.0);
    }
}

#[test]
fn the_test_says_what_each_destination_answered() {
    let dir = TempDir::new().unwrap();
    let (good, old) =
        (taken(), Receiver::start(|request| if request.is_v2() { Reply::Status(204, "", "") } else { Reply::Taken }));
    let both = format!("  destinations: {{ good: {{ url: '{}' }}, old: {{ url: '{}' }} }}", good.url(), old.url());
    let output = run(&["remote-write", "test"], &config(dir.path(), &both));
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}");
    let lines: Vec<_> = told.lines().collect();
    assert!(
        lines[0].starts_with("good (") && lines[0].ends_with("remote write 2.0: status 204, 1 samples written"),
        "{told}"
    );
    assert!(
        lines[1].contains("remote write 2.0: status 204") && lines[2].contains("remote write 1.0: status 204"),
        "{told}"
    );
    // A series of its own: the running agent's must arrive in order.
    for request in good.requests().iter().chain(&old.requests()) {
        assert_eq!(request.samples.iter().map(Got::name).collect::<Vec<_>>(), ["citadel_remote_write_test"]);
    }

    let refusing = Receiver::start(|_| Reply::Status(401, "", "who are you?"));
    let output = run(&["remote-write", "test"], &config(dir.path(), &destination(&refusing.url())));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("status 401, \"who are you?\""), "{output:?}");

    let output = run(&["remote-write", "test"], &config(dir.path(), ""));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no destination is configured"), "{output:?}");
}

#[test]
fn replay_sends_what_was_set_aside_and_removes_what_is_taken() {
    let dir = TempDir::new().unwrap();
    let sink = taken();
    let config = config(dir.path(), &destination(&sink.url()));
    let output = run(&["remote-write", "replay"], &config);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("nothing was set aside"), "{output:?}");

    let folder = dir.path().join("spool/dead-letter");
    fs::create_dir_all(&folder).unwrap();
    let mut files = Vec::new();
    for (protocol, version, to) in [("1", "1.0", "sink"), ("2", "2.0", "sink"), ("2", "2.0", "gone")] {
        let file = folder.join(format!("00000000000000000007-3-{to}.{version}.pb.snappy"));
        let args = ["export", "--once", "--protocol", protocol, "--output", file.to_str().unwrap()];
        assert!(run(&args, &config).status.success());
        files.push((fs::read(&file).unwrap(), file));
    }
    let output = run(&["remote-write", "replay", "--destination", "sink"], &config);
    assert!(output.status.success(), "{output:?}");
    let bodies: Vec<_> = sink.requests().into_iter().map(|request| (request.is_v2(), request.body)).collect();
    assert_eq!(bodies, [(false, files[0].0.clone()), (true, files[1].0.clone())]);
    assert_eq!(files.iter().map(|(_, file)| file.exists()).collect::<Vec<_>>(), [false, false, true]);

    let output = run(&["remote-write", "replay"], &config);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("no destination is named gone; kept"), "{output:?}");
    let output = run(&["remote-write", "replay", "--destination", "nobody"], &config);
    assert!(String::from_utf8_lossy(&output.stderr).contains("no destination is named nobody"), "{output:?}");

    // What is not taken stays.
    let refusing = Receiver::start(|_| Reply::Status(500, "", "again"));
    let file = folder.join("00000000000000000009-3-sink.2.0.pb.snappy");
    fs::write(&file, &files[1].0).unwrap();
    let config = self::config(dir.path(), &destination(&refusing.url()));
    let output = run(&["remote-write", "replay", "--destination", "sink"], &config);
    assert_eq!(output.status.code(), Some(1));
    assert!(file.exists() && refusing.requests().len() == 1);
}

#[test]
fn a_reload_begins_moves_and_ends_remote_write() {
    let dir = TempDir::new().unwrap();
    let path = config(dir.path(), "");
    let text = fs::read_to_string(&path).unwrap();
    let child = agent(&["run", "--config", path.to_str().unwrap()]).stderr(Stdio::null()).spawn().unwrap();
    let mut running = Running(child);
    let reload = |running: &Running, remote_write: &str| {
        fs::write(&path, format!("{text}{remote_write}\n")).unwrap();
        running.signal(rustix::process::Signal::HUP);
    };
    // Ready, so that SIGHUP means a reload.
    let port: u16 = text.split("metrics_port: ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }

    let (first, second) = (taken(), taken());
    reload(&running, &destination(&first.url()));
    first.wait_for(3);
    // A file with a mistake changes nothing.
    reload(&running, "  destinations: { sink: { url: 17 } }");
    let before = first.requests().len();
    first.wait_for(before + 3);
    reload(&running, &destination(&second.url()));
    second.wait_for(3);
    // What was under way comes again, and no sample is missing in between: numbers go on in one ledger.
    let last = first.requests().last().unwrap().samples[0].timestamp;
    assert!(second.requests()[0].samples[0].timestamp >= last);
    running.signal(rustix::process::Signal::TERM);
    assert!(running.0.wait().unwrap().success());
    let names: BTreeSet<String> =
        second.requests().iter().flat_map(|request| &request.samples).map(|got| got.name().to_owned()).collect();
    assert!(names.contains("citadel_remote_write_pending_samples") && names.contains("process_cpu_seconds_total"));
}
