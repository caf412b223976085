//! A model's server that does nothing but make system calls as it is told, and says how long each took.
//!
//! `caller REPORT PORT STEP...` listens on the port and takes the steps in order. `pause` waits for SIGUSR1, without any of
//! the calls that the agent measures by default; `listen-on-PORT` goes to another port; `STEP=COUNT` repeats a step. The
//! time of each call goes to the file REPORT, a line `STEP NANOSECONDS`, by calls that are not measured either. After the
//! last step comes the line `done`.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::{env, io, ptr, thread};

use citadel_agent_tests::truth::Stamp;

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let [report, port, steps @ ..] = words.as_slice() else { panic!("caller REPORT PORT STEP...") };
    let report = File::create(report).expect("create the report");
    let mut caller = Caller { report, told: 0, empty: empty_pipe(), listener: listen(port) };
    block(libc::SIGUSR1);
    ignore_but_wake(libc::SIGALRM);
    for step in steps {
        let (name, count) = step.split_once('=').unwrap_or((step, "1"));
        for _ in 0..count.parse().expect("a count") {
            let ((), stamp) = Stamp::of(|| caller.take(name));
            caller.tell(&format!("{name} {}\n", stamp.after - stamp.before));
        }
    }
    caller.tell("done\n");
    loop {
        await_signal(libc::SIGUSR1);
    }
}

struct Caller {
    report: File,
    told: u64,
    /// A pipe that nobody writes to: its ends, the reading one non-blocking first.
    empty: [i32; 2],
    listener: TcpListener,
}

impl Caller {
    fn take(&mut self, step: &str) {
        let mut byte = 0u8;
        let no_time = libc::timespec { tv_sec: 0, tv_nsec: 60_000_000 };
        // SAFETY: pointers to places that outlive the calls, lengths that are theirs, or calls that must fail.
        unsafe {
            match step {
                "pause" => await_signal(libc::SIGUSR1),
                "open-missing" => {
                    let path = c"/nonexistent";
                    fails(libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), libc::O_RDONLY), libc::ENOENT);
                }
                "read-empty" => fails(read(self.empty[0], &mut byte), libc::EAGAIN),
                "read-nothing" => fails(read(-1, &mut byte), libc::EBADF),
                "read-stdin" => assert_eq!(read(0, &mut byte), 1, "a byte comes"),
                "read-interrupted" => {
                    wake_after_60_ms();
                    fails(read(empty_blocking_pipe(), &mut byte), libc::EINTR);
                }
                "poll-stdin" => {
                    let mut stdin = libc::pollfd { fd: 0, events: libc::POLLIN, revents: 0 };
                    assert_eq!(libc::syscall(libc::SYS_poll, &raw mut stdin, 1, -1), 1, "a byte comes");
                }
                "poll-40-ms" => {
                    assert_eq!(libc::syscall(libc::SYS_poll, ptr::null_mut::<libc::pollfd>(), 0, 40), 0);
                }
                "futex-60-ms" => {
                    let word = 0u32;
                    let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
                    let result = libc::syscall(libc::SYS_futex, &raw const word, wait, 0, &raw const no_time);
                    fails(result, libc::ETIMEDOUT);
                }
                "fsync" => {
                    let result = libc::syscall(libc::SYS_fsync, std::os::fd::AsRawFd::as_raw_fd(&self.report));
                    assert_eq!(result, 0, "fsync: {}", io::Error::last_os_error());
                }
                "fork-and-open-missing" => match libc::fork() {
                    0 => {
                        self.take("open-missing");
                        libc::_exit(0);
                    }
                    child => assert_eq!(libc::waitpid(child, ptr::null_mut(), 0), child),
                },
                "thread-in-poll" => {
                    thread::spawn(|| libc::syscall(libc::SYS_poll, ptr::null_mut::<libc::pollfd>(), 0, -1));
                }
                "exec-from-thread" => {
                    let exec = || Command::new("/bin/sleep").arg("600").exec();
                    let error = thread::spawn(exec).join();
                    panic!("sleep did not replace the process: {error:?}");
                }
                _ => match step.strip_prefix("listen-on-") {
                    Some(port) => self.listener = listen(port),
                    None => panic!("no step {step}"),
                },
            }
        }
    }

    fn tell(&mut self, line: &str) {
        self.report.write_all_at(line.as_bytes(), self.told).expect("write the report");
        self.told += line.len() as u64;
    }
}

fn listen(port: &str) -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port.parse().expect("a port"))).expect("listen")
}

#[track_caller]
fn fails(result: libc::c_long, errno: i32) {
    let error = io::Error::last_os_error();
    assert!(result == -1 && error.raw_os_error() == Some(errno), "returned {result}, {error}");
}

fn read(fd: i32, byte: &mut u8) -> libc::c_long {
    // SAFETY: one byte of room.
    unsafe { libc::syscall(libc::SYS_read, fd, ptr::from_mut(byte), 1) }
}

fn empty_pipe() -> [i32; 2] {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK) }, 0, "make a pipe");
    ends
}

/// The reading end of a pipe that nobody writes to.
fn empty_blocking_pipe() -> i32 {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), 0) }, 0, "make a pipe");
    ends[0]
}

/// The set of one signal.
fn only(signal: i32) -> libc::sigset_t {
    // SAFETY: all zero is the empty set, and the signal exists.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigaddset(&raw mut set, signal);
        set
    }
}

fn block(signal: i32) {
    // SAFETY: a valid set.
    assert_eq!(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &only(signal), ptr::null_mut()) }, 0);
}

fn await_signal(signal: i32) {
    let mut came = 0;
    // SAFETY: a valid set, and a place for the number.
    assert_eq!(unsafe { libc::sigwait(&only(signal), &raw mut came) }, 0);
}

/// A handler without SA_RESTART: the signal makes a blocking call fail with EINTR.
fn ignore_but_wake(signal: i32) {
    extern "C" fn nothing(_signal: i32) {}
    // SAFETY: all zero is a valid action, and the handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        assert_eq!(libc::sigaction(signal, &raw const action, ptr::null_mut()), 0);
    }
}

fn wake_after_60_ms() {
    let zero = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let once = libc::itimerval { it_interval: zero, it_value: libc::timeval { tv_sec: 0, tv_usec: 60_000 } };
    // SAFETY: a valid timer.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const once, ptr::null_mut()) }, 0);
}
