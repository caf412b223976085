//! System calls of models: a server whose calls take a time that is known and fail as they are told to.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use citadel_agent_common::abi::{SEATS, seat};
use citadel_agent_tests::agent::{Agent, Setup, free_port};
use citadel_agent_tests::assert_eventually;
use citadel_agent_tests::names::{INFO, MAP_ENTRIES, RUN_QUEUE, SYSCALL_DURATION, SYSCALL_ERRORS};
use citadel_agent_tests::scrape::{Page, sums};
use citadel_agent_tests::truth::{Span, pause};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A running `caller`, see `src/bin/caller.rs`; ends with the value.
struct Caller {
    child: Child,
    port: u16,
    dir: TempDir,
}

impl Caller {
    #[track_caller]
    fn start(steps: &[&str]) -> Self {
        let (dir, port) = (tempfile::tempdir().expect("make a temporary directory"), free_port());
        let child = Command::new(env!("CARGO_BIN_EXE_caller"))
            .arg(dir.path().join("report"))
            .arg(port.to_string())
            .args(steps)
            .stdin(Stdio::piped())
            .spawn()
            .expect("start the caller");
        Self { child, port, dir }
    }

    /// Starts one as a process of this number: the next that the kernel gives is that after the last one.
    #[track_caller]
    fn start_as(pid: u32, steps: &[&str]) -> Self {
        for _ in 0..1000 {
            fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())
                .expect("root chooses the next process's number");
            let caller = Self::start(steps);
            if caller.child.id() == pid {
                return caller;
            }
        }
        panic!("no process gets the number {pid}");
    }

    /// Ends a `pause`.
    fn go(&self) {
        kill_process(Pid::from_child(&self.child), Signal::USR1).expect("signal the caller");
    }

    fn send_byte(&mut self) {
        self.child.stdin.as_mut().expect("the input is piped").write_all(b"x").expect("write to the caller");
    }

    fn report(&self) -> PathBuf {
        self.dir.path().join("report")
    }

    /// How long the calls of one step took, once all steps are done: at least `lo` milliseconds each.
    #[track_caller]
    fn truth(&self, step: &str, lo: u64) -> Vec<Span> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let report = loop {
            let report = fs::read_to_string(self.report()).unwrap_or_default();
            if report.ends_with("done\n") {
                break report;
            }
            assert!(Instant::now() < deadline, "the caller is not done: {report}");
            pause(20);
        };
        let times = report.lines().filter_map(|line| line.strip_prefix(step)?.strip_prefix(' ')?.parse().ok());
        times.map(|hi| Span { lo: lo * 1_000_000, hi }).collect()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        // Nothing is left to do about a process that is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An agent that measures both, and knows their processes.
#[track_caller]
fn measuring(model: &Caller, neighbour: &Caller) -> Agent {
    let agent = Setup::new().model("model", model.port).model("neighbour", neighbour.port).start();
    let family = &agent.status()["families"]["syscalls"];
    assert!(family["status"] == "ok", "this test needs the eBPF programs to run, as root, but: {family:#}");
    for caller in [model, neighbour] {
        let pid = caller.child.id().to_string();
        assert_eventually!(agent, |page| page.gauge(INFO).label("pid", &pid).is_present());
    }
    agent
}

/// How often a model made a call.
fn calls(page: &Page, model: &str, call: &str) -> u64 {
    page.histogram(SYSCALL_DURATION).label("model", model).label("syscall", call).count()
}

fn errors(page: &Page, model: &str) -> std::collections::BTreeMap<String, u64> {
    page.counter(SYSCALL_ERRORS).label("model", model).by(["syscall", "errno"])
}

#[test]
fn calls_and_errors_are_counted_exactly_and_timed() {
    let mut model = Caller::start(&[
        "pause",
        "open-missing=7",
        "read-empty=5",
        "read-nothing=2",
        "read-stdin",
        "poll-40-ms=3",
        "futex-60-ms=2",
        "fsync=2",
        "fork-and-open-missing=4",
        "read-interrupted",
    ]);
    let neighbour = Caller::start(&["pause", "open-missing=3"]);
    let agent = measuring(&model, &neighbour);
    model.go();
    neighbour.go();
    pause(150);
    model.send_byte();

    let futex = model.truth("futex-60-ms", 60);
    let page = assert_eventually!(agent, |page| {
        page.histogram(SYSCALL_DURATION).label("model", "model").label("syscall", "openat").count() == 11
    });
    page.assert_nothing_lost();
    let times = |call| page.histogram(SYSCALL_DURATION).label("model", "model").label("syscall", call);
    times("futex").assert_holds(&futex);
    times("poll").assert_holds(&model.truth("poll-40-ms", 40));
    times("fsync").assert_holds(&model.truth("fsync", 0));
    times("openat").assert_holds(&[model.truth("open-missing", 0), model.truth("fork-and-open-missing", 0)].concat());
    let stdin = model.truth("read-stdin", 0).into_iter().map(|span| Span { lo: span.hi, ..span });
    let reads = [
        model.truth("read-empty", 0),
        model.truth("read-nothing", 0),
        model.truth("read-interrupted", 60),
        stdin.collect(),
    ];
    times("read").assert_holds(&reads.concat());
    assert_eq!(
        errors(&page, "model"),
        sums([
            ("futex ETIMEDOUT", 2),
            ("openat ENOENT", 11),
            ("read EAGAIN", 5),
            ("read EBADF", 2),
            ("read ERESTARTSYS", 1)
        ])
    );

    let of_neighbour = page.histogram(SYSCALL_DURATION).label("model", "neighbour");
    assert_eq!(of_neighbour.clone().label("syscall", "openat").count(), 3);
    assert_eq!(of_neighbour.count(), 3, "and no other call");
    assert_eq!(errors(&page, "neighbour"), sums([("openat ENOENT", 3)]));
}

#[test]
fn a_call_that_was_under_way_when_the_agent_came_is_not_counted() {
    let mut model = Caller::start(&["poll-stdin", "pause", "open-missing=2"]);
    let neighbour = Caller::start(&["pause"]);
    let agent = measuring(&model, &neighbour);
    model.send_byte();
    pause(50);
    model.go();
    model.truth("open-missing", 0);

    let page =
        assert_eventually!(agent, |page| { page.histogram(SYSCALL_DURATION).label("syscall", "openat").count() == 2 });
    assert_eq!(page.histogram(SYSCALL_DURATION).count(), 2, "the poll that began before is not among them");
    page.assert_nothing_lost();
}

#[test]
fn the_calls_of_a_process_that_goes_to_another_model_are_that_ones() {
    let elsewhere = free_port();
    let go_there = format!("listen-on-{elsewhere}");
    let server = Caller::start(&["pause", "open-missing=3", "pause", &go_there, "pause", "open-missing=2"]);
    let agent = Setup::new().model("first", server.port).model("second", elsewhere).start();
    let pid = server.child.id().to_string();
    assert_eventually!(agent, |page| page.gauge(INFO).label("model", "first").label("pid", &pid).is_present());
    server.go();
    assert_eventually!(agent, |page| calls(page, "first", "openat") == 3);
    server.go();
    assert_eventually!(agent, |page| page.gauge(INFO).label("model", "second").label("pid", &pid).is_present());
    server.go();
    server.truth("open-missing", 0);

    let page = assert_eventually!(agent, |page| calls(page, "second", "openat") == 2);
    assert_eq!(calls(&page, "first", "openat"), 3, "what it did before stays where it was");
    page.assert_nothing_lost();
}

#[test]
fn threads_that_share_a_seat_are_kept_apart() {
    let mut model = Caller::start(&["pause", "poll-stdin", "open-missing=2"]);
    let first = model.child.id();
    let second = if first > SEATS { first - SEATS } else { first + SEATS };
    assert_eq!(seat(first), seat(second));
    let neighbour = Caller::start_as(second, &["pause", "open-missing=3", "pause", "open-missing=4"]);
    let agent = measuring(&model, &neighbour);
    // The first is in a call, and so has the seat, while the second makes some.
    model.go();
    pause(100);
    neighbour.go();
    let page = assert_eventually!(agent, |page| calls(page, "neighbour", "openat") == 3);
    assert_eq!((calls(&page, "model", "poll"), threads(&page)), (0, 2));
    // The scheduler's programs have seats as well, and both were woken.
    let waited = |model| page.histogram(RUN_QUEUE).label("model", model).count();
    assert!(waited("model") > 0 && waited("neighbour") > 0, "{page}");
    assert_eq!(entries(&page, "sched_threads"), 2);
    model.send_byte();
    let poll = model.truth("poll-stdin", 100);
    let page = assert_eventually!(agent, |page| calls(page, "model", "openat") == 2);
    page.histogram(SYSCALL_DURATION).label("model", "model").label("syscall", "poll").assert_holds(&poll);
    page.assert_nothing_lost();

    drop(model);
    assert_eventually!(agent, |page| threads(page) == 1);
    neighbour.go();
    let page = assert_eventually!(agent, |page| calls(page, "neighbour", "openat") == 7);
    page.histogram(SYSCALL_DURATION).label("model", "neighbour").assert_holds(&neighbour.truth("open-missing", 0));
    drop(neighbour);
    assert_eventually!(agent, |page| threads(page) == 0 && entries(page, "sched_threads") == 0);
}

/// Entries of the kernel programs' maps.
fn entries(page: &Page, map: &str) -> u64 {
    page.gauge(MAP_ENTRIES).label("map", map).value()
}

/// Threads in those of system calls.
fn threads(page: &Page) -> u64 {
    entries(page, "syscalls_threads")
}

#[test]
fn threads_that_die_inside_a_call_leave_nothing_behind() {
    let model = Caller::start(&["pause", "thread-in-poll=3"]);
    let neighbour = Caller::start(&["pause", "open-missing", "thread-in-poll=2", "exec-from-thread"]);
    let agent = measuring(&model, &neighbour);
    model.go();
    assert_eventually!(agent, |page| threads(page) == 4);
    neighbour.go();
    let sleep = assert_eventually!(agent, |page| {
        page.histogram(SYSCALL_DURATION).label("model", "neighbour").label("syscall", "mmap").count() > 0
            && threads(page) == 5
    });
    sleep.assert_nothing_lost();
    drop(neighbour);
    assert_eventually!(agent, |page| threads(page) == 4);
    drop(model);
    assert_eventually!(agent, |page| threads(page) == 0);
}
