//! Causes that are planted into real servers on the running kernel: `explain` names each one first, and nothing where nothing is wrong.
//!
//! `EXPLAIN_REPETITIONS` repeats it, each time in another order; `EXPLAIN_SEED` says in which.

use std::env;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use citadel_agent_tests::agent::{Agent, Setup, free_port};
use citadel_agent_tests::tools::{fixture, program};
use citadel_agent_tests::truth::pause;
use serde_json::Value;

/// How long a fault lasts before it is explained, and how much of that is looked at: whole intervals of 5 s.
const FAULT: Duration = Duration::from_secs(16);
const LOOKED_AT: &str = "10s";

/// What clients do besides what they always do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Habit {
    Reads = 0,
    /// Closes the connection after the first bytes of the answer.
    HangsUp = 1,
    /// Takes its answer in small bites.
    ReadsSlowly = 2,
}

/// A server in a process of its own, and its clients.
struct Model {
    port: u16,
    server: Child,
    commands: ChildStdin,
    habit: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Model {
    fn start(port: u16, folder: &Path) -> Self {
        // Above everything else that this machine does, as far as the machine's load is not what is planted.
        let mut command = Command::new("nice");
        command.args(["-n", "-10"]).arg(program("python3", "python3")).arg("-S").arg(fixture("planted.py"));
        command.arg(port.to_string()).arg(folder.join(port.to_string()));
        let mut server = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start the server");
        let mut line = String::new();
        BufReader::new(server.stdout.take().expect("its output")).read_line(&mut line).expect("read its output");
        assert_eq!(line, "ready\n");
        let commands = server.stdin.take().expect("its input");
        Self { port, server, commands, habit: Arc::default(), stop: Arc::default(), clients: Vec::new() }
    }

    fn load(&mut self) {
        for client in 0..2 {
            let (port, habit, stop) = (self.port, Arc::clone(&self.habit), Arc::clone(&self.stop));
            self.clients.push(thread::spawn(move || {
                pause(client * 130);
                while !stop.load(Ordering::Relaxed) {
                    // A connection that the server or the network ends is none of the client's business here.
                    _ = session(port, &habit, &stop);
                }
            }));
        }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.commands, "{line}").expect("tell the server");
    }

    fn behave(&self, habit: Habit) {
        self.habit.store(habit as u32, Ordering::Relaxed);
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        _ = self.server.kill();
        _ = self.server.wait();
        self.clients.drain(..).for_each(|client| _ = client.join());
    }
}

const REQUEST: &str = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n";

/// Requests over one connection, one after the other, about three a second.
fn session(port: u16, habit: &AtomicU32, stop: &AtomicBool) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    while !stop.load(Ordering::Relaxed) {
        let now = habit.load(Ordering::Relaxed);
        stream.write_all(format!("{REQUEST}\r\n{{}}").as_bytes())?;
        let (mut tail, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            if now == Habit::HangsUp as u32 {
                pause(250);
                return Ok(());
            }
            if now == Habit::ReadsSlowly as u32 && !stop.load(Ordering::Relaxed) {
                pause(20);
            }
            tail.extend(&buffer[..count]);
            let keep = tail.len().saturating_sub(5);
            if tail.ends_with(b"0\r\n\r\n") || tail.starts_with(b"HTTP/1.1 503") {
                break;
            }
            if !tail.starts_with(b"HTTP") || tail.len() > 500 {
                tail.drain(..keep);
            }
        }
        pause(250);
    }
    Ok(())
}

/// Processes that only compute; gone with the value.
struct Busy(Vec<Child>);

impl Busy {
    fn on_cpu(cpu: usize, count: usize) -> Self {
        let one = |_| {
            let mut command = Command::new("nice");
            command.args(["-n", "-10", "taskset", "-c", &cpu.to_string(), "sh", "-c", "while :; do :; done"]);
            command.spawn().expect("start a busy loop")
        };
        Self((0..count).map(one).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

/// A firewall rule that drops a part of what a server sends; gone with the value.
struct Loss(String);

impl Loss {
    fn from_port(port: u16) -> Self {
        let table = format!("citadel_loss_{port}");
        let rules = format!(
            "table ip {table} {{ chain input {{ type filter hook input priority 0; tcp sport {port} numgen random mod 100 < 25 drop; }}; }}"
        );
        let mut child = Command::new(program("nft", "nftables"))
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("start nft");
        child.stdin.take().expect("its input").write_all(rules.as_bytes()).expect("write the rules");
        assert!(child.wait().expect("wait for nft").success(), "nft takes {rules}");
        Self(table)
    }
}

impl Drop for Loss {
    fn drop(&mut self) {
        _ = Command::new(program("nft", "nftables")).args(["delete", "table", "ip", &self.0]).status();
    }
}

/// What is planted, and what it is called.
const CASES: [(&str, &str, &str); 10] = [
    ("blocked", "slow", "event_loop"),
    ("starved", "slow", "cpu_starvation"),
    ("lossy", "slow", "network_loss"),
    ("reader", "slow", "slow_reader"),
    ("thinks", "slow", "model_itself"),
    ("disk", "slow", "slow_disk"),
    ("errors", "failing", "server_errors"),
    ("leaves", "failing", "clients_give_up"),
    ("hangs", "stalled", "hanging_request"),
    ("fine", "well", ""),
];

/// Those that would spoil the others' while they last.
const ALONE: [&str; 2] = ["starved", "disk"];

#[test]
#[ignore = "wants a minute and a half of a machine that does nothing else: cargo test -p citadel-agent-tests --test explain -- --ignored"]
fn each_planted_cause_is_named_first_and_nothing_where_nothing_is_wrong() {
    let number = |name: &str, default: u64| env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (repetitions, mut seed) = (number("EXPLAIN_REPETITIONS", 1), number("EXPLAIN_SEED", 1));
    let mut wrong = Vec::new();
    for repetition in 0..repetitions {
        let mut order: Vec<_> = CASES.to_vec();
        for at in (1..order.len()).rev() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            order.swap(at, (seed >> 33) as usize % (at + 1));
        }
        if repetition > 0 || repetitions > 1 {
            eprintln!("repetition {repetition}: {:?}", order.iter().map(|case| case.0).collect::<Vec<_>>());
        }
        wrong.extend(repeat(&order));
    }
    assert!(
        wrong.is_empty(),
        "{} of {} causes not named first:\n{}",
        wrong.len(),
        repetitions * CASES.len() as u64,
        wrong.join("\n")
    );
}

/// One repetition: what was not named as it should be.
fn repeat(order: &[(&str, &str, &str)]) -> Vec<String> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("make a folder on a disk");
    let mut models: Vec<_> = order.iter().map(|_| Model::start(free_port(), folder.path())).collect();
    let setup = order.iter().zip(&models).fold(Setup::new(), |setup, (case, model)| setup.model(case.0, model.port));
    let agent = setup.start();
    agent.assert_measuring();
    for ((name, ..), model) in order.iter().zip(&mut models) {
        match *name {
            // Something to compute, on one CPU.
            "starved" => {
                model.tell("burn 0.015");
                let pid = model.server.id().to_string();
                let pinned = Command::new("taskset").args(["-a", "-c", "-p", "0", &pid]).stdout(Stdio::null()).status();
                assert!(pinned.expect("run taskset").success());
            }
            "reader" => model.tell("bytes 60000"),
            "disk" => model.tell("fsync 0.001"),
            _ => {}
        }
        model.load();
    }
    // What is normal.
    thread::sleep(FAULT);
    let mut wrong = Vec::new();
    let (alone, together): (Vec<_>, Vec<_>) = (0..order.len()).partition(|at| ALONE.contains(&order[*at].0));
    let groups = std::iter::once(together).chain(alone.into_iter().map(|at| vec![at]));
    for group in groups {
        let mut held: Vec<Box<dyn std::any::Any>> = Vec::new();
        for &at in &group {
            let model = &mut models[at];
            match order[at].0 {
                "blocked" => model.tell("block 0.8"),
                "starved" => held.push(Box::new(Busy::on_cpu(0, 4))),
                "lossy" => held.push(Box::new(Loss::from_port(model.port))),
                "reader" => model.behave(Habit::ReadsSlowly),
                "thinks" => model.tell("think 0.12"),
                "disk" => model.tell("fsync 0.12"),
                "errors" => model.tell("errors 2"),
                "leaves" => model.behave(Habit::HangsUp),
                "hangs" => {
                    let mut stream = TcpStream::connect(("127.0.0.1", model.port)).expect("connect");
                    stream.write_all(format!("{REQUEST}x-hang: 1\r\n\r\n{{}}").as_bytes()).expect("send a request");
                    held.push(Box::new(stream));
                }
                _ => {}
            }
        }
        thread::sleep(FAULT);
        wrong.extend(group.iter().filter_map(|&at| judge(&agent, order[at])));
        drop(held);
        for &at in &group {
            models[at].behave(Habit::Reads);
            ["block 0", "think 0.03", "errors 0"].iter().for_each(|line| models[at].tell(line));
            if order[at].0 == "disk" {
                models[at].tell("fsync 0.001");
            }
        }
    }
    wrong
}

/// What is wrong with what the agent explains of a case.
fn judge(agent: &Agent, (name, verdict, cause): (&str, &str, &str)) -> Option<String> {
    let (status, text) = agent.command(&["explain", "--model", name, "--last", LOOKED_AT, "--format", "json"]);
    assert!(status.success(), "{text}");
    let explanation: Value = serde_json::from_str::<Value>(&text).expect("JSON")[0].take();
    let first = explanation["causes"][0]["cause"].as_str().unwrap_or_default();
    if explanation["verdict"] == verdict && first == cause {
        return None;
    }
    let (_, text) = agent.command(&["explain", "--model", name, "--last", LOOKED_AT]);
    Some(format!("{name}: {verdict}, {cause} was planted, and this is said:\n{text}"))
}
