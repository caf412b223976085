//! systemd's file descriptor store, without systemd: keeps what an agent sends to `NOTIFY_SOCKET`, and passes it to the next one.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tempfile::TempDir;

/// The first descriptor that a service manager passes (`sd_listen_fds(3)`).
const FIRST: RawFd = 3;

/// A store; its descriptors are closed with it.
#[derive(Clone, Debug)]
pub struct FdStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: TempDir,
    kept: Mutex<Vec<(String, OwnedFd)>>,
    /// A message for each [`BARRIER`] that was reached.
    settled: Mutex<Receiver<()>>,
}

impl FdStore {
    /// An empty store, which listens as long as it lives.
    ///
    /// # Panics
    /// If the socket cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("make a temporary directory");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("bind the notification socket");
        let (settled, told) = channel();
        let inner = Arc::new(Inner { folder, kept: Mutex::default(), settled: Mutex::new(told) });
        let weak = Arc::downgrade(&inner);
        thread::spawn(move || {
            while let Some((text, descriptors)) = receive(&socket) {
                let Some(inner) = weak.upgrade() else { break };
                inner.take(&text, descriptors, &settled);
            }
        });
        Self(inner)
    }

    /// The socket's path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.0.path()
    }

    /// Names of what is kept, once everything that was sent has arrived.
    ///
    /// # Panics
    /// If nobody listens.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.settle();
        self.0.kept().iter().map(|(name, _)| name.clone()).collect()
    }

    /// Forgets what has this name, as if it had never been kept.
    pub fn lose(&self, name: &str) {
        self.settle();
        self.0.kept().retain(|(kept, _)| kept != name);
    }

    /// The file that is kept under a name.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn file(&self, name: &str) -> std::fs::File {
        self.settle();
        let kept = self.0.kept();
        let (_, file) = kept.iter().find(|(kept, _)| kept == name).expect("it is kept");
        file.try_clone().expect("duplicate the descriptor").into()
    }

    /// Makes a command pass what is kept to the program that it starts, by way of a shell that knows its own PID.
    ///
    /// # Panics
    /// If nobody listens.
    #[must_use]
    pub fn pass_to(&self, command: &Command) -> Command {
        self.settle();
        let (names, fds): (Vec<_>, Vec<_>) =
            self.0.kept().iter().map(|(name, fd)| (name.clone(), fd.as_raw_fd())).unzip();
        let mut shell = Command::new("sh");
        shell.args(["-c", "LISTEN_PID=$$ exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        shell.env("NOTIFY_SOCKET", self.path());
        if !fds.is_empty() {
            shell.env("LISTEN_FDS", fds.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        }
        let mut moved: Vec<RawFd> = vec![0; fds.len()];
        let above = FIRST + fds.len() as RawFd;
        let place = move || {
            // First out of the way of each other.
            for (to, &from) in moved.iter_mut().zip(&fds) {
                // SAFETY: descriptors of this process; the copies are its own.
                *to = unsafe { libc::fcntl(from, libc::F_DUPFD_CLOEXEC, above) };
                if *to < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            for (to, &from) in (FIRST..).zip(&moved) {
                // SAFETY: what is replaced belongs to the parent, and ends in this process with the exec.
                if unsafe { libc::dup2(from, to) } < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes system calls and allocates nothing.
        unsafe { shell.pre_exec(place) };
        shell
    }

    /// Waits until everything that was sent has been taken.
    fn settle(&self) {
        let socket = UnixDatagram::unbound().expect("make a socket");
        socket.send_to(BARRIER.as_bytes(), self.path()).expect("the store listens");
        self.0.settled.lock().unwrap_or_else(PoisonError::into_inner).recv().expect("the store listens");
    }
}

impl Default for FdStore {
    fn default() -> Self {
        Self::new()
    }
}

/// A message of the test's own.
const BARRIER: &str = "X_BARRIER=1";

impl Inner {
    fn path(&self) -> PathBuf {
        self.folder.path().join("notify")
    }

    fn kept(&self) -> MutexGuard<'_, Vec<(String, OwnedFd)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, text: &str, descriptors: Vec<OwnedFd>, settled: &Sender<()>) {
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let name = value("FDNAME").unwrap_or("stored");
        match (value("FDSTORE"), value("FDSTOREREMOVE")) {
            (Some("1"), _) => {
                // systemd polls what it may, and drops at once what reports an error, as BPF maps do.
                assert_eq!(value("FDPOLL"), Some("0"), "{name} would be dropped");
                self.kept().extend(descriptors.into_iter().map(|descriptor| (name.to_owned(), descriptor)));
            }
            (_, Some("1")) => self.kept().retain(|(kept, _)| kept != name),
            _ if text == BARRIER => settled.send(()).expect("the test waits"),
            _ => {}
        }
    }
}

/// The next message with its descriptors.
fn receive(socket: &UnixDatagram) -> Option<(String, Vec<OwnedFd>)> {
    let mut text = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    let messages = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors = messages.flatten().collect();
    Some((String::from_utf8_lossy(&text[..received.bytes]).into_owned(), descriptors))
}
