//! What systemd learns of the agent (`sd_notify(3)`): that it is ready, how it is, that it lives. Nothing without systemd.

use sd_notify::NotifyState;
use tracing::debug;

/// Tells systemd.
pub(super) struct ServiceManager {
    /// Whether it wants to hear, now and then, that the main loop runs (`WatchdogSec=`).
    watched: bool,
    status: String,
}

impl ServiceManager {
    pub(super) fn new() -> Self {
        Self { watched: sd_notify::watchdog_enabled().is_some(), status: String::new() }
    }

    /// The listeners are up and the first page is read.
    pub(super) fn ready(&mut self, status: String) {
        send(&[NotifyState::Ready, NotifyState::Status(&status)]);
        self.status = status;
    }

    /// What `systemctl status` shows, where it has changed.
    pub(super) fn status(&mut self, status: String) {
        if status != self.status {
            send(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    /// The main loop runs.
    pub(super) fn alive(&self) {
        if self.watched {
            send(&[NotifyState::Watchdog]);
        }
    }

    /// No more requests are taken.
    pub(super) fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "systemd was not notified");
    }
}
