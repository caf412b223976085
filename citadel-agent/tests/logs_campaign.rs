//! The crash campaign of logs: a unit counts into a real journal, the agent is killed at random moments, and so are its receivers. Three
//! record, and fail, hang, cut their answers off, ask for patience, and refuse some of the lines; the fourth is systemd-journal-remote.
//! Each is a process of its own.
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
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use citadel_agent::logs::account::Account;
use citadel_agent::logs::wire::otlp;
use prost::Message as _;
use rustix::process::Signal;
use support::chance::Chance;
use support::child::Running;
use support::journal::{Journal, journal_remote_on};
use support::log_lines::lines;
use support::receiver::{Receiver, Reply, Request};
use tempfile::TempDir;

const UNIT: &str = "counter.service";

/// The destinations: recording receivers, by their format, and the real systemd-journal-remote.
const NAMES: [&str; 4] = ["otlp", "loki", "journal", REMOTE];

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

/// The environment variable that makes a process of this test a receiver: `FORMAT PORT FOLDER`.
const RECEIVER: &str = "CAMPAIGN_RECEIVER";

fn is_bad(line: u64) -> bool {
    line.is_multiple_of(BAD_ONE_IN)
}

/// What a receiver keeps, in files that outlive it: a line for each request, which counts once it is whole.
struct Store {
    folder: PathBuf,
}

impl Store {
    /// Removes what a receiver that was killed had not finished to write. It has not answered for that.
    fn recover(&self) {
        for name in ["arrived", "refused", "forgotten"] {
            let path = self.folder.join(name);
            let text = fs::read(&path).unwrap_or_default();
            let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
            fs::write(&path, &text[..whole]).unwrap();
        }
    }

    fn add(&self, name: &str, numbers: &[u64]) {
        let words: Vec<_> = numbers.iter().map(u64::to_string).collect();
        let mut file = fs::File::options().append(true).open(self.folder.join(name)).unwrap();
        file.write_all(format!("{}\n", words.join(" ")).as_bytes()).unwrap();
    }

    /// All numbers of all requests, in the order in which they came.
    fn all(&self, name: &str) -> Vec<u64> {
        let text = fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        text[..whole].split_whitespace().map(|word| word.parse().unwrap()).collect()
    }

    fn mood(&self) -> Mood {
        let word = fs::read_to_string(self.folder.join("mood")).unwrap();
        *MOODS.iter().find(|mood| format!("{mood:?}") == word).expect("a mood")
    }

    fn set_mood(&self, mood: Mood) {
        let (new, path) = (self.folder.join("mood.new"), self.folder.join("mood"));
        fs::write(&new, format!("{mood:?}")).unwrap();
        fs::rename(new, path).unwrap();
    }

    fn answer(&self, request: &Request, format: &str) -> Reply {
        let mood = self.mood();
        match mood {
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
        let (bad, good): (Vec<u64>, Vec<u64>) = numbers.iter().partition(|line| is_bad(**line));
        // OTLP says how many it did not take; the others take nothing of such a request.
        if format != "otlp" && !bad.is_empty() {
            if numbers.len() == 1 {
                self.add("refused", &bad);
            }
            return Reply::Status(400, "", "not this one");
        }
        self.add("refused", &bad);
        self.add("arrived", &good);
        if mood == Mood::Forgetful {
            self.add("forgotten", &[1]);
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

#[test]
#[ignore = "the process of a receiver, which the campaign starts"]
fn receiver() {
    let order = env::var(RECEIVER).expect("the campaign starts this");
    let words: Vec<&str> = order.split(' ').collect();
    let (format, port) = (words[0].to_owned(), words[1].parse::<u16>().unwrap());
    let store = Store { folder: words[2].into() };
    store.recover();
    let _receiver = Receiver::bind((Ipv4Addr::LOCALHOST, port).into(), move |request| store.answer(request, &format));
    loop {
        thread::park();
    }
}

fn mood(chance: &mut Chance) -> Mood {
    MOODS[chance.index(MOODS.len())]
}

/// A receiver, a process that is killed and started again, and what it has.
struct Sink {
    /// As the destination is called.
    name: &'static str,
    store: Store,
    process: Option<Running>,
    port: u16,
    /// Times that it was killed.
    kills: u64,
}

/// The name of the destination that is systemd's own program.
const REMOTE: &str = "remote";

impl Sink {
    fn new(name: &'static str, dir: &Path) -> Self {
        let store = Store { folder: dir.join(name) };
        fs::create_dir(&store.folder).unwrap();
        let mut sink = Self { name, store, process: None, port: free_port(), kills: 0 };
        sink.set(Mood::Good);
        sink
    }

    fn format(&self) -> &'static str {
        if self.name == REMOTE { "journal" } else { self.name }
    }

    /// systemd's has the moods of a process only: there, or not.
    fn set(&mut self, mood: Mood) {
        self.store.set_mood(mood);
        if mood == Mood::Gone {
            self.kill();
        } else if self.process.is_none() {
            self.start();
        }
    }

    fn start(&mut self) {
        if self.name == REMOTE {
            self.process = Some(journal_remote_on(self.port, &self.store.folder.join("remote.journal")));
            return;
        }
        let mut command = Command::new(env::current_exe().unwrap());
        let order = format!("{} {} {}", self.name, self.port, self.store.folder.display());
        command.args(["--ignored", "--exact", "receiver"]).env(RECEIVER, order);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        self.process = Some(Running(process));
        let begin = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(20), "the receiver of {} does not listen", self.name);
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// As `kill -9` does.
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.0.kill().unwrap();
            process.0.wait().unwrap();
            self.kills += 1;
        }
    }

    /// What has arrived, by file: journal-remote begins another one after it was killed.
    fn arrived(&self) -> Vec<Vec<u64>> {
        if self.name != REMOTE {
            return vec![self.store.all("arrived")];
        }
        let files = fs::read_dir(&self.store.folder).unwrap().map(|entry| entry.unwrap().path());
        let files = files.filter(|path| path.to_string_lossy().contains(".journal"));
        let read = |path: PathBuf| {
            let mut command = Command::new("journalctl");
            let output = command.args(["--output=cat", "--quiet", "--file"]).arg(&path).output().unwrap();
            assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout).unwrap();
            text.lines().map(|line| line.parse().unwrap()).collect()
        };
        files.map(read).collect()
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

fn account(dir: &Path, name: &str) -> Option<Account> {
    Account::read(&dir.join(format!("state/{name}.json"))).expect("a kill leaves the old account or the new one")
}

#[test]
fn whatever_happens_every_line_arrives_in_order_and_counts_once() {
    let rounds: u64 = env::var("CAMPAIGN_ROUNDS").map_or(5, |rounds| rounds.parse().expect("a number of rounds"));
    let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = env::var("CAMPAIGN_SEED").map_or_else(|_| clock(), |seed| seed.parse().expect("a number"));
    println!("{rounds} rounds, CAMPAIGN_SEED={seed}");
    let mut chance = Chance::new(seed);
    let dir = TempDir::new().unwrap();
    let mut sinks = NAMES.map(|name| Sink::new(name, dir.path()));
    let mut journal = Journal::new(&dir.path().join("journal"));
    journal.line("other.service", "the journal begins");
    journal.wait_for(1);
    configure(dir.path(), &journal, &sinks);
    // The first agent, by which each destination begins before the first line.
    let first = agent(dir.path());
    let begin = Instant::now();
    while NAMES.iter().any(|name| account(dir.path(), name).is_none()) {
        assert!(begin.elapsed() < Duration::from_secs(30), "no accounts: {}", log(dir.path()));
        thread::sleep(Duration::from_millis(20));
    }
    drop(first);

    let mut unit = Unit::start(journal);
    for _ in 0..rounds {
        sinks.iter_mut().for_each(|sink| sink.set(mood(&mut chance)));
        let mut agent = agent(dir.path());
        chance.pause(2000);
        sinks.iter_mut().filter(|_| chance.below(2) == 0).for_each(Sink::kill);
        chance.pause(1000);
        sinks.iter_mut().for_each(|sink| sink.set(mood(&mut chance)));
        chance.pause(1500);
        agent.0.kill().unwrap();
        agent.0.wait().unwrap();
    }
    sinks.iter_mut().for_each(|sink| sink.set(Mood::Good));
    let (count, _journal) = unit.stop();
    let mut agent = agent(dir.path());
    let begin = Instant::now();
    let settled = |name: &str| account(dir.path(), name).map_or(0, |account| account.acknowledged + account.rejected);
    while NAMES.iter().any(|name| settled(name) < count) {
        let counts: Vec<_> = NAMES.iter().map(|name| account(dir.path(), name)).collect();
        assert!(begin.elapsed() < Duration::from_secs(90), "{count}: {counts:?}; log: {}", log(dir.path()));
        thread::sleep(Duration::from_millis(100));
    }
    agent.signal(Signal::TERM);
    agent.0.wait().unwrap();
    sinks.iter().for_each(|sink| compare(sink, dir.path(), count, rounds));
}

/// Four destinations of one unit.
fn configure(dir: &Path, journal: &Journal, sinks: &[Sink]) {
    let destination = |sink: &Sink| {
        let path = if sink.name == REMOTE { "upload" } else { "" };
        let (name, port, format) = (sink.name, sink.port, sink.format());
        format!("    {name}: {{ url: 'http://127.0.0.1:{port}/{path}', format: {format}, timeout: 500ms }}\n")
    };
    let config = format!(
        "local_collection: {{ listen_address: 127.0.0.1, metrics_port: {}, health_check_port: {}, control_socket: {} }}\n\
         model_monitoring: {{ ports: {{}}, discover: none, health_endpoints: [] }}\ngpu: {{ enabled: false }}\n\
         ebpf: {{ net: false, recvq: false, sched: false, syscalls: false }}\n\
         logs:\n  journal: {}\n  directory: {}\n  units: [{UNIT}]\n  rate_limit: 0\n  destinations:\n{}",
        free_port(),
        free_port(),
        dir.join("control.sock").display(),
        journal.folder.display(),
        dir.join("state").display(),
        sinks.iter().map(destination).collect::<String>(),
    );
    fs::write(dir.join("config.yaml"), config).unwrap();
}

/// Holds what a receiver has against the count.
fn compare(sink: &Sink, dir: &Path, count: u64, rounds: u64) {
    let name = sink.name;
    let account = account(dir, name).unwrap();
    let bad = |line: u64| name != REMOTE && is_bad(line);
    let refused = (1..=count).filter(|line| bad(*line)).count() as u64;
    let files = sink.arrived();
    let mut seen = BTreeSet::new();
    for arrived in &files {
        let mut first = BTreeMap::new();
        arrived.iter().enumerate().for_each(|(place, line)| _ = first.entry(*line).or_insert(place));
        assert!(first.values().is_sorted(), "{name}: out of order");
        seen.extend(first.into_keys());
    }
    let arrived: usize = files.iter().map(Vec::len).sum();
    let (forgotten, again) = (sink.store.all("forgotten").len() as u64, arrived - seen.len());
    println!(
        "{name}: {count} lines, {arrived} arrived, {again} of them again; acknowledged {}, rejected {}; killed {} times, \
         {forgotten} answers lost on purpose",
        account.acknowledged, account.rejected, sink.kills,
    );
    let lost: Vec<_> = (1..=count).filter(|line| !bad(*line) && !seen.contains(line)).take(5).collect();
    assert!(lost.is_empty(), "{name}: lost {lost:?}");
    if name != REMOTE {
        let once: BTreeSet<_> = sink.store.all("refused").into_iter().collect();
        assert_eq!(once.len() as u64, refused, "{name}");
    }
    assert_eq!((account.acknowledged, account.rejected), (count - refused, refused), "{name}");
    assert_eq!((account.limited, account.lost_entries, account.lost_us), (0, 0, 0), "{name}");
    // Going back happens once for each agent, each kill of the receiver, each change of mood and each lost answer.
    let back = files.iter().flat_map(|arrived| arrived.windows(2)).filter(|pair| pair[1] <= pair[0]).count() as u64;
    assert!(back <= 3 * rounds + sink.kills + forgotten, "{name}: goes back {back} times");
}

fn log(dir: &Path) -> String {
    fs::read_to_string(dir.join("log")).unwrap_or_default()
}
