//! Notifies systemd (`sd_notify(3)`) of readiness, status and the watchdog. Does nothing without systemd.

use sd_notify::NotifyState;
use tracing::debug;

/// Sends notifications to systemd.
pub(super) struct ServiceManager {
    /// Whether systemd expects watchdog notifications from the main loop (`WatchdogSec=`).
    watched: bool,
    status: String,
}

impl ServiceManager {
    pub(super) fn new() -> Self {
        Self { watched: sd_notify::watchdog_enabled().is_some(), status: String::new() }
    }

    /// Reports that the listeners are up and the first reading is complete.
    pub(super) fn ready(&mut self, status: String) {
        send(&[NotifyState::Ready, NotifyState::Status(&status)]);
        self.status = status;
    }

    /// Sets the text that `systemctl status` shows, if it has changed.
    pub(super) fn status(&mut self, status: String) {
        if status != self.status {
            send(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    /// Notifies the watchdog.
    pub(super) fn alive(&self) {
        if self.watched {
            send(&[NotifyState::Watchdog]);
        }
    }

    /// Reports that the agent is stopping.
    pub(super) fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "cannot notify systemd");
    }
}
