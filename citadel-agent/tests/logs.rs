//! Logs from a real journal to receivers that record, and to the real systemd-journal-remote.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use citadel_agent::config;
use citadel_agent::logs::export::Parser;
use citadel_agent::logs::known::Known;
use citadel_agent::logs::numbers::{DestinationNumbers, Numbers};
use citadel_agent::logs::wire::otlp;
use citadel_agent::logs::{self, Running};
use citadel_agent::slot::Slot;
use prost::Message as _;
use support::journal::{Journal, journal_remote_at};
use support::log_lines::{Line, lines};
use support::receiver::{Receiver, Reply};
use tempfile::TempDir;

const UNIT: &str = "counter.service";

/// Logs at work, without an agent around them.
struct Sending {
    dir: TempDir,
    numbers: Slot<Numbers>,
    runtime: tokio::runtime::Runtime,
    running: Option<Running>,
}

impl Sending {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { dir: TempDir::new().unwrap(), numbers: Slot::default(), runtime, running: None }
    }

    fn journal(&self) -> std::path::PathBuf {
        self.dir.path().join("journal")
    }

    /// `more` are keys of the section.
    fn start(&mut self, format: &str, url: &str, more: &str) {
        let text = format!(
            "remote_write: {{ instance: gpu1 }}\nlogs:\n  journal: {}\n  directory: {}\n  units: [{UNIT}]\n{more}\n  \
             destinations:\n    sink: {{ url: '{url}', format: {format}, timeout: 300ms }}\n",
            self.journal().display(),
            self.dir.path().join("state").display()
        );
        let config = config::parse("test", &text).unwrap_or_else(|errors| panic!("{errors}"));
        let prepared = logs::prepare(&config).unwrap();
        assert!(prepared.is_some());
        let mut running = Running::new(self.numbers.clone(), Known::default());
        self.runtime.block_on(running.replace(prepared));
        self.running = Some(running);
        // The cursor of a new destination is where the journal ends now.
        self.wait("cursor", |_| self.dir.path().join("state/sink.json").exists());
    }

    fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.stop());
        }
    }

    fn figures(&self) -> DestinationNumbers {
        let numbers =
            self.numbers.newest().map(|newest| newest.value.destinations.first().cloned().unwrap_or_default());
        numbers.unwrap_or_default()
    }

    fn wait(&self, what: &str, condition: impl Fn(&DestinationNumbers) -> bool) -> DestinationNumbers {
        let begin = Instant::now();
        loop {
            let figures = self.figures();
            if condition(&figures) {
                return figures;
            }
            assert!(begin.elapsed() < Duration::from_secs(30), "no {what} in time: {figures:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.stop();
    }
}

fn received(receiver: &Receiver) -> Vec<Line> {
    receiver.requests().iter().flat_map(lines).collect()
}

fn taken(format: &str) -> Reply {
    if format == "loki" { Reply::Status(204, "", "") } else { Reply::Status(200, "", "") }
}

fn texts(lines: &[Line]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

#[test]
fn whatever_a_unit_logs_arrives_in_order_and_bounded() {
    for format in ["otlp", "loki", "journal"] {
        let receiver = Receiver::start(move |_| taken(format));
        let mut sending = Sending::new();
        let mut journal = Journal::new(&sending.journal());
        journal.line(UNIT, "before it was configured");
        journal.wait_for(1);
        sending.start(format, &receiver.url(), "");
        let long = "x".repeat(1 << 20);
        let unit = ("_SYSTEMD_UNIT", UNIT.as_bytes());
        journal.line(UNIT, "one line");
        journal.line("other.service", "not chosen");
        journal.line(UNIT, "two\nlines");
        journal.write(&[
            unit,
            ("MESSAGE", b"\xff\xfe bad \0"),
            ("_PID", b"7"),
            ("CUSTOM", b"kept by the journal's format"),
        ]);
        journal.write(&[unit, ("MESSAGE", long.as_bytes())]);
        // The clock goes back an hour.
        journal.time_us -= 3_600_000_000;
        journal.line(UNIT, "ERROR: an hour before");
        journal.time_us += 7_200_000_000;
        journal.line(UNIT, "an hour after");
        let figures = sending.wait("entries", |figures| figures.acknowledged == 6);
        assert_eq!((figures.rejected, figures.limited, figures.truncated, figures.pending), (0, 0, 1, 0), "{format}");
        let mut got = received(&receiver);
        // Loki's streams differ by severity, so that order is that of a stream.
        got.sort_by_key(|line| line.text.starts_with("ERROR"));
        let bad = "\u{fffd}\u{fffd} bad \0";
        assert_eq!(
            texts(&got),
            ["one line", "two\nlines", bad, &long[..256 << 10], "an hour after", "ERROR: an hour before"],
            "{format}"
        );
        let of_pid = ["process.pid", "process_pid", "_PID"].iter().find_map(|name| got[2].about(name));
        assert_eq!(of_pid, Some("7"), "{format}");
        let custom = (format == "journal").then_some("kept by the journal's format");
        assert_eq!(got[2].about("CUSTOM"), custom);
        match format {
            "loki" => {
                assert_eq!(
                    got[5].stream,
                    "{host=\"gpu1\", job=\"citadel-agent\", unit=\"counter.service\", severity=\"error\"}"
                );
            }
            _ => assert_eq!(got[5].stream, UNIT),
        }
    }
}

/// What a receiver does with the requests one after the other; the last goes on for ever.
fn scripted(replies: Vec<Reply>) -> Receiver {
    let replies = Arc::new(Mutex::new(replies));
    Receiver::start(move |_| {
        let mut replies = replies.lock().unwrap();
        if replies.len() > 1 { replies.remove(0) } else { replies[0].clone() }
    })
}

#[test]
fn what_a_receiver_answers_decides_what_becomes_of_entries() {
    let partial = otlp::Response {
        partial_success: Some(otlp::PartialSuccess { rejected_log_records: 2, error_message: "too old".to_owned() }),
    };
    let partial = Reply::Body(200, partial.encode_to_vec());
    let status = |status| Reply::Status(status, "", "no");
    // Acknowledged and rejected, of five entries; what is closed waits.
    for (format, replies, acknowledged, rejected, closed) in [
        ("otlp", vec![partial], 3, 2, false),
        ("otlp", vec![status(500)], 0, 5, false),
        ("loki", vec![status(500), Reply::Status(204, "", "")], 5, 0, false),
        ("journal", vec![status(503), status(202)], 5, 0, false),
        ("otlp", vec![Reply::Hang, Reply::Cut, Reply::Close, status(200)], 5, 0, false),
        ("loki", vec![status(260)], 0, 0, true),
        ("otlp", vec![status(401)], 0, 0, true),
        ("loki", vec![status(200)], 0, 0, true),
        ("loki", vec![status(413), Reply::Status(204, "", "")], 5, 0, false),
        ("loki", vec![status(400)], 0, 5, false),
    ] {
        let what = format!("{format} {replies:?}");
        let receiver = scripted(replies);
        let mut sending = Sending::new();
        let mut journal = Journal::new(&sending.journal());
        journal.line(UNIT, "0");
        journal.wait_for(1);
        sending.start(format, &receiver.url(), "");
        (1..=5).for_each(|i| journal.line(UNIT, &i.to_string()));
        let figures = sending.wait(&what, |figures| {
            if closed { figures.closed } else { figures.acknowledged + figures.rejected == 5 && figures.pending == 0 }
        });
        assert_eq!(
            (figures.acknowledged, figures.rejected, figures.closed),
            (acknowledged, rejected, closed),
            "{what}"
        );
        if closed {
            assert_eq!(figures.pending, 5, "{what}");
            // Once it lets entries in again, another agent finds them.
            sending.stop();
            let open = Receiver::start(move |_| taken(format));
            sending.start(format, &open.url(), "");
            sending.wait("entries", |figures| figures.acknowledged == 5);
            assert_eq!(texts(&received(&open)), ["1", "2", "3", "4", "5"], "{what}");
        }
    }
}

#[test]
fn retry_after_is_heeded_and_one_request_is_in_flight() {
    let receiver = scripted(vec![Reply::Status(429, "Retry-After: 2\r\n", "slow down"), Reply::Status(204, "", "")]);
    let mut sending = Sending::new();
    let mut journal = Journal::new(&sending.journal());
    journal.line(UNIT, "0");
    journal.wait_for(1);
    sending.start("loki", &receiver.url(), "");
    (0..2500).for_each(|i| journal.line(UNIT, &i.to_string()));
    sending.wait("entries", |figures| figures.acknowledged == 2500);
    let requests = receiver.requests();
    assert!(requests[1].at - requests[0].at >= Duration::from_secs(2));
    assert_eq!(requests[0].body, requests[1].body);
    let got: Vec<_> = requests[1..].iter().flat_map(lines).collect();
    let all: Vec<_> = (0..2500).map(|i| i.to_string()).collect();
    assert_eq!(texts(&got), all);
    assert!(requests.iter().all(|request| lines(request).len() <= 1000));
}

#[test]
fn what_the_journal_no_longer_has_is_counted() {
    let receiver = Receiver::start(|_| Reply::Status(204, "", ""));
    let mut sending = Sending::new();
    {
        let mut journal = Journal::new(&sending.journal());
        journal.line(UNIT, "0");
        journal.wait_for(1);
        sending.start("loki", &receiver.url(), "");
        journal.line(UNIT, "1");
        sending.wait("entry", |figures| figures.acknowledged == 1);
        sending.stop();
        assert_eq!(sending.figures().lost_seconds, 0.0);
    }
    // Vacuumed: another journal, which begins a minute later.
    fs::remove_dir_all(sending.journal()).unwrap();
    let mut journal = Journal::new(&sending.journal());
    journal.time_us += 60_000_000;
    journal.line(UNIT, "3");
    journal.wait_for(1);
    sending.start("loki", &receiver.url(), "");
    let figures = sending.wait("entry", |figures| figures.acknowledged == 2);
    assert!((59.0..90.0).contains(&figures.lost_seconds), "{figures:?}");
    assert_eq!(texts(&received(&receiver)), ["1", "3"]);
    // The same journal with its first entries gone would give their number: reader.rs.
    sending.stop();
    sending.start("loki", &receiver.url(), "");
    journal.line(UNIT, "4");
    let again = sending.wait("entry", |figures| figures.acknowledged == 3);
    assert_eq!(again.lost_seconds, figures.lost_seconds, "nothing more was lost");
}

#[test]
fn a_unit_that_logs_too_much_is_limited_and_counted() {
    let receiver = Receiver::start(|_| Reply::Status(204, "", ""));
    let mut sending = Sending::new();
    let mut journal = Journal::new(&sending.journal());
    journal.line(UNIT, "x");
    journal.wait_for(1);
    sending.start("loki", &receiver.url(), "  rate_limit: 10");
    (0..300).for_each(|i| journal.line(UNIT, &i.to_string()));
    let figures = sending.wait("entries", |figures| figures.acknowledged + figures.limited == 300);
    assert_eq!((figures.acknowledged, figures.limited), (100, 200));
    assert_eq!(received(&receiver).len(), 100);
}

#[test]
fn the_real_journal_remote_has_the_entries_as_they_were() {
    let mut sending = Sending::new();
    let store = sending.dir.path().join("store");
    fs::create_dir(&store).unwrap();
    let (_remote, url) = journal_remote_at(&store.join("remote.journal"));
    let mut journal = Journal::new(&sending.journal());
    journal.line(UNIT, "0");
    journal.wait_for(1);
    sending.start("journal", &url, "");
    let unit = ("_SYSTEMD_UNIT", UNIT.as_bytes());
    journal.write(&[unit, ("MESSAGE", b"two\nlines"), ("CUSTOM", b"a"), ("CUSTOM", b"b")]);
    journal.write(&[unit, ("MESSAGE", b"\xff\0binary")]);
    (0..100).for_each(|i| journal.line(UNIT, &i.to_string()));
    sending.wait("entries", |figures| figures.acknowledged == 102);
    let export = |folder: &Path| {
        let output = Command::new("journalctl").arg("--directory").arg(folder).arg("--output=export").output().unwrap();
        let (mut parser, mut bytes, mut entries) = (Parser::default(), output.stdout.as_slice(), vec![]);
        while let Some(entry) = parser.next(&mut bytes).unwrap() {
            let field = |name: &str| entry.get(name).map(<[u8]>::to_vec);
            entries.push(["__REALTIME_TIMESTAMP", "_BOOT_ID", "_SYSTEMD_UNIT", "MESSAGE", "CUSTOM", "_PID"].map(field));
        }
        entries
    };
    assert_eq!(export(&store), export(&sending.journal())[1..]);
}

#[test]
fn the_command_tries_the_journal_and_each_destination() {
    let good = Receiver::start(|_| Reply::Status(204, "", ""));
    let bad = Receiver::start(|_| Reply::Status(401, "", "who are you?"));
    let dir = TempDir::new().unwrap();
    let mut journal = Journal::new(&dir.path().join("journal"));
    journal.line(UNIT, "x");
    journal.wait_for(1);
    let config = dir.path().join("config.yaml");
    let write = |destinations: &str| {
        let text = format!("logs: {{ journal: {}, destinations: {destinations} }}\n", journal.folder.display());
        fs::write(&config, text).unwrap();
    };
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_citadel-agent"));
        command.args(["logs", "test", "--config"]).arg(&config).env("RUST_LOG", "error").stdin(Stdio::null());
        let output = command.output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), said)
    };
    write("{}");
    let (code, said) = run();
    assert!(code == Some(1) && said.contains("logs.destinations"), "{said}");
    let (loki, otlp) = (good.url(), bad.url());
    write(&format!("{{ a: {{ url: '{loki}', format: loki }} }}"));
    let (code, said) = run();
    assert!(code == Some(0) && said.contains("status 204: taken") && said.contains("journal: last entry at"), "{said}");
    write(&format!("{{ a: {{ url: '{loki}', format: loki }}, b: {{ url: '{otlp}' }} }}"));
    let (code, said) = run();
    assert!(code == Some(1) && said.contains("status 401, \"who are you?\": not taken"), "{said}");
    let sent = lines(&good.requests()[0]);
    assert!(sent[0].text.contains("logs test"), "{sent:?}");
}
