//! System calls in the emulated machine: a process makes a known number of each call that the agent knows, and the
//! agent must count exactly as many, in either form. Also measures what the agent adds to a call, as a ratio, since the
//! nanoseconds of an emulated machine mean nothing.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::every_call;
use super::image::{AGENT, GUEST, HEALTH, METRICS, READY_WITHIN};
use super::support::COST;
use crate::scrape::{self, Page};

/// The process listens here, which makes it a model.
const PORT: u16 = 11300;

/// What it prints once it listens.
const LISTENING: &str = "listening";

/// Number of calls of each kind: opens of a missing file, polls that take [`POLL`], timed reads.
const OPENS: u32 = 7;
const POLLS: u32 = 3;
const POLL: Duration = Duration::from_millis(40);
const READS: u32 = 10_000;
const ROUNDS: u32 = 10;

/// The forms, as configured and as `/status` must name them: every kernel of the matrix supports fentry.
const FORMS: [(&str, &str); 2] = [("auto", FENTRY), ("raw_tp", "raw_tp")];
const FENTRY: &str = "fentry";

/// Nanoseconds per call: one that is measured (`read`) and one that is not (`getppid`).
#[derive(Clone, Copy)]
struct Cost {
    read: f64,
    getppid: f64,
}

/// Checks that both forms measure, and what they cost; returns a summary.
///
/// # Errors
/// A form is unavailable, or counts wrongly.
pub(super) fn run() -> Result<String> {
    let mut summary = Vec::new();
    let nothing = Cost::measure();
    for (configured, form) in FORMS {
        let (own, others) = measured(configured, form).with_context(|| format!("system calls by {form}"))?;
        let ratios = [own.read / nothing.read, others.read / nothing.read, others.getppid / nothing.getppid]
            .map(|ratio| format!("{ratio:.2}"));
        println!("{COST}{form}\t{}", ratios.join("\t"));
        summary.push(format!(
            "a call by {form} x {} (model), {} (others), {} (not measured)",
            ratios[0], ratios[1], ratios[2]
        ));
    }
    let (on, all) = (every_call::failing().filter(|(call, _)| call.is_default).count(), every_call::failing().count());
    summary.push(format!("{all} more calls counted by either, {} of them off by default", all - on));
    Ok(summary.join("; "))
}

/// Runs the agent with this form and compares; returns the cost to the model and to other processes.
fn measured(configured: &str, form: &str) -> Result<(Cost, Cost)> {
    let mut caller = Caller::start()?;
    let config = format!("/tmp/{configured}.yaml");
    fs::write(
        &config,
        format!(
            "model_monitoring: {{ ports: {{ caller: {PORT} }}, discover: none, health_endpoints: [], ask_for_names: false }}\n\
             ebpf: {{ net: false, recvq: false, sched: false, syscall_form: {configured}, syscall_names: [{}] }}\n",
            every_call::names()
        ),
    )?;
    let agent = Running(Command::new(AGENT).args(["run", "--config", &config]).spawn().context("starting the agent")?);
    wait_for("the agent", || scrape::get(HEALTH, "/ready").is_ok())?;
    let page = || -> Result<Page> { Ok(Page::parse(&scrape::get(METRICS, "/metrics/models")?)) };
    let pid = caller.process.0.id().to_string();
    wait_for("the caller's process", || {
        page().is_ok_and(|page| page.sum("citadel_model_info", &[("pid", &pid)]) == Some(1.0))
    })?;
    let status = scrape::get(HEALTH, "/status")?;
    ensure!(status.replace(' ', "").contains(&format!("\"form\":\"{form}\"")), "another form is in use: {status}");

    let others = Cost::measure();
    let (own, lacking) = caller.go()?;
    compare(&page()?, form, &lacking)?;
    drop(agent);
    Ok((own, others))
}

/// Checks every number that the caller's steps determine; `lacking` are the calls that the kernel does not have.
fn compare(page: &Page, form: &str, lacking: &[String]) -> Result<()> {
    let count = |call| page.sum("citadel_model_syscall_duration_seconds_count", &[("syscall", call)]).unwrap_or(0.0);
    let failed = |call, errno| {
        page.sum("citadel_model_syscall_errors_total", &[("syscall", call), ("errno", errno)]).unwrap_or(0.0)
    };
    let mut counts = vec![
        ("openat", count("openat"), OPENS),
        ("openat's ENOENT", failed("openat", "ENOENT"), OPENS),
        ("poll", count("poll"), POLLS),
        ("read", count("read"), READS),
        ("read's EBADF", failed("read", "EBADF"), READS),
    ];
    for (call, errno) in every_call::failing() {
        let (errno, times) = match lacking.iter().any(|name| name == call.name) {
            false => (errno, 1),
            // A call without a kernel function is seen only by the form that sees all calls.
            true => ("ENOSYS", u32::from(form != FENTRY)),
        };
        counts.push((call.name, failed(call.name, errno), times));
        // The caller's libraries make some of the others, too.
        if !call.is_default {
            counts.push((call.name, count(call.name), times));
        }
    }
    let mut wrong: Vec<_> = counts
        .iter()
        .filter(|(_, value, truth)| *value != f64::from(*truth))
        .map(|(what, value, truth)| format!("{what} is {value}, not {truth}"))
        .collect();
    let mean = page.mean("citadel_model_syscall_duration_seconds", &[("syscall", "poll")]);
    // There is no upper bound on wake-up latency in an emulated machine, but twice is too much.
    if !mean.is_some_and(|mean| (POLL.as_secs_f64()..2.0 * POLL.as_secs_f64()).contains(&mean)) {
        wrong.push(format!("the mean of poll is {mean:?}, not {}", POLL.as_secs_f64()));
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    Ok(())
}

impl Cost {
    /// Measures the calling process.
    fn measure() -> Self {
        // The minimum of some rounds: the emulator translates code when it first runs.
        let round = |call: &dyn Fn()| {
            let begun = Instant::now();
            (0..READS / ROUNDS).for_each(|_| call());
            begun.elapsed().as_nanos() as f64 / f64::from(READS / ROUNDS)
        };
        let each = |call: &dyn Fn()| (0..ROUNDS).map(|_| round(call)).fold(f64::INFINITY, f64::min);
        // SAFETY: a read of zero bytes from no file, which fails, and a call without arguments.
        unsafe {
            Self {
                read: each(&|| _ = libc::syscall(libc::SYS_read, -1, std::ptr::null_mut::<u8>(), 0)),
                getppid: each(&|| _ = libc::syscall(libc::SYS_getppid)),
            }
        }
    }
}

/// The process that makes the calls: waits for a signal, which is not a measured call, and prints what they cost.
struct Caller {
    process: Running,
    said: BufReader<ChildStdout>,
}

impl Caller {
    fn start() -> Result<Self> {
        let mut child = Command::new(GUEST)
            .args(["guest", "call"])
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the caller")?;
        let said = BufReader::new(child.stdout.take().context("no output")?);
        let mut caller = Self { process: Running(child), said };
        ensure!(caller.line()? == LISTENING, "the caller is not listening");
        Ok(caller)
    }

    /// Lets it make its calls; returns what they cost it, and which of them the kernel lacks.
    fn go(&mut self) -> Result<(Cost, Vec<String>)> {
        // SAFETY: the process is a child that has not been reaped.
        unsafe { libc::kill(self.process.0.id().cast_signed(), libc::SIGUSR1) };
        let line = self.line()?;
        let mut words = line.split(' ').map(str::to_owned);
        let mut cost = || -> Result<f64> { Ok(words.next().unwrap_or_default().parse()?) };
        let (read, getppid) = cost()
            .and_then(|read| Ok((read, cost()?)))
            .with_context(|| format!("unexpected output of the caller: {line:?}"))?;
        Ok((Cost { read, getppid }, words.collect()))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

/// Runs the caller, in its own process.
pub(super) fn call() -> ! {
    if let Err(error) = make_calls() {
        println!("{error:#}");
    }
    // Its counters are read while it lives.
    loop {
        thread::park();
    }
}

fn make_calls() -> Result<()> {
    // SAFETY: all zero is an empty set, the signal exists, and blocking it affects only this thread, which is the only
    // one.
    let signal = unsafe {
        let mut signal: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut signal, libc::SIGUSR1);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const signal, std::ptr::null_mut());
        signal
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
    println!("{LISTENING}");
    let mut came = 0;
    // SAFETY: a valid set, and a place for the number.
    unsafe { libc::sigwait(&raw const signal, &raw mut came) };
    let cost = Cost::measure();
    for _ in 0..OPENS {
        // SAFETY: a path that ends with NUL.
        unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, c"/nonexistent".as_ptr(), libc::O_RDONLY) };
    }
    for _ in 0..POLLS {
        // SAFETY: no descriptors.
        unsafe { libc::syscall(libc::SYS_poll, std::ptr::null_mut::<libc::pollfd>(), 0, POLL.as_millis() as i32) };
    }
    let lacking = every_call::make()?.iter().map(|name| format!(" {name}")).collect::<String>();
    println!("{} {}{lacking}", cost.read, cost.getppid);
    // The listener stays open for as long as the process lives.
    std::mem::forget(listener);
    Ok(())
}

/// A process that is killed on drop.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // There is nothing to do about a process that is already gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for(what: &str, there: impl Fn() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !there() {
        ensure!(begun.elapsed() < READY_WITHIN, "{what} is missing after {} s", READY_WITHIN.as_secs());
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
