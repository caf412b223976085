//! Real servers and clients: where they are, how they start, and that they end.

use std::env;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::truth::pause;

/// What `pip` installs for [`python`].
const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/requirements.txt");

/// A file that the tests give to a server.
#[must_use]
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// Finds a program on the path, or where Debian keeps servers.
///
/// # Panics
/// If it is not installed; the text names the Debian package.
#[must_use]
#[track_caller]
pub fn program(name: &str, package: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = dirs.map(|dir| dir.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("this test needs {name}; install it: apt-get install {package}"))
}

/// The target directory.
fn target() -> PathBuf {
    let test = env::current_exe().expect("the test knows its own path");
    // target/debug/deps/real_servers-1234 -> target.
    test.ancestors().nth(3).expect("tests lie in target/PROFILE/deps").to_owned()
}

/// The Python of a virtual environment with FastAPI and uvicorn under `target/`, made when it is not there.
///
/// # Panics
/// If it cannot be made; the text holds what `pip` said.
#[must_use]
#[track_caller]
pub fn python() -> PathBuf {
    let venv = target().join("test-venv");
    let (python, installed) = (venv.join("bin/python"), venv.join("installed.txt"));
    let wanted = fs::read_to_string(REQUIREMENTS).expect("read fixtures/requirements.txt");
    if fs::read_to_string(&installed).is_ok_and(|found| found == wanted) {
        return python;
    }
    let python3 = program("python3", "python3-venv");
    run(Command::new(python3).args(["-m", "venv", "--clear"]).arg(&venv));
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args([
        "--only-binary",
        ":all:",
        "--requirement",
        REQUIREMENTS,
    ]));
    fs::write(installed, wanted).expect("note what is installed");
    python
}

/// llama.cpp's server, which `cargo xtask test --engine` puts under `target/tools`, with the libraries that it was built for: its libc
/// is newer than this machine's.
///
/// # Panics
/// If it is not there.
#[must_use]
#[track_caller]
pub fn llama_server() -> Command {
    let root = target().join("tools/llama.cpp/usr");
    let server = root.join("bin/llama-server");
    assert!(server.is_file(), "this test needs {}; get it: cargo xtask test --engine", server.display());
    let libraries = root.join("lib/x86_64-linux-gnu");
    let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(format!("{0}:{0}/llama", libraries.display())).arg(server);
    // It would look for those in /usr. This one runs on any CPU.
    command.env("GGML_BACKEND_PATH", libraries.join("ggml/backends0/libggml-cpu-x64.so"));
    command
}

/// Runs a command to its end and gives its standard output.
///
/// # Panics
/// If it fails; the text holds its output.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out
}

/// A server in the foreground; it ends with the value.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it, with its output in `log`, and waits until it listens on `port` of 127.0.0.1.
    ///
    /// # Panics
    /// If it does not; the text holds its output.
    #[must_use]
    #[track_caller]
    pub fn start(command: &mut Command, port: u16, log: PathBuf) -> Self {
        let out = File::create(&log).expect("create the server's log");
        let err = out.try_clone().expect("share the server's log");
        // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
        }
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let mut daemon = Self { child: child.unwrap_or_else(|error| panic!("{command:?}: {error}")), log };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let ended = daemon.child.try_wait().expect("look at the server");
            assert!(ended.is_none() && Instant::now() < deadline, "{command:?} does not listen:\n{}", daemon.log());
            pause(20);
        }
        daemon
    }

    /// What it has printed.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it and waits for it, for its files to be whole.
    ///
    /// # Errors
    /// Those of signalling and waiting.
    pub fn stop(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(5);
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child.kill()?;
            }
            pause(5);
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // One that has ended cannot be signalled, and one that cannot be waited for is not ours to repair.
        let _ = self.stop();
    }
}
