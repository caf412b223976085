//! A server in a process of its own, which does what it is asked: this test program, started again with one test.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// Says what to be: `ADDRESS PORT`, or `heir FD`, or nothing.
const ROLE: &str = "CITADEL_TEST_SERVER";

/// A port that nobody uses now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The running server; ends with the value.
pub(crate) struct Server {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Server {
    /// Listens on loopback, with these arguments before those that make it a server.
    pub(crate) fn start(port: u16, arguments: &[&str]) -> Self {
        Self::on("127.0.0.1", port, arguments)
    }

    pub(crate) fn on(address: &str, port: u16, arguments: &[&str]) -> Self {
        let mut child = again(&format!("{address} {port}"), arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut server = Self { child, orders, answers };
        assert_eq!(server.answer(), "listening");
        server
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives an order and waits until it is carried out.
    pub(crate) fn ask(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").unwrap();
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "the server has ended");
            // The test harness prints lines of its own.
            if let Some((_, answer)) = line.trim_end().split_once("SERVER ") {
                return answer.to_owned();
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// This program once more, named as vLLM is.
fn again(role: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .arg0("/opt/bin/vllm")
        .args(arguments)
        .args(["be_a_server", "--exact", "--ignored", "--nocapture"])
        .env(ROLE, role);
    command
}

/// The server's side: carries out orders until its input ends.
pub(crate) fn be_one() {
    let Ok(role) = env::var(ROLE) else { return };
    let (kind, value) = role.split_once(' ').unwrap();
    if kind == "heir" {
        // SAFETY: the one who has made this process left the descriptor open for it.
        let _socket = unsafe { OwnedFd::from_raw_fd(value.parse().unwrap()) };
        std::thread::sleep(Duration::from_secs(600));
        return;
    }
    let mut at_work = AtWork {
        listener: Some(listen(SocketAddr::new(kind.parse().unwrap(), value.parse().unwrap()))),
        connections: Vec::new(),
        touched: Vec::new(),
        child: 0,
        heir: None,
    };
    say("listening");
    for order in std::io::stdin().lines() {
        let order = order.unwrap();
        let answer = at_work.carry_out(&order);
        say(&answer);
    }
}

fn say(what: &str) {
    println!("SERVER {what}");
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    if matches!(address.ip(), IpAddr::V6(_)) {
        socket.set_only_v6(true).unwrap();
    }
    socket.bind(&address.into()).unwrap();
    socket.listen(16).unwrap();
    socket.into()
}

struct AtWork {
    listener: Option<TcpListener>,
    connections: Vec<TcpStream>,
    touched: Vec<u8>,
    child: libc::pid_t,
    heir: Option<Child>,
}

impl AtWork {
    fn carry_out(&mut self, order: &str) -> String {
        let words: Vec<&str> = order.split(' ').collect();
        match words[..] {
            ["accept"] => self.connections.push(self.listener.as_ref().unwrap().accept().unwrap().0),
            ["close"] => self.listener = None,
            ["hang", "up"] => self.connections.clear(),
            ["hand", "over"] => return self.hand_over().to_string(),
            ["stop", "the", "heir"] => {
                let mut heir = self.heir.take().unwrap();
                heir.kill().unwrap();
                heir.wait().unwrap();
            }
            ["burn", milliseconds] => return burn(milliseconds.parse().unwrap()).to_string(),
            ["touch", mebibytes] => self.touched = vec![1; mebibytes.parse::<usize>().unwrap() << 20],
            ["child", "burns", milliseconds, "and", "stays"] => return self.fork(milliseconds.parse().unwrap()),
            ["child", "ends", "and", "is", "waited", "for"] => self.end_child(true),
            ["child", "ends", "and", "is", "ignored"] => self.end_child(false),
            _ => panic!("no such order: {order}"),
        }
        "done".to_owned()
    }

    /// Starts a process that has the listening socket, and closes it here.
    fn hand_over(&mut self) -> u32 {
        let listener = self.listener.take().unwrap();
        let fd = listener.as_raw_fd();
        let mut command = again(&format!("heir {fd}"), &[]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // SAFETY: between fork and exec the closure makes one system call.
        unsafe {
            command.pre_exec(move || {
                if libc::fcntl(fd, libc::F_SETFD, 0) == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
            });
        }
        let heir = self.heir.insert(command.spawn().unwrap());
        heir.id()
    }

    /// A child that works, says for how long, and waits for its end.
    fn fork(&mut self, milliseconds: u64) -> String {
        let mut pipe: [RawFd; 2] = [0; 2];
        // SAFETY: a place for two descriptors.
        assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
        // SAFETY: the child only computes and makes system calls.
        self.child = unsafe { libc::fork() };
        if self.child == 0 {
            // SAFETY: only numbers.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            let seconds = burn(milliseconds).to_ne_bytes();
            // SAFETY: a buffer of this length; signals are as they were.
            unsafe {
                libc::write(pipe[1], seconds.as_ptr().cast(), seconds.len());
                loop {
                    libc::pause();
                }
            }
        }
        let mut seconds = [0; 8];
        // SAFETY: a buffer of this length.
        let length = unsafe { libc::read(pipe[0], seconds.as_mut_ptr().cast(), 8) };
        assert_eq!(length, 8);
        for fd in pipe {
            // SAFETY: open, and nobody else's.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        f64::from_ne_bytes(seconds).to_string()
    }

    fn end_child(&self, waited: bool) {
        // SAFETY: only numbers, and a child that has not been waited for.
        unsafe {
            libc::signal(libc::SIGCHLD, if waited { libc::SIG_DFL } else { libc::SIG_IGN });
            libc::kill(self.child, libc::SIGKILL);
            // Where the signal is ignored, this waits for the end and fails: there is nothing to be told.
            libc::waitpid(self.child, std::ptr::null_mut(), 0);
        }
    }
}

/// Works for so long; how much CPU time that took, in seconds.
fn burn(milliseconds: u64) -> f64 {
    let begin = cpu_time();
    let end = begin + Duration::from_millis(milliseconds);
    let limit = Instant::now() + Duration::from_secs(60);
    while cpu_time() < end && Instant::now() < limit {
        std::hint::black_box((0..10_000).fold(0_u64, |sum, i| sum ^ std::hint::black_box(i)));
    }
    (cpu_time() - begin).as_secs_f64()
}

/// The calling thread's CPU time.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
