//! `citadel-agent alerts test`: sends a test alert to the Alertmanagers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderMap;

use super::delivery::TIMEOUT;
use super::notification::{HEADERS, Notification, body};
use super::peers::peers;
use super::state::Texts;
use crate::clock::wall_ms;
use crate::config::Config;
use crate::config::resolved::Remote;
use crate::outbound::{Client, Reply};

/// How long the test alert fires unless it is ended earlier.
const LIFE_MINUTES: i64 = 5;

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// No Alertmanager is configured.
    #[error(
        "no Alertmanager is configured; set remote_monitoring.enabled and remote_monitoring.alerting.alert_manager_url"
    )]
    NoPeer,
    /// The async runtime could not be started.
    #[error("cannot start: {0}")]
    Runtime(#[from] io::Error),
}

/// Posts an empty list of alerts to each peer; returns the URLs with their responses, and remarks about the
/// configuration.
pub async fn ask(remote: &Remote, timeout: Duration) -> (Vec<(String, Reply)>, Vec<String>) {
    let (peers, notes) = peers(remote);
    let mut replies = Vec::new();
    for peer in peers {
        let reply = match Client::new(&peer.url, &remote.alerting_access, timeout) {
            Ok(mut client) => client.post(&HEADERS, "[]").await,
            Err(error) => {
                let words = error.to_string();
                Reply { status: None, words, retry_after: None, headers: HeaderMap::new(), body: Vec::new() }
            }
        };
        replies.push((peer.url, reply));
    }
    (replies, notes)
}

/// Sends an alert with severity info, which resolves itself, to each peer and reports the responses; returns false if
/// any of them did not accept it.
///
/// # Errors
/// See [`CommandError`].
pub fn test(config: &Config, say: &mut dyn FnMut(&str)) -> Result<bool, CommandError> {
    let remote = config.remote.as_ref().ok_or(CommandError::NoPeer)?;
    let (peers, notes) = peers(remote);
    if peers.is_empty() {
        return Err(CommandError::NoPeer);
    }
    notes.iter().for_each(|note| say(note));
    let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut labels: Texts = super::identity(config);
    labels.extend([text("alertname", "CitadelAgentTest"), text("severity", "info")]);
    let summary =
        format!("Test alert sent by `citadel-agent alerts test`. It resolves by itself in {LIFE_MINUTES} minutes.");
    let notification = Notification {
        labels,
        annotations: Texts::from([text("summary", &summary)]),
        starts_at: wall_ms(),
        ends_at: wall_ms() + LIFE_MINUTES * 60 * 1000,
        generator_url: super::generator_url(config),
    };
    let body = body(&[Arc::new(notification)]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut all = true;
    for peer in peers {
        let told = match Client::new(&peer.url, &remote.alerting_access, TIMEOUT) {
            Ok(mut client) => {
                let reply = runtime.block_on(client.post(&HEADERS, body.clone()));
                all &= reply.status.is_some_and(|status| (200..300).contains(&status));
                let words = if reply.words.is_empty() { String::new() } else { format!(", {:?}", reply.words) };
                reply.status.map_or_else(|| format!("no answer{words}"), |status| format!("status {status}{words}"))
            }
            Err(error) => {
                all = false;
                error.to_string()
            }
        };
        say(&format!("{}: {told}", peer.url));
    }
    Ok(all)
}
