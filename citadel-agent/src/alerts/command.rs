//! `citadel-agent alerts test`: the way to the Alertmanagers, tried by hand.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderMap;

use super::delivery::TIMEOUT;
use super::notification::{HEADERS, Notification, body};
use super::peers::peers;
use super::state::Texts;
use crate::collector::wall_ms;
use crate::config::Config;
use crate::config::resolved::Remote;
use crate::outbound::{Client, Reply};

/// How long the test alert fires, if nobody ends it before.
const LIFE_MINUTES: i64 = 5;

/// Why nothing was tried.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is nobody to tell.
    #[error(
        "no Alertmanager is configured: set remote_monitoring.enabled and remote_monitoring.alerting.alert_manager_url"
    )]
    NoPeer,
    /// No runtime.
    #[error("cannot start: {0}")]
    Runtime(#[from] io::Error),
}

/// Posts no alert at all to each peer, and gives the URLs with what came back, and what there is to say about the configuration.
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

/// Sends an alert of severity info, which ends by itself, to each peer, and says what came back; false when any did not
/// take it.
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
    let summary = format!("A test: `citadel-agent alerts test` was run. It ends by itself in {LIFE_MINUTES} minutes.");
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
