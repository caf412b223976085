//! The crash campaign of logs: a unit counts into a real journal, the agent is killed at random moments, and so are its three receivers,
//! which fail, hang, cut their answers off, ask for patience, and refuse some of the lines.
//!
//! What is held against the truth, which is the count:
//! - every line is in each receiver at least once, but for those that it refuses, and the first time in order;
//! - the account on disk has each line exactly once: acknowledged + rejected is the count, and rejected is what was refused;
//! - a line is repeated only where an agent was killed, or an answer was lost.
//!
//! A few rounds here; `CAMPAIGN_ROUNDS` sets another number, `CAMPAIGN_SEED` repeats a campaign.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use citadel_agent::logs::account::Account;
use citadel_agent::logs::wire::otlp;
use prost::Message as _;
use rustix::process::Signal;
use support::child::Running;
use support::journal::Journal;
use support::log_lines::lines;
use support::receiver::{Receiver, Reply, Request};
use tempfile::TempDir;

const UNIT: &str = "counter.service";
const FORMATS: [&str; 3] = ["otlp", "loki", "journal"];

/// One line in so many is one that no receiver takes.
const BAD_ONE_IN: u64 = 331;

/// Receivers take no more lines at once.
const MOST: usize = 300;

/// Lines a second.
const RATE: u64 = 500;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mood {
    Good,
    Away,
    Patient,
    Hanging,
    Cutting,
    Closing,
    /// Takes what it gets and dies before it answers.
    Forgetful,
    Gone,
}

const MOODS: [Mood; 8] =
    [Mood::Good, Mood::Away, Mood::Patient, Mood::Hanging, Mood::Cutting, Mood::Closing, Mood::Forgetful, Mood::Gone];

/// What a receiver has.
struct Store {
    mood: Mood,
    /// In the order in which they came.
    arrived: Vec<u64>,
    refused: BTreeSet<u64>,
    /// Requests whose answer was lost on purpose.
    forgotten: u64,
}

fn is_bad(line: u64) -> bool {
    line.is_multiple_of(BAD_ONE_IN)
}

impl Store {
    fn answer(&mut self, request: &Request, format: &str) -> Reply {
        match self.mood {
            Mood::Away => return Reply::Status(503, "", "away"),
            Mood::Patient => return Reply::Status(429, "Retry-After: 1\r\n", "later"),
            Mood::Hanging => return Reply::Hang,
            Mood::Cutting => return Reply::Cut,
            Mood::Closing | Mood::Gone => return Reply::Close,
            Mood::Good | Mood::Forgetful => {}
        }
        let numbers: Vec<u64> = lines(request).iter().map(|line| line.text.parse().unwrap()).collect();
        if numbers.len() > MOST {
            return Reply::Status(413, "", "too many");
        }
        let bad: Vec<u64> = numbers.iter().copied().filter(|line| is_bad(*line)).collect();
        // OTLP says how many it did not take; the others take nothing of such a request.
        if format != "otlp" && !bad.is_empty() {
            if numbers.len() == 1 {
                self.refused.extend(bad);
            }
            return Reply::Status(400, "", "not this one");
        }
        self.refused.extend(&bad);
        self.arrived.extend(numbers.iter().filter(|line| !is_bad(**line)));
        if self.mood == Mood::Forgetful {
            self.forgotten += 1;
            return Reply::Close;
        }
        match format {
            "otlp" => {
                let rejected = bad.len() as i64;
                let partial =
                    otlp::PartialSuccess { rejected_log_records: rejected, error_message: "not these".to_owned() };
                let response = otlp::Response { partial_success: (rejected > 0).then_some(partial) };
                Reply::Body(200, response.encode_to_vec())
            }
            "loki" => Reply::Status(204, "", ""),
            _ => Reply::Status(202, "", "OK."),
        }
    }
}

/// Chance, repeatable.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn mood(&mut self) -> Mood {
        MOODS[self.below(MOODS.len() as u64) as usize]
    }

    fn pause(&mut self, longest_ms: u64) {
        thread::sleep(Duration::from_millis(self.below(longest_ms)));
    }
}

/// A receiver and what it has.
struct Sink {
    format: &'static str,
    store: Arc<Mutex<Store>>,
    receiver: Option<Receiver>,
    addr: SocketAddr,
}

impl Sink {
    fn new(format: &'static str) -> Self {
        let store = Store { mood: Mood::Good, arrived: vec![], refused: BTreeSet::new(), forgotten: 0 };
        let addr = (Ipv4Addr::LOCALHOST, free_port()).into();
        let mut sink = Self { format, store: Arc::new(Mutex::new(store)), receiver: None, addr };
        sink.set(Mood::Good);
        sink
    }

    fn set(&mut self, mood: Mood) {
        self.store.lock().unwrap().mood = mood;
        match (mood, &self.receiver) {
            (Mood::Gone, _) => self.receiver = None,
            (_, None) => {
                let (store, format) = (Arc::clone(&self.store), self.format);
                let answer = move |request: &Request| store.lock().unwrap().answer(request, format);
                self.receiver = Some(Receiver::bind(self.addr, answer));
            }
            _ => {}
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Counts into the journal until it is told to stop.
struct Unit {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<Journal>>,
}

impl Unit {
    fn start(mut journal: Journal) -> Self {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let thread = thread::spawn(move || {
            let begin = Instant::now();
            while !stopped.load(Ordering::SeqCst) {
                let due = begin.elapsed().as_millis() as u64 * RATE / 1000;
                while counted.load(Ordering::SeqCst) < due {
                    let line = counted.fetch_add(1, Ordering::SeqCst) + 1;
                    journal.line(UNIT, &line.to_string());
                }
                thread::sleep(Duration::from_millis(10));
            }
            journal
        });
        Self { stop, count, thread: Some(thread) }
    }

    fn stop(&mut self) -> (u64, Journal) {
        self.stop.store(true, Ordering::SeqCst);
        let journal = self.thread.take().unwrap().join().unwrap();
        (self.count.load(Ordering::SeqCst), journal)
    }
}

fn agent(dir: &Path) -> Running {
    let agent = Command::new(env!("CARGO_BIN_EXE_citadel-agent"))
        .args(["run", "--config"])
        .arg(dir.join("config.yaml"))
        .env("RUST_LOG", "error")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::options().create(true).append(true).open(dir.join("log")).unwrap())
        .spawn();
    Running(agent.unwrap())
}

fn account(dir: &Path, format: &str) -> Option<Account> {
    Account::read(&dir.join(format!("state/{format}.json"))).expect("a kill leaves the old account or the new one")
}

#[test]
fn whatever_happens_every_line_arrives_in_order_and_counts_once() {
    let rounds: u64 = env::var("CAMPAIGN_ROUNDS").map_or(5, |rounds| rounds.parse().expect("a number of rounds"));
    let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = env::var("CAMPAIGN_SEED").map_or_else(|_| clock(), |seed| seed.parse().expect("a number"));
    println!("{rounds} rounds, CAMPAIGN_SEED={seed}");
    let mut chance = Chance(seed | 1);
    let dir = TempDir::new().unwrap();
    let mut sinks = FORMATS.map(Sink::new);
    let destinations: Vec<_> = sinks
        .iter()
        .map(|sink| format!("    {0}: {{ url: 'http://{1}/', format: {0}, timeout: 500ms }}\n", sink.format, sink.addr))
        .collect();
    let mut journal = Journal::new(&dir.path().join("journal"));
    journal.line("other.service", "the journal begins");
    journal.wait_for(1);
    let config = format!(
        "local_collection: {{ listen_address: 127.0.0.1, metrics_port: {}, health_check_port: {}, control_socket: {} }}\n\
         model_monitoring: {{ ports: {{}}, discover: none, health_endpoints: [] }}\ngpu: {{ enabled: false }}\n\
         ebpf: {{ net: false, recvq: false, sched: false, syscalls: false }}\n\
         logs:\n  journal: {}\n  directory: {}\n  units: [{UNIT}]\n  rate_limit: 0\n  destinations:\n{}",
        free_port(),
        free_port(),
        dir.path().join("control.sock").display(),
        journal.folder.display(),
        dir.path().join("state").display(),
        destinations.concat(),
    );
    fs::write(dir.path().join("config.yaml"), config).unwrap();
    // The first agent, by which each destination begins before the first line.
    let first = agent(dir.path());
    let begin = Instant::now();
    while FORMATS.iter().any(|format| account(dir.path(), format).is_none()) {
        assert!(begin.elapsed() < Duration::from_secs(30), "no accounts: {}", log(dir.path()));
        thread::sleep(Duration::from_millis(20));
    }
    drop(first);

    let mut unit = Unit::start(journal);
    for _ in 0..rounds {
        sinks.iter_mut().for_each(|sink| sink.set(chance.mood()));
        let mut agent = agent(dir.path());
        chance.pause(2000);
        sinks.iter_mut().for_each(|sink| sink.set(chance.mood()));
        chance.pause(2000);
        agent.0.kill().unwrap();
        agent.0.wait().unwrap();
    }
    sinks.iter_mut().for_each(|sink| sink.set(Mood::Good));
    let (count, _journal) = unit.stop();
    let mut agent = agent(dir.path());
    let begin = Instant::now();
    let settled =
        |format: &str| account(dir.path(), format).map_or(0, |account| account.acknowledged + account.rejected);
    while FORMATS.iter().any(|format| settled(format) < count) {
        let counts: Vec<_> = FORMATS.iter().map(|format| account(dir.path(), format)).collect();
        assert!(begin.elapsed() < Duration::from_secs(90), "{count}: {counts:?}; log: {}", log(dir.path()));
        thread::sleep(Duration::from_millis(100));
    }
    agent.signal(Signal::TERM);
    agent.0.wait().unwrap();

    for sink in &sinks {
        let store = sink.store.lock().unwrap();
        let account = account(dir.path(), sink.format).unwrap();
        let bad = count / BAD_ONE_IN;
        let mut first = BTreeMap::new();
        store.arrived.iter().enumerate().for_each(|(place, line)| _ = first.entry(*line).or_insert(place));
        println!(
            "{}: {count} lines, {} arrived, {} of them again, {} refused; acknowledged {}, rejected {}, {} answers lost",
            sink.format,
            store.arrived.len(),
            store.arrived.len() - first.len(),
            store.refused.len(),
            account.acknowledged,
            account.rejected,
            store.forgotten,
        );
        let lost: Vec<_> = (1..=count).filter(|line| !is_bad(*line) && !first.contains_key(line)).take(5).collect();
        assert!(lost.is_empty(), "{}: lost {lost:?}", sink.format);
        assert!(first.values().is_sorted(), "{}: out of order", sink.format);
        assert_eq!(store.refused.len() as u64, bad, "{}", sink.format);
        assert_eq!((account.acknowledged, account.rejected), (count - bad, bad), "{}", sink.format);
        assert_eq!((account.limited, account.lost_entries, account.lost_us), (0, 0, 0), "{}", sink.format);
        // Going back happens once for each agent, each change of mood and each lost answer.
        let back = store.arrived.windows(2).filter(|pair| pair[1] <= pair[0]).count() as u64;
        assert!(back <= 3 * rounds + store.forgotten, "{}: goes back {back} times", sink.format);
    }
}

fn log(dir: &Path) -> String {
    fs::read_to_string(dir.join("log")).unwrap_or_default()
}
