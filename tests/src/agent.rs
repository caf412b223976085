//! The agent as its users have it: a process with a configuration file, two ports, signals and a log.

mod setup;
mod trace;

use std::env;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tempfile::TempDir;

pub use self::setup::Setup;
pub use self::trace::Trace;
use crate::get::{Response, get};
use crate::scrape::Page;
use crate::truth::pause;

/// Within this time the agent is ready, a reload has happened, a count has arrived.
const SOON: Duration = Duration::from_secs(15);

/// Within this time a `SIGTERM` ends the agent.
pub const STOP_TIME: Duration = Duration::from_secs(5);

/// The uid and gid of nobody.
const NOBODY: u32 = 65534;

/// Waits for a condition on the agent's page and gives the page: `assert_eventually!(agent, |page| page.requests() == 3)`.
#[macro_export]
macro_rules! assert_eventually {
    ($agent:expr, |$page:ident| $condition:expr) => {
        $agent.page_when(stringify!($condition), |$page| $condition)
    };
}

/// Where the agent's binary is: `CITADEL_AGENT_BIN`, else beside the test's own target directory.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = env::var_os("CITADEL_AGENT_BIN") {
        return path.into();
    }
    // target/debug/deps/keepalive-1234 -> target/debug, then the other profile.
    let test = env::current_exe().expect("the test knows its own path");
    let profile = test.ancestors().nth(2).expect("tests lie in target/PROFILE/deps");
    let candidates = [profile.to_owned(), profile.with_file_name("debug"), profile.with_file_name("release")];
    candidates
        .iter()
        .map(|dir| dir.join("citadel-agent"))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("no citadel-agent in {}; build it: cargo build -p citadel-agent", profile.display()))
}

/// A running agent; ends with the value. While it lives no other test has one.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    dir: TempDir,
    metrics_port: u16,
    health_port: u16,
    log: Arc<Mutex<String>>,
    _only: File,
}

impl Agent {
    /// Starts an agent that measures one port, under the name `model`.
    ///
    /// # Panics
    /// If it does not become ready or its `net` family does not measure; the text says why.
    #[must_use]
    #[track_caller]
    pub fn measuring(port: u16) -> Self {
        let agent = Setup::new().model("model", port).start();
        agent.assert_measuring();
        agent
    }

    #[track_caller]
    fn start(setup: &Setup) -> Self {
        let only = take_turn();
        let dir = tempfile::tempdir().expect("make a temporary directory");
        let (metrics_port, health_port) = (free_port(), free_port());
        let mut program = binary();
        if setup.nobody {
            program = published(&program, dir.path());
        }
        let mut command = Command::new(program);
        let config = dir.path().join("config.yaml");
        command.args(["run", "--config"]).arg(&config);
        fs::write(&config, setup.yaml(metrics_port, health_port, &dir.path().join("control")))
            .expect("write the configuration");
        if setup.nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        // What it keeps is this test's alone.
        command.env("STATE_DIRECTORY", dir.path().join("state"));
        // By default there is none, so that what runs on this host is no part of any test.
        command.env("DBUS_SYSTEM_BUS_ADDRESS", setup.bus.as_deref().unwrap_or("unix:path=/nonexistent"));
        if let Some(store) = &setup.kept {
            command = store.pass_to(&command);
        }
        if let Some(procs) = &setup.cgroup {
            let mut entrance = File::options().write(true).open(procs).expect("open the cgroup");
            // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
            unsafe { command.pre_exec(move || entrance.write_all(b"0")) };
        }
        let (child, log) = spawn(command);
        let mut agent = Self { child, dir, metrics_port, health_port, log, _only: only };
        agent.wait_until_ready();
        agent
    }

    #[track_caller]
    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + SOON;
        while !self.health("/ready").is_ok_and(|answer| answer.code == 200) {
            if let Some(status) = self.child.try_wait().expect("look at the agent") {
                pause(50);
                panic!("the agent ended ({status}) instead of becoming ready; its log:\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "the agent is not ready after {SOON:?}; its log:\n{}", self.log());
            pause(10);
        }
    }

    /// Fails unless the kernel programs measure.
    ///
    /// # Panics
    /// With what `/status` says is missing.
    #[track_caller]
    pub fn assert_measuring(&self) {
        let net = &self.status()["families"]["net"];
        assert!(net["status"] == "ok", "this test needs the eBPF programs to run, as root, but: {net:#}");
    }

    /// `/status`.
    ///
    /// # Panics
    /// If it is not there or no JSON.
    #[must_use]
    #[track_caller]
    pub fn status(&self) -> serde_json::Value {
        let answer = self.health("/status").expect("GET /status");
        assert_eq!(answer.code, 200, "/status: {}", answer.body);
        serde_json::from_str(&answer.body)
            .unwrap_or_else(|error| panic!("/status is no JSON: {error}: {}", answer.body))
    }

    /// Asks the health port.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn health(&self, path: &str) -> std::io::Result<Response> {
        get(self.health_port, path)
    }

    /// Asks the metrics port.
    ///
    /// # Panics
    /// If it does not answer with 200.
    #[must_use]
    #[track_caller]
    pub fn metrics(&self, path: &str) -> String {
        let answer = get(self.metrics_port, path).unwrap_or_else(|error| panic!("GET {path}: {error}"));
        assert_eq!(answer.code, 200, "{path}: {}", answer.body);
        answer.body
    }

    /// The models' page as it is now.
    ///
    /// # Panics
    /// If the page is not there or cannot be parsed.
    #[must_use]
    #[track_caller]
    pub fn scrape(&self) -> Page {
        Page::parse(&self.metrics("/metrics/models"))
    }

    /// The models' page as soon as `condition` holds, and a moment later, so that what belongs to the same event is on it
    /// too; [`assert_eventually!`] calls it.
    ///
    /// # Panics
    /// If the condition does not come true; the text holds `what` and the page.
    #[track_caller]
    pub fn page_when(&self, what: &str, condition: impl Fn(&Page) -> bool) -> Page {
        let deadline = Instant::now() + SOON;
        loop {
            let page = self.scrape();
            if condition(&page) {
                pause(50);
                return self.scrape();
            }
            assert!(Instant::now() < deadline, "not after {SOON:?}: {what}; the page says\n{page}");
            pause(20);
        }
    }

    /// Everything logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the log holds `text`.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        let deadline = Instant::now() + SOON;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "the log does not say {text:?}:\n{}", self.log());
            pause(20);
        }
    }

    /// Replaces the configuration and sends `SIGHUP`; the ports of the agent itself stay.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn reload(&self, setup: &Setup) {
        self.reload_with(&setup.yaml(self.metrics_port, self.health_port, &self.dir.path().join("control")));
    }

    /// The configuration file's text.
    ///
    /// # Panics
    /// If it cannot be read.
    #[must_use]
    pub fn config(&self) -> String {
        fs::read_to_string(self.config_path()).expect("read the configuration")
    }

    /// Writes this text as configuration and sends `SIGHUP`.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn reload_with(&self, yaml: &str) {
        fs::write(self.config_path(), yaml).expect("write the configuration");
        self.signal(Signal::HUP);
    }

    fn config_path(&self) -> PathBuf {
        self.dir.path().join("config.yaml")
    }

    /// Port of the metrics pages.
    #[must_use]
    pub fn metrics_port(&self) -> u16 {
        self.metrics_port
    }

    /// Port of `/ready` and `/status`.
    #[must_use]
    pub fn health_port(&self) -> u16 {
        self.health_port
    }

    /// The process.
    ///
    /// # Panics
    /// Never: a process id is not 0.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Runs a command of the agent's with its configuration: exit status, and standard output and error together.
    ///
    /// # Panics
    /// If it cannot be run.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> (ExitStatus, String) {
        let config = self.config_path();
        let config = config.to_str().expect("a path in UTF-8");
        run(&[&arguments[..1], &["--config", config], &arguments[1..]].concat())
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If the agent is gone.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("signal the agent");
    }

    /// Sends a signal and waits for the end: how it ended, and after how long.
    ///
    /// # Panics
    /// If it is still there after [`STOP_TIME`]; the text holds its log.
    #[track_caller]
    pub fn end_by(&mut self, signal: Signal) -> (ExitStatus, Duration) {
        let begin = Instant::now();
        self.signal(signal);
        loop {
            if let Some(status) = self.child.try_wait().expect("wait for the agent") {
                return (status, begin.elapsed());
            }
            assert!(begin.elapsed() < STOP_TIME, "the agent runs {STOP_TIME:?} after {signal:?}:\n{}", self.log());
            pause(10);
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("log of the agent:\n{}", self.log());
        }
        let pid = self.pid();
        stop(|| self.child.try_wait().is_ok_and(|status| status.is_some()), pid);
        // Nothing is left to do about a process that not even SIGKILL ends.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends SIGTERM and gives the process [`STOP_TIME`].
fn stop(mut gone: impl FnMut() -> bool, pid: Pid) {
    let deadline = Instant::now() + STOP_TIME;
    if gone() || kill_process(pid, Signal::TERM).is_err() {
        return;
    }
    while !gone() && Instant::now() < deadline {
        pause(5);
    }
}

/// Runs the agent with these arguments to its end: exit status, and standard output and error together.
///
/// # Panics
/// If it cannot be run.
#[must_use]
pub fn run(arguments: &[&str]) -> (ExitStatus, String) {
    let output = Command::new(binary()).args(arguments).stdin(Stdio::null()).output().expect("run citadel-agent");
    let text = [output.stdout, output.stderr].concat();
    (output.status, String::from_utf8_lossy(&text).into_owned())
}

/// Waits until no other test has an agent.
fn take_turn() -> File {
    let path = env::temp_dir().join("citadel-agent-tests.lock");
    let file = File::options().create(true).append(true).open(&path);
    let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file.lock().expect("lock the tests' lock file");
    file
}

/// A port that nobody uses now, and that nobody gets by chance before it is used: no two calls give the same, and the kernel gives
/// away only ports above these (`net.ipv4.ip_local_port_range`).
///
/// # Panics
/// If there is none.
#[must_use]
pub fn free_port() -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    const FROM: u16 = 20_000;
    const COUNT: u16 = 12_000;
    // Each test program begins elsewhere: what one has just closed may still be in use for a moment.
    let begin = (std::process::id() % 100) as u16 * (COUNT / 100);
    let mut ports = (0..COUNT).map(|_| FROM + (begin + GIVEN.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT);
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    ports.find(is_free).expect("find a free port")
}

/// A copy of the binary in a directory that everybody may enter.
fn published(binary: &Path, dir: &Path) -> PathBuf {
    let copy = dir.join("citadel-agent");
    fs::set_permissions(dir, Permissions::from_mode(0o755)).expect("open the directory to everybody");
    fs::copy(binary, &copy).expect("copy the agent");
    copy
}

/// Starts the process with its output collected, tied to the life of the calling thread.
fn spawn(mut command: Command) -> (Child, Arc<Mutex<String>>) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = format!("{command:?}");
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
    }
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {program}: {error}"));
    let log = Arc::new(Mutex::new(String::new()));
    collect(child.stdout.take(), &log);
    collect(child.stderr.take(), &log);
    (child, log)
}

fn collect(output: Option<impl Read + Send + 'static>, log: &Arc<Mutex<String>>) {
    let log = Arc::clone(log);
    let lines = BufReader::new(output.expect("the output is piped")).lines();
    thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.push_str(&line);
            log.push('\n');
        }
    });
}
