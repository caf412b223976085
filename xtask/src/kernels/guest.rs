//! PID 1 of the emulated machine: mounts, starts the agent, generates traffic, compares, prints a verdict, powers off.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::image::{AGENT, CONFIG, HEALTH, METRICS, READY_WITHIN};
use super::traffic::{self, Client, FIRST, GAP, OTHERS, TOKENS};
use super::{calls, support};
use crate::scrape::{self, Page};

/// Prefix of the line with a passing verdict.
pub(super) const PASSED: &str = "GUEST PASSED:";
/// Prefix of the line with a failing verdict.
pub(super) const FAILED: &str = "GUEST FAILED:";

/// Requests of each kind by each of the two clients.
const LISTS: u32 = 5;
const CHATS: u32 = 3;

/// Type and mount point of the file systems.
const MOUNTS: [(&str, &str); 5] =
    [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys"), ("cgroup2", "/sys/fs/cgroup"), ("bpf", "/sys/fs/bpf")];

/// Runs everything; never returns.
pub(crate) fn main() -> ! {
    conclude(run())
}

/// Prints the verdict and powers off.
pub(super) fn conclude(verdict: Result<String>) -> ! {
    match verdict {
        Ok(summary) => println!("{PASSED} {summary}"),
        Err(error) => println!("{FAILED} {error:#}"),
    }
    // SAFETY: only a number is passed; only PID 1 of a machine gets here, and any other process would lack the
    // permission.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
    std::process::exit(1);
}

/// What PID 1 must do first.
pub(super) fn prepare() -> Result<()> {
    for (kind, place) in MOUNTS {
        mount(kind, place).with_context(|| format!("mounting {kind} on {place}"))?;
        if place == "/dev" {
            take_console().context("/dev/console")?;
        }
    }
    raise_loopback().context("raising lo")
}

fn run() -> Result<String> {
    prepare()?;
    println!("{}", fs::read_to_string("/proc/version")?.trim());

    // Without the checks that attach programs: the agent attaches them anyway, and the verifier takes most of this
    // machine's time.
    let quick = "kernel,capabilities,cgroup,ports";
    let checked = Command::new(AGENT)
        .args(["check", "--only", quick, "--config", CONFIG])
        .status()
        .context("starting the agent")?;
    println!("check: {checked}");
    let calls = calls::run().context("system calls")?;
    traffic::serve()?;
    let begun = Instant::now();
    let mut agent = Command::new(AGENT)
        .args(["run", "--config", CONFIG])
        .env("RUST_LOG", "info,citadel_agent::ebpf=debug")
        .spawn()
        .context("starting the agent")?;
    let summary = measure(&mut agent, begun);
    for (port, path) in [(HEALTH, "/status"), (METRICS, "/metrics/models")] {
        match scrape::get(port, path) {
            Ok(page) => println!("--- {path}\n{page}"),
            Err(error) => println!("--- {path}: {error:#}"),
        }
    }
    Ok(format!("{}; {calls}", summary?))
}

/// Waits for the agent, generates traffic, and compares the agent's numbers with the true ones.
fn measure(agent: &mut Child, begun: Instant) -> Result<String> {
    while scrape::get(HEALTH, "/ready").is_err() {
        if let Some(status) = agent.try_wait()? {
            bail!("the agent ended: {status}");
        }
        if begun.elapsed() > READY_WITHIN {
            bail!("the agent is not ready after {} s", READY_WITHIN.as_secs());
        }
        thread::sleep(Duration::from_millis(100));
    }
    let ready = begun.elapsed();
    let status = scrape::get(HEALTH, "/status")?;
    let mut first = Duration::ZERO;
    for mut client in [Client::connect(Ipv4Addr::LOCALHOST)?, Client::connect(Ipv6Addr::LOCALHOST)?] {
        for _ in 0..LISTS {
            client.list()?;
        }
        for _ in 0..CHATS {
            first += client.chat()?;
        }
    }
    let first = first.as_secs_f64() / f64::from(2 * CHATS);
    // The server's FIN closes the connections.
    thread::sleep(Duration::from_millis(500));
    let page = Page::parse(&scrape::get(METRICS, "/metrics/models")?);
    support::tell(&page, &status)?;
    compare(&page, first)
        .with_context(|| format!("status {}", status.split_whitespace().collect::<Vec<_>>().join(" ")))?;
    let mean = |name| page.mean(name, &[]).unwrap_or(f64::NAN) * 1e3;
    Ok(format!(
        "ready after {:.1} s; first token {:.1} ms (client: {:.1}), between tokens {:.1} ms",
        ready.as_secs_f64(),
        mean("citadel_model_time_to_first_token_seconds"),
        first * 1e3,
        mean("citadel_model_inter_token_latency_seconds"),
    ))
}

/// A subset of a series' labels.
type Labels<'a> = &'a [(&'a str, &'a str)];

/// Checks every number that the traffic determines. `first` is the mean time to first token that the clients saw, in
/// seconds.
fn compare(page: &Page, first: f64) -> Result<()> {
    let chat = [("endpoint", "chat_completions")];
    let models = [("endpoint", "models")];
    let (lists, chats) = (f64::from(2 * LISTS), f64::from(2 * CHATS));
    let (tokens, others) = (chats * f64::from(TOKENS), chats * f64::from(OTHERS));
    let counts: [(&str, Labels, f64); 11] = [
        ("citadel_model_requests_total", &models, lists),
        ("citadel_model_requests_total", &chat, chats),
        ("citadel_model_requests_total", &[("code", "200")], lists + chats),
        ("citadel_model_requests_in_flight", &[], 0.0),
        ("citadel_model_stream_chunks_total", &chat, tokens + others),
        ("citadel_model_stream_events_total", &[("kind", "content")], tokens),
        ("citadel_model_stream_events_total", &[("kind", "other")], others),
        ("citadel_model_time_to_first_token_seconds_count", &chat, chats),
        ("citadel_model_inter_token_latency_seconds_count", &chat, tokens - chats),
        ("citadel_model_connections_total", &[("protocol", "http1")], 2.0),
        ("citadel_model_connections_open", &[], 0.0),
    ];
    let mut wrong = Vec::new();
    for (name, labels, truth) in counts {
        let value = page.sum(name, labels);
        if value != Some(truth) {
            wrong.push(format!("{name}{labels:?} is {value:?}, not {truth}"));
        }
    }
    // Only on kernels that have the probe, which is checked elsewhere.
    let reads = page.sum("citadel_probe_status", &[("family", "recvq"), ("status", "ok")]).map(|_| lists + chats);
    let read = page.sum("citadel_model_receive_queue_seconds_count", &[]);
    if read != reads {
        wrong.push(format!("only {read:?} of {reads:?} requests were seen to be read"));
    }
    // The server is one process, this one. The reader is recorded only where the socket lock was found.
    let readers = page.sum("citadel_map_entries", &[("map", "readers")]);
    if readers != Some(if reads.is_some() { 1.0 } else { 0.0 }) {
        wrong.push(format!("{readers:?} processes were recorded as reading requests"));
    }
    let means = [
        // The client's clock starts earlier and stops later.
        ("citadel_model_time_to_first_token_seconds", FIRST.as_secs_f64(), first),
        // There is no upper bound on wake-up latency in an emulated machine, but twice is too much.
        ("citadel_model_inter_token_latency_seconds", GAP.as_secs_f64(), 2.0 * GAP.as_secs_f64()),
    ];
    for (name, low, high) in means {
        let mean = page.mean(name, &chat);
        if !mean.is_some_and(|mean| (low..=high).contains(&mean)) {
            wrong.push(format!("the mean of {name} is {mean:?}, not in {low}..={high}"));
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    Ok(())
}

pub(super) fn mount(kind: &str, place: &str) -> Result<()> {
    let (kind, place) = (CString::new(kind)?, CString::new(place)?);
    // SAFETY: strings that end with NUL; no data.
    let result = unsafe { libc::mount(kind.as_ptr(), place.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
    if result != 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(())
}

/// Without a `/dev/console` in the image, the kernel starts PID 1 without standard input and output.
pub(super) fn take_console() -> Result<()> {
    let console = OpenOptions::new().read(true).write(true).open("/dev/console")?;
    for number in 0..=2 {
        // SAFETY: two file descriptors, of which the first is open.
        if unsafe { libc::dup2(console.as_raw_fd(), number) } < 0 {
            return Err(io::Error::last_os_error().into());
        }
    }
    if console.as_raw_fd() <= 2 {
        // It is one of the three, and stays open.
        std::mem::forget(console);
    }
    Ok(())
}

fn raise_loopback() -> Result<()> {
    // SAFETY: only numbers are passed; the result is a new file descriptor or an error.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: open, and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: all zero is a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request that SIOCSIFFLAGS takes (netdevice(7)).
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(())
}
