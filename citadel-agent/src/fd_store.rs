//! systemd's file descriptor store (`FDSTORE=1` in `sd_notify(3)`): keeps descriptors from one process of the service to the next one,
//! over restarts and crashes, until the service is stopped. Without systemd nothing is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::os::fd::{AsFd, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use sd_notify::NotifyState;
use tracing::warn;

/// The store. The default one keeps nothing.
#[derive(Debug, Default)]
pub struct FdStore {
    /// Names of the descriptors in it.
    names: BTreeSet<String>,
    /// Whether there is a service manager.
    managed: bool,
    /// Whether a failure was logged.
    logged: bool,
}

impl FdStore {
    /// The store of this service, and the descriptors that its previous process left there; only the first call gets them.
    #[must_use]
    pub fn open() -> (Self, BTreeMap<String, OwnedFd>) {
        static OPENED: AtomicBool = AtomicBool::new(false);
        let mut left = BTreeMap::new();
        if !OPENED.swap(true, Ordering::Relaxed) {
            match sd_notify::listen_fds_with_names() {
                // SAFETY: the service manager has passed them to this process, and nothing else takes them.
                Ok(passed) => left.extend(passed.map(|(fd, name)| (name, unsafe { OwnedFd::from_raw_fd(fd) }))),
                Err(error) => warn!(%error, "cannot take the file descriptors that systemd has kept"),
            }
        }
        let managed = env::var_os("NOTIFY_SOCKET").is_some();
        (Self { names: left.keys().cloned().collect(), managed, logged: false }, left)
    }

    /// Whether descriptors are kept, as far as this process can know: the unit may not allow it.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.managed
    }

    /// Names of the descriptors in the store.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Adds a descriptor under a name that is not in the store.
    pub fn keep(&mut self, name: &str, descriptor: &impl AsFd) {
        // systemd would poll it, and drop a BPF map at once: those that cannot be polled report an error.
        let states = [NotifyState::FdStore, NotifyState::FdName(name), NotifyState::Custom("FDPOLL=0")];
        let sent = self.managed.then(|| sd_notify::notify_with_fds(&states, &[descriptor.as_fd()]));
        if self.note(sent) {
            self.names.insert(name.to_owned());
        }
    }

    /// Removes a descriptor.
    pub fn remove(&mut self, name: &str) {
        if self.names.remove(name) {
            let states = [NotifyState::FdStoreRemove, NotifyState::FdName(name)];
            let sent = self.managed.then(|| sd_notify::notify(&states));
            self.note(sent);
        }
    }

    /// Whether a message was sent. Logs the first failure.
    fn note(&mut self, sent: Option<std::io::Result<()>>) -> bool {
        match sent {
            None => false,
            Some(Ok(())) => true,
            Some(Err(error)) => {
                if !std::mem::replace(&mut self.logged, true) {
                    warn!(%error, "cannot reach systemd's file descriptor store; a restart loses counts");
                }
                false
            }
        }
    }
}
