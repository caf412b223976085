//! `citadel-agent export` and `citadel-agent remote-write test`: the way to a receiver, tried by hand.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use super::client::Client;
use super::encode::{self, Form, Protocol};
use super::identity;
use super::record::Record;
use super::sender::{Answer, Sender, Settings};
use crate::collector::wall_ms;
use crate::config::Config;
use crate::config::resolved::remote_write::Histograms;
use crate::metrics::catalogue::agent::REMOTE_WRITE_TEST;
use crate::metrics::family::{Page, Value};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The page is none that can be sent.
    #[error("the page cannot be sent: {0}")]
    Page(#[from] crate::metrics::family::PageError),
    /// It is too large.
    #[error("the page is too large: {0}")]
    Size(#[from] snap::Error),
    /// The file cannot be written.
    #[error("cannot write {name}: {error}")]
    Output {
        /// Its name.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// There is nothing to test.
    #[error(
        "no destination is configured: set remote_monitoring.enabled and remote_monitoring.prometheus.remote_write_url, \
         or remote_write.destinations"
    )]
    NoDestination,
    /// No runtime.
    #[error("cannot start: {0}")]
    Runtime(#[from] io::Error),
}

/// Writes `page` as one request, in `protocol`, to `output` or to standard output; says what it wrote.
///
/// # Errors
/// See [`CommandError`].
pub fn export(
    config: &Config,
    mut page: Page,
    protocol: Protocol,
    output: Option<&Path>,
) -> Result<String, CommandError> {
    page.sort()?;
    let record = Record::new(&page, &[], &identity(config), wall_ms(), 0);
    let histograms = config.remote_write.histograms;
    let form = Form { protocol, native: histograms != Histograms::Classic, classic: histograms != Histograms::Native };
    let body = encode::body(&record, 0..record.len(), form)?;
    let written = match output {
        Some(path) => fs::write(path, &body.bytes),
        None => io::stdout().lock().write_all(&body.bytes),
    };
    let name = output.map_or_else(|| "standard output".to_owned(), |path| path.display().to_string());
    written.map_err(|error| CommandError::Output { name: name.clone(), error })?;
    Ok(format!(
        "{} series in {} bytes to {name}; to post them:\n  curl --data-binary @FILE -H 'Content-Encoding: snappy' \
         -H 'Content-Type: {}' -H 'X-Prometheus-Remote-Write-Version: {}' URL",
        body.series,
        body.bytes.len(),
        protocol.content_type(),
        protocol.version(),
    ))
}

/// Sends one sample of a metric of its own to each destination, and says what came back; false when any was not taken.
///
/// A metric of its own, because a receiver takes the samples of a series in order only: the page of the running agent, sent
/// by somebody else, would make it refuse what the running agent has still to send.
///
/// # Errors
/// See [`CommandError`].
pub fn test(config: &Config, say: &mut dyn FnMut(&str)) -> Result<bool, CommandError> {
    let destinations = config.destinations();
    if destinations.is_empty() {
        return Err(CommandError::NoDestination);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut all = true;
    for (name, destination) in destinations {
        let url = destination.url.clone().unwrap_or_default();
        let mut client = match Client::new(&destination) {
            Ok(client) => client,
            Err(error) => {
                say(&format!("{name} ({url}): {error}"));
                all = false;
                continue;
            }
        };
        let mut page = Page::default();
        page.add(&REMOTE_WRITE_TEST, [&name], Value::Integer(1));
        let record = Record::new(&page, &[], &identity(config), wall_ms(), 0);
        let settings = Settings {
            protocol: destination.protocol,
            histograms: config.remote_write.histograms,
            denied: destination.denied,
        };
        let mut sender = Sender::new(settings, super::ledger::Receiver::default());
        // In 2.0 first, and in 1.0 where the receiver knows no other, as the running agent does.
        loop {
            sender.load(0..1);
            let form = sender.form();
            let body = encode::body(&record, 0..1, form)?;
            let answer = runtime.block_on(client.post(body.bytes, form.protocol));
            let events = sender.answered(std::time::Duration::ZERO, wall_ms(), 0.0, &answer);
            say(&format!("{name} ({url}), remote write {}: {}", version(form.protocol), told(&answer)));
            if sender.form() != form {
                continue;
            }
            let taken = super::ledger::Outcome::Acknowledged;
            all &= events
                .iter()
                .any(|event| matches!(event, super::sender::Event::Settled(_, outcome) if *outcome == taken));
            break;
        }
    }
    Ok(all)
}

fn version(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::V1 => "1.0",
        Protocol::V2 => "2.0",
    }
}

fn told(answer: &Answer) -> String {
    let words = if answer.words.is_empty() { String::new() } else { format!(", {:?}", answer.words) };
    match (answer.status, answer.written) {
        (None, _) => format!("no answer: {}", answer.words),
        (Some(status), Some(written)) => format!("status {status}{words}, {written} samples written"),
        (Some(status), None) => format!("status {status}{words}"),
    }
}
