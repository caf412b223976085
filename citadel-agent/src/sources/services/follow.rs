//! Keeps the state of the units up to date, from systemd's signals.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tracing::{info, warn};
use zbus::zvariant::OwnedObjectPath;
use zbus::{Error, Message, MessageStream};

use super::bus::{self, MANAGER, MAX_UNITS, PROPERTIES, Systemd};
use super::guard::BUS;
use super::{Known, Unit, Wanted};
use crate::host::skipped::{Skipped, Tally};
use crate::slot::Slot;

/// systemd changes several properties of a unit in a row; they are queried once.
const SETTLE: Duration = Duration::from_millis(20);

/// Wait between attempts to reconnect to systemd: initial and maximum.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Monitors the wanted units as long as it is polled.
pub(super) async fn follow(address: Option<String>, mut wanted: watch::Receiver<Wanted>, known: Slot<Known>) {
    let mut pause = RETRY.0;
    let (mut seen, mut said_absent, mut said_lost) = (false, false, false);
    let mut skipped = Tally::default();
    loop {
        let failure = match Systemd::connect(address.as_deref()).await {
            Ok(Some(systemd)) => {
                pause = RETRY.0;
                (seen, said_lost) = (true, false);
                match session(&systemd, &mut wanted, &known, &mut skipped).await {
                    Ok(()) => return,
                    Err(error) => Some(error),
                }
            }
            Ok(None) => None,
            Err(error) if bus::is_absent(&error) => None,
            Err(error) => Some(error),
        };
        match failure {
            None if !seen => {
                if !said_absent {
                    info!("systemd is not running; units are not monitored");
                    said_absent = true;
                }
                known.publish(Known::Absent);
            }
            failure => {
                let why = failure.map_or_else(|| "it is gone".to_owned(), |error| error.to_string());
                if !said_lost {
                    warn!(why, "cannot query systemd; units are not monitored until it answers");
                    said_lost = true;
                }
                known.publish(Known::Lost(format!("cannot query systemd: {why}")));
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

/// Work requested by signals and not done yet.
#[derive(Default)]
struct Pending {
    /// The list of units may have changed.
    list: bool,
    /// The bus has closed the connection, or systemd restarted.
    closed: bool,
    /// Objects of units that have changed.
    paths: BTreeSet<String>,
}

/// Passes work from the task that receives signals to the one that acts on them. The first must never block: replies
/// arrive on the same connection, and would wait behind unread signals.
#[derive(Default)]
struct Inbox {
    pending: Mutex<Pending>,
    arrived: Notify,
}

impl Inbox {
    fn note(&self, change: impl FnOnce(&mut Pending)) {
        change(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        self.arrived.notify_one();
    }

    fn take(&self) -> Pending {
        std::mem::take(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Aborts a task when dropped.
struct Ends(tokio::task::AbortHandle);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Monitors units on one connection until it fails. `Ok`: monitoring is no longer wanted.
async fn session(
    systemd: &Systemd,
    wanted: &mut watch::Receiver<Wanted>,
    known: &Slot<Known>,
    skipped: &mut Tally,
) -> Result<(), Error> {
    let inbox = Arc::new(Inbox::default());
    let stream = MessageStream::from(&systemd.connection);
    let _listening = Ends(tokio::spawn(listen(stream, wanted.clone(), Arc::clone(&inbox))).abort_handle());
    let mut units = Units { skipped, by_name: BTreeMap::new(), loaded: BTreeMap::new(), left_out: 0 };
    let now = wanted.borrow_and_update().clone();
    units.list(systemd, &now).await?;
    known.publish(units.known());
    loop {
        let relist = tokio::select! {
            changed = wanted.changed() => match changed {
                Ok(()) => true,
                Err(_) => return Ok(()),
            },
            () = inbox.arrived.notified() => {
                tokio::time::sleep(SETTLE).await;
                false
            }
        };
        let pending = inbox.take();
        if pending.closed {
            return Err(Error::InputOutput(Arc::new(std::io::ErrorKind::ConnectionAborted.into())));
        }
        if relist || pending.list {
            let now = wanted.borrow_and_update().clone();
            units.list(systemd, &now).await?;
        }
        for path in &pending.paths {
            units.ask(systemd, path).await?;
        }
        known.publish(units.known());
    }
}

/// Records signals.
async fn listen(mut stream: MessageStream, wanted: watch::Receiver<Wanted>, inbox: Arc<Inbox>) {
    while let Some(message) = next(&mut stream).await {
        let Ok(message) = message else { continue };
        let header = message.header();
        let (Some(interface), Some(member)) = (header.interface(), header.member()) else { continue };
        match (interface.as_str(), member.as_str()) {
            (PROPERTIES, "PropertiesChanged") => {
                if let Some(path) = header.path() {
                    inbox.note(|pending| _ = pending.paths.insert(path.to_string()));
                }
            }
            // Sessions and timers come and go; only matching units matter.
            (MANAGER, "UnitNew" | "UnitRemoved") => {
                let name = message.body().deserialize::<(String, OwnedObjectPath)>().map(|(name, _)| name);
                if name.is_ok_and(|name| wanted.borrow().matches(&name)) {
                    inbox.note(|pending| pending.list = true);
                }
            }
            // systemd has restarted, and our subscription is gone.
            (BUS, "NameOwnerChanged") => inbox.note(|pending| pending.closed = true),
            // Unit files were installed or removed, or systemd has reloaded them, which changes its objects.
            (MANAGER, "UnitFilesChanged" | "Reloading") => inbox.note(|pending| pending.list = true),
            _ => {}
        }
    }
    inbox.note(|pending| pending.closed = true);
}

/// The next message of a stream, without a dependency on stream combinators.
async fn next(stream: &mut MessageStream) -> Option<Result<Message, Error>> {
    std::future::poll_fn(|context| {
        let stream = std::pin::Pin::new(&mut *stream);
        futures_core::Stream::poll_next(stream, context)
    })
    .await
}

impl Wanted {
    fn all(&self) -> Vec<&str> {
        self.patterns.iter().chain(&self.models).map(String::as_str).collect()
    }

    fn matches(&self, name: &str) -> bool {
        let Ok(name) = CString::new(name) else { return false };
        self.all().into_iter().any(|pattern| {
            let Ok(pattern) = CString::new(pattern) else { return false };
            // SAFETY: both strings are NUL-terminated. systemd itself uses this function (fnmatch(3), no flags but
            // NOESCAPE).
            unsafe { libc::fnmatch(pattern.as_ptr(), name.as_ptr(), libc::FNM_NOESCAPE) == 0 }
        })
    }
}

/// The monitored units.
struct Units<'a> {
    /// Unreadable properties.
    skipped: &'a mut Tally,
    /// Their states, by name.
    by_name: BTreeMap<String, Unit>,
    /// Names of loaded units by object path; their signals are subscribed to.
    loaded: BTreeMap<String, String>,
    /// Number of units beyond the limit.
    left_out: usize,
}

impl Units<'_> {
    /// Lists the units, and queries all of them.
    async fn list(&mut self, systemd: &Systemd, wanted: &Wanted) -> Result<(), Error> {
        let mut found = if wanted.all().is_empty() { BTreeMap::new() } else { systemd.list(&wanted.all()).await? };
        self.left_out = found.len().saturating_sub(MAX_UNITS);
        if self.left_out > 0 {
            // Units that serve models first, then by name.
            let mut names: Vec<String> = found.keys().cloned().collect();
            names.sort_by_key(|name| !wanted.models.contains(name));
            names[MAX_UNITS..].iter().for_each(|name| _ = found.remove(name));
        }
        let loaded: BTreeMap<String, String> =
            (found.iter()).filter_map(|(name, path)| Some((path.as_ref()?.to_string(), name.clone()))).collect();
        for path in self.loaded.keys().filter(|path| !loaded.contains_key(*path)) {
            systemd.ignore(path, PROPERTIES).await?;
        }
        // Subscribed before they are queried, so that no change is missed.
        for path in loaded.keys().filter(|path| !self.loaded.contains_key(*path)) {
            systemd.listen(path, PROPERTIES).await?;
        }
        self.loaded = loaded;
        self.by_name = found.into_keys().map(|name| (name, Unit::unloaded())).collect();
        for path in self.loaded.keys().cloned().collect::<Vec<_>>() {
            self.ask(systemd, &path).await?;
        }
        Ok(())
    }

    /// Queries a unit.
    async fn ask(&mut self, systemd: &Systemd, path: &str) -> Result<(), Error> {
        // A signal of a unit that is no longer monitored.
        let Some(name) = self.loaded.get(path) else { return Ok(()) };
        let mut skipped = Skipped::default();
        let unit = systemd.unit(name, &path.try_into()?, &mut skipped).await?.unwrap_or_else(Unit::unloaded);
        self.skipped.add("systemd", &skipped);
        self.by_name.insert(name.clone(), unit);
        Ok(())
    }

    fn known(&self) -> Known {
        Known::Units { units: self.by_name.clone(), left_out: self.left_out, skipped: self.skipped.total() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_systemctl_and_models_are_meant_literally() {
        let wanted =
            Wanted { patterns: vec!["citadel-*.service".to_owned()], models: ["vllm@a.service".to_owned()].into() };
        for (name, matches) in [
            ("citadel-phi3.service", true),
            ("citadel-phi3.timer", false),
            ("vllm@a.service", true),
            ("vllm@b.service", false),
            ("a\0b", false),
        ] {
            assert_eq!(wanted.matches(name), matches, "{name}");
        }
    }
}
