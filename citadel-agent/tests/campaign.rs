//! The crash campaign: the agent's own binary is killed at random moments, again and again, while its receiver is killed,
//! restarted, fails, refuses, hangs, cuts its answers off or is of an older kind, and its disk is full for a while.
//!
//! What is held against the truth, which is the receiver's store and what was on disk when the agent died:
//! - collected = acknowledged + rejected + dropped + pending, in every figure that the agent exports and in its ledger;
//! - no sample is in the receiver twice with another value;
//! - what was on disk at a kill is in the receiver in the end, unless the receiver refused it for good;
//! - the receiver has exactly what the ledger calls acknowledged, and has refused exactly what it calls rejected.
//!
//! A few rounds here; `cargo xtask campaign` runs a hundred. `CAMPAIGN_SEED` repeats one.

mod support;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use citadel_agent::remote_write::ledger;
use citadel_agent::remote_write::record::{Point, Record};
use citadel_agent::remote_write::spool::{Found, Spool, SpoolLimits};
use citadel_agent::remote_write::{encode, ledger::Ledger};
use support::chance::Chance;
use support::child::Running;
use support::receiver::{Got, Receiver, Reply, Request, Value};
use support::text;
use tempfile::TempDir;

/// A series at a time.
type Key = (String, i64);

/// One sample in so many is one that the receiver never takes.
const BAD_ONE_IN: u64 = 499;

/// How the receiver is at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mood {
    Good,
    /// Knows only 1.0.
    Old,
    Failing,
    Busy,
    Hanging,
    Cutting,
    Closing,
    Gone,
}

const MOODS: [Mood; 8] =
    [Mood::Good, Mood::Old, Mood::Failing, Mood::Busy, Mood::Hanging, Mood::Cutting, Mood::Closing, Mood::Gone];

/// What the receiver has.
struct Store {
    mood: Mood,
    samples: HashMap<Key, u64>,
    refused: BTreeSet<Key>,
    contradictions: Vec<String>,
}

fn key(got: &Got) -> Key {
    (got.series(), got.timestamp)
}

fn is_bad(key: &Key) -> bool {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish().is_multiple_of(BAD_ONE_IN)
}

impl Store {
    fn answer(&mut self, request: &Request) -> Reply {
        match self.mood {
            Mood::Failing => return Reply::Status(500, "", "out of luck"),
            Mood::Busy => return Reply::Status(429, "Retry-After: 1\r\n", "later"),
            Mood::Hanging => return Reply::Hang,
            Mood::Cutting => return Reply::Cut,
            Mood::Closing | Mood::Gone => return Reply::Close,
            Mood::Old if request.is_v2() => return Reply::Status(204, "", ""),
            Mood::Old | Mood::Good => {}
        }
        let bad: Vec<Key> = request.samples.iter().map(key).filter(is_bad).collect();
        if !bad.is_empty() {
            if let [one] = request.samples.as_slice() {
                self.refused.insert(key(one));
            }
            let written = if request.is_v2() { "X-Prometheus-Remote-Write-Samples-Written: 0\r\n" } else { "" };
            return Reply::Status(400, written, "not this one");
        }
        for got in &request.samples {
            let Value::Number(bits) = got.value else { panic!("a histogram: {}", got.series()) };
            if let Some(before) = self.samples.insert(key(got), bits)
                && before != bits
            {
                self.contradictions.push(format!("{} at {}: {before:x}, then {bits:x}", got.series(), got.timestamp));
            }
        }
        Reply::Taken
    }
}

/// A small file system of its own, in a mount namespace that lives as long as this value; nobody else sees it.
struct Disk {
    holder: Child,
    folder: PathBuf,
}

impl Disk {
    fn new(folder: &Path, size: &str) -> Self {
        let script = format!(
            "mount -t tmpfs -o size={size},mode=0777 tmpfs {} && echo ready && exec sleep 86400",
            folder.display()
        );
        let mut holder = Command::new("unshare")
            .args(Self::namespaces())
            .args(["sh", "-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is part of util-linux");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(
            line, "ready\n",
            "this machine lets nobody have a mount namespace: run as root, or allow user namespaces"
        );
        Self { holder, folder: folder.to_owned() }
    }

    /// Root needs no user namespace to mount something.
    fn namespaces() -> &'static [&'static str] {
        if rustix::process::geteuid().is_root() { &["--mount"] } else { &["--mount", "--user", "--map-root-user"] }
    }

    /// The folder, from outside.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.holder.id(), self.folder.display()))
    }

    fn fill(&self) {
        // As much as goes.
        _ = fs::write(self.path().join("ballast"), vec![0; 1 << 20]);
    }

    fn empty(&self) {
        _ = fs::remove_file(self.path().join("ballast"));
    }

    /// `program` within it.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--mount"]);
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg(program);
        command
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        _ = self.holder.kill();
        _ = self.holder.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

struct Campaign {
    dir: TempDir,
    disk: Disk,
    store: Arc<Mutex<Store>>,
    receiver: Option<Receiver>,
    addr: SocketAddr,
    metrics: SocketAddr,
    chance: Chance,
    /// What was on disk at some kill and not settled.
    promised: BTreeMap<Key, u64>,
    /// Times that the agent's figures were looked at.
    looks: usize,
}

impl Campaign {
    fn new(seed: u64, disk: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let folder = dir.path().join("spool");
        fs::create_dir(&folder).unwrap();
        let disk = Disk::new(&folder, disk);
        let store =
            Store { mood: Mood::Good, samples: HashMap::new(), refused: BTreeSet::new(), contradictions: vec![] };
        let store = Arc::new(Mutex::new(store));
        let mut campaign = Self {
            dir,
            disk,
            store,
            receiver: None,
            addr: (Ipv4Addr::LOCALHOST, 0).into(),
            metrics: (Ipv4Addr::LOCALHOST, free_port()).into(),
            chance: Chance::new(seed),
            promised: BTreeMap::new(),
            looks: 0,
        };
        campaign.set_mood(Mood::Good);
        campaign.configure("100ms");
        campaign
    }

    /// What the next agent goes by; it collects so often.
    fn configure(&self, interval: &str) {
        let config = format!(
            "local_collection: {{ listen_address: 127.0.0.1, metrics_port: {}, health_check_port: {} }}\n\
             model_monitoring: {{ health_endpoints: [] }}\n\
             ebpf: {{ net: false, recvq: false, sched: false, syscalls: false }}\n\
             remote_write:\n  interval: {interval}\n  directory: {}\n  histograms: native\n  min_free_bytes: 0\n  \
             max_bytes: 64MiB\n  destinations: {{ sink: {{ url: 'http://{}/write', timeout: 500ms }} }}\n",
            self.metrics.port(),
            free_port(),
            self.dir.path().join("spool").display(),
            self.addr
        );
        fs::write(self.dir.path().join("config.yaml"), config).unwrap();
    }

    fn set_mood(&mut self, mood: Mood) {
        self.store.lock().unwrap().mood = mood;
        match (mood, &self.receiver) {
            (Mood::Gone, _) => self.receiver = None,
            (_, None) => {
                let store = Arc::clone(&self.store);
                let receiver = Receiver::bind(self.addr, move |request| store.lock().unwrap().answer(request));
                self.addr = receiver.addr;
                self.receiver = Some(receiver);
            }
            _ => {}
        }
    }

    fn agent(&self) -> Running {
        let agent = self
            .disk
            .command(env!("CARGO_BIN_EXE_citadel-agent"))
            .args(["run", "--config"])
            .arg(self.dir.path().join("config.yaml"))
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap())
            .spawn();
        Running(agent.expect("nsenter is part of util-linux"))
    }

    /// The agent's figures; `None` while it does not answer.
    fn figures(&mut self) -> Option<[u64; 5]> {
        std::net::TcpStream::connect(self.metrics).ok()?;
        let answer = support::client::get(self.metrics, "/metrics", "");
        let samples = text::parse(answer.text()).samples;
        let sum = |name: &str, outcome: Option<&str>| {
            let own = samples.iter().filter(|((of, labels), _)| {
                of == name && outcome.is_none_or(|outcome| labels.get("outcome").map(String::as_str) == Some(outcome))
            });
            own.map(|(_, value)| *value as u64).reduce(|a, b| a + b)
        };
        let outcome = |outcome| sum("citadel_remote_write_samples_total", Some(outcome));
        let collected = sum("citadel_remote_write_collected_samples_total", None)?;
        let (taken, refused, dropped) = (outcome("acknowledged")?, outcome("rejected")?, outcome("dropped")?);
        let pending = sum("citadel_remote_write_pending_samples", None)?;
        assert_eq!(collected, taken + refused + dropped + pending, "the agent's figures do not add up");
        self.looks += 1;
        Some([collected, taken, refused, dropped, pending])
    }

    fn ledger(&self) -> Option<Ledger> {
        let ledger =
            ledger::read(&self.disk.path().join("sink.ledger")).expect("a kill leaves the old or the new ledger");
        assert!(ledger.as_ref().is_none_or(Ledger::holds));
        ledger
    }

    /// Notes what is on disk and not settled.
    fn take_promises(&mut self) {
        let copy = TempDir::new().unwrap();
        for entry in fs::read_dir(self.disk.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "segment") {
                fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
            }
        }
        let limits =
            SpoolLimits { max_bytes: u64::MAX, max_age: Duration::from_secs(1 << 40), min_free: 0, memory: usize::MAX };
        let mut spool = Spool::open(copy.path(), limits, 0);
        let mut seq = self.ledger().map_or(0, |ledger| ledger.seq);
        loop {
            match spool.read(seq).unwrap() {
                Found::End => return,
                Found::Gap { until, .. } => seq = until,
                Found::Record { first, samples, time_ms, body } => {
                    let record = Record::from_bytes(&body).unwrap();
                    for sample in record.samples((seq - first) as u32..samples) {
                        let key = (encode::display(&record, &sample), time_ms);
                        let bits = match sample.point {
                            Point::Number(value) => value.to_bits(),
                            Point::Stale => 0x7ff0_0000_0000_0002,
                            Point::Histogram(_) => panic!("no model is measured here"),
                        };
                        self.promised.insert(key, bits);
                    }
                    seq = first + u64::from(samples);
                }
            }
        }
    }

    fn round(&mut self, full_disks: bool) {
        let mood = MOODS[self.chance.below(MOODS.len() as u64) as usize];
        self.set_mood(mood);
        let mut agent = self.agent();
        self.chance.pause(900);
        _ = self.figures();
        let full = full_disks && self.chance.below(2) == 0;
        if full {
            self.disk.fill();
        }
        let next = MOODS[self.chance.below(MOODS.len() as u64) as usize];
        self.set_mood(next);
        self.chance.pause(900);
        _ = self.figures();
        if full && self.chance.below(2) == 0 {
            self.disk.empty();
            self.chance.pause(900);
        }
        agent.0.kill().unwrap();
        agent.0.wait().unwrap();
        self.disk.empty();
        self.take_promises();
    }

    /// All is well again: everything has to arrive.
    fn finish(&mut self, exact: bool) {
        self.set_mood(Mood::Good);
        // How fast an unoptimised agent is, beside others on a busy machine, is not what is asked here.
        self.configure("1s");
        let mut agent = self.agent();
        let begin = Instant::now();
        // Some of what is collected while we look is always under way.
        loop {
            let figures = self.figures();
            let store = self.store.lock().unwrap();
            let arrived = |key: &Key| store.samples.contains_key(key) || store.refused.contains(key);
            let missing: Vec<&Key> = self.promised.keys().filter(|key| !arrived(key)).collect();
            if figures.is_some_and(|[.., pending]| pending < 200) && missing.is_empty() {
                break;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "{} of what waited have not arrived, as {:?}; figures {figures:?}; log: {}",
                missing.len(),
                missing.first(),
                self.log()
            );
            drop(store);
            thread::sleep(Duration::from_millis(100));
        }
        agent.signal(rustix::process::Signal::TERM);
        agent.0.wait().unwrap();
        self.take_promises();
        let ledger = self.ledger().expect("a ledger");

        let store = self.store.lock().unwrap();
        assert_eq!(store.contradictions, Vec::<String>::new(), "a sample came twice with another value");
        for (key, bits) in &self.promised {
            match store.samples.get(key) {
                Some(found) => assert_eq!(found, bits, "{key:?} arrived as something else"),
                // What was collected last may wait still: the agent was told to stop.
                None => assert!(is_bad(key) || ledger.pending(ledger.end) > 0, "{key:?} is lost"),
            }
        }
        let dropped: u64 = ledger.dropped.values().sum();
        println!(
            "collected {}, acknowledged {}, rejected {}, dropped {dropped}, pending {}; the receiver has {}, refused {}; \
             {} promised at kills, {} looks at the figures",
            ledger.collected(ledger.end),
            ledger.acknowledged,
            ledger.rejected,
            ledger.pending(ledger.end),
            store.samples.len(),
            store.refused.len(),
            self.promised.len(),
            self.looks
        );
        assert!(store.samples.keys().all(|key| !is_bad(key)));
        if exact {
            assert_eq!(dropped, 0, "{:?}", ledger.dropped);
            // An answer that was on its way when the agent stopped is in the store alone.
            let under_way = store.samples.len() as u64 - ledger.acknowledged;
            assert!(under_way <= ledger.pending(ledger.end), "{under_way} in the receiver are not acknowledged");
            let under_way = store.refused.len() as u64 - ledger.rejected;
            assert!(under_way <= ledger.pending(ledger.end));
        } else {
            // With a full disk a kill takes what only the memory had, though some of it may have arrived.
            assert!(store.samples.len() as u64 >= ledger.acknowledged);
            assert!(ledger.pending(ledger.end) < 1000, "a disk that was full keeps the ledger from going on");
        }
        assert!(self.looks > 0, "the figures were never seen");
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

fn run(full_disks: bool) {
    let rounds: u64 = env::var("CAMPAIGN_ROUNDS").map_or(5, |rounds| rounds.parse().expect("a number of rounds"));
    let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = env::var("CAMPAIGN_SEED").map_or_else(|_| clock(), |seed| seed.parse().expect("a number"));
    println!("{rounds} rounds, CAMPAIGN_SEED={seed}");
    let mut campaign = Campaign::new(seed, if full_disks { "512k" } else { "64m" });
    for _ in 0..rounds {
        campaign.round(full_disks);
    }
    campaign.finish(!full_disks);
}

#[test]
fn whatever_happens_every_sample_arrives_once_or_is_accounted_for() {
    run(false);
}

#[test]
fn a_full_disk_takes_nothing_that_was_on_it() {
    run(true);
}
