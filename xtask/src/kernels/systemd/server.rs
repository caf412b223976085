//! A model server: answers requests and, on command, uses CPU time and memory, or fails.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{env, fs, thread};

use anyhow::{Context as _, Result, bail};

/// CPU time that the process burns on command, in milliseconds.
pub(super) const BURN_MS: u64 = 1500;
/// Memory that the process touches on command, in bytes.
pub(super) const TOUCH: usize = 96 << 20;
/// A file written by another process, like a model's weights that are in the page cache since the previous run; mapped
/// and read on command.
pub(super) const WEIGHTS: (&str, usize) = ("/run/weights", 32 << 20);

/// Lines that the server logs on command, numbered consecutively.
pub(super) const LINES: u64 = 500;
/// The command to log PyTorch's out-of-memory error.
pub(super) const OUT_OF_MEMORY: &str = "/oom";

/// Exit status on command.
pub(super) const EXIT: i32 = 3;

/// Set for the process that does the work, and for the one that only starts it.
const WORKER: &str = "CITADEL_WORKER";
/// File with the CPU time that the worker used, in seconds.
const TRUTH: &str = "/run/citadel-worker";

/// Serves until it is stopped.
pub(crate) fn main(port: u16) -> ! {
    let result = match env::var(WORKER).as_deref() {
        Err(_) => serve(port),
        Ok("start") => start_worker(),
        Ok(_) => work(),
    };
    if let Err(error) = &result {
        eprintln!("server on {port}: {error:#}");
    }
    std::process::exit(i32::from(result.is_err()));
}

fn serve(port: u16) -> Result<()> {
    let listener = if env::var_os("LISTEN_FDS").is_some() {
        // SAFETY: the first socket that systemd passes (`sd_listen_fds(3)`), which nothing else here uses.
        unsafe { TcpListener::from_raw_fd(3) }
    } else {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?
    };
    for stream in listener.incoming() {
        if let Err(error) = answer(stream?) {
            eprintln!("server on {port}: {error:#}");
        }
    }
    bail!("the listener ended")
}

/// Answers one request.
fn answer(stream: TcpStream) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    if first.starts_with("POST /exit ") {
        std::process::exit(EXIT);
    }
    if first.starts_with("POST /log ") {
        log_lines();
    } else if first.starts_with(&format!("POST {OUT_OF_MEMORY} ")) {
        println!("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.");
    }
    let body = if first.starts_with("POST /work ") { order_work()? } else { "{}".to_owned() };
    let length = body.len();
    let mut stream = stream;
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")?;
    Ok(())
}

/// With the lowest priority, so that journald does not forward the lines to the console.
fn log_lines() {
    static LOGGED: AtomicU64 = AtomicU64::new(0);
    for line in 0..LINES {
        println!("<7>{}", LOGGED.fetch_add(1, Ordering::Relaxed) + 1);
        if line % 25 == 0 {
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Starts a worker as a grandchild whose parent has exited: it belongs to the unit, but to no listener's process tree.
fn order_work() -> Result<String> {
    let _ = fs::remove_file(TRUTH);
    let started = again("start")?.status()?;
    if !started.success() {
        bail!("the worker's parent: {started}");
    }
    for _ in 0..600 {
        if let Ok(truth) = fs::read_to_string(TRUTH)
            && truth.ends_with('\n')
        {
            return Ok(truth.trim().to_owned());
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("the worker reported nothing")
}

/// Exits after starting the worker, which is reparented to PID 1.
fn start_worker() -> Result<()> {
    again("work")?.spawn().map(drop).context("starting the worker")
}

/// This program again, in another role.
fn again(role: &str) -> Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.args(env::args_os().skip(1)).env(WORKER, role);
    Ok(command)
}

/// Works, reports, and keeps its memory until the unit stops.
fn work() -> Result<()> {
    let touched = vec![1_u8; TOUCH];
    let weights = map_weights()?;
    let read = weights.iter().step_by(4096).map(|byte| u64::from(*byte)).sum::<u64>();
    std::hint::black_box(read);
    while cpu_time() < Duration::from_millis(BURN_MS) {
        std::hint::black_box((0..100_000).fold(0_u64, |sum, i| sum ^ std::hint::black_box(i)));
    }
    fs::write(TRUTH, format!("{}\n", cpu_time().as_secs_f64())).context("reporting the CPU time")?;
    loop {
        thread::sleep(Duration::from_secs(3600));
        std::hint::black_box(&touched);
    }
}

fn map_weights() -> Result<&'static [u8]> {
    let (path, length) = WEIGHTS;
    let file = fs::File::open(path).with_context(|| format!("opening {path}"))?;
    let (none, read, shared) = (std::ptr::null_mut(), libc::PROT_READ, libc::MAP_SHARED);
    // SAFETY: a new mapping of an open file, at any address.
    let at = unsafe { libc::mmap(none, length, read, shared, file.as_raw_fd(), 0) };
    if at == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error()).context("mapping the weights");
    }
    // SAFETY: mapped with this length until the process exits; nobody writes or truncates the file.
    Ok(unsafe { std::slice::from_raw_parts(at.cast::<u8>(), length) })
}

/// CPU time of this process so far.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a place for the result.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Sends a request to a server on this machine; returns the body of the response.
pub(super) fn ask(port: u16, request: &str) -> Result<String> {
    let mut stream =
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).with_context(|| format!("connecting to {port}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(90)))?;
    write!(stream, "{request} HTTP/1.1\r\nHost: guest\r\nContent-Length: 0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no answer from {port}: {answer:?}"))?;
    Ok(body.to_owned())
}
