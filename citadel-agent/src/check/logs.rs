//! Checks the journal and the receivers of logs. Each gets an empty request, which stores nothing.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use tokio::task::LocalSet;

use super::facts::Facts;
use super::remote::PATIENCE;
use super::{Found, error, ok, warning};
use crate::config::resolved::logs::{Format, LogDestination};
use crate::logs::encode::{body, headers};
use crate::logs::identity;
use crate::logs::reader::Journal;
use crate::logs::sender::{Meaning, meaning};
use crate::outbound::{Client, Reply};

/// Where journald keeps logs across reboots.
const PERSISTENT: &str = "/var/log/journal";

/// Checks the journal and each destination.
pub(super) fn logs(facts: &Facts<'_>) -> Vec<Found> {
    let logs = &facts.config.logs;
    if !logs.enabled {
        return vec![ok("not read: logs.enabled is off")];
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => return vec![error(format!("cannot create an HTTP client: {cause}"), "see the error")],
    };
    let sends = !logs.destinations.is_empty();
    let last = LocalSet::new().block_on(&runtime, Journal::of(logs, false).last());
    let mut found = vec![journal_found(last.map(|entry| entry.map(|entry| entry.time_us)), sends)];
    if sends && logs.journal.is_none() {
        found.extend(persistence_found(Path::new(PERSISTENT)));
    }
    for (name, destination) in &logs.destinations {
        found.push(runtime.block_on(destination_found(facts, name, destination)));
    }
    found
}

/// Whether the journal can be read: the time of its last entry.
fn journal_found(last: Result<Option<u64>, String>, sends: bool) -> Found {
    match last {
        Ok(Some(us)) => {
            let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_micros(us));
            ok(format!("the journal is readable; its last entry is from {time}"))
        }
        Ok(None) => warning(
            "the journal is empty, or this user cannot read it: no log metrics, and no logs are sent",
            "run as root or in the group systemd-journal, as the shipped unit does",
        ),
        Err(cause) => {
            let text = format!("the journal cannot be read: {cause}");
            let fix = "install systemd, correct logs.journalctl and logs.journal, or set logs.enabled to false";
            if sends { error(text, fix) } else { warning(text, fix) }
        }
    }
}

/// Whether the journal is persistent.
fn persistence_found(folder: &Path) -> Option<Found> {
    (!folder.is_dir()).then(|| {
        warning(
            "the journal is volatile: entries that are not sent before a reboot are lost",
            format!("create {} and run `systemctl restart systemd-journald`", folder.display()),
        )
    })
}

async fn destination_found(facts: &Facts<'_>, name: &str, destination: &LogDestination) -> Found {
    let url = destination.url.as_deref().unwrap_or_default();
    let mut client = match Client::new(url, &destination.access, destination.timeout.min(PATIENCE)) {
        Ok(client) => client,
        Err(cause) => return error(format!("{name}: {cause}"), "correct its URL"),
    };
    match body(&[], destination.format, &identity(facts.config)) {
        Ok(body) => answer_found(name, url, destination.format, &client.post(headers(destination.format), body).await),
        Err(cause) => error(format!("{name}: an empty request cannot be made: {cause}"), "see the error"),
    }
}

/// The finding for the response to an empty request.
fn answer_found(name: &str, url: &str, format: Format, reply: &Reply) -> Found {
    let words = reply.words.as_str();
    let (kind, path) = match format {
        Format::Otlp => ("OTLP", "/v1/logs"),
        Format::Loki => ("Loki's push API", "/loki/api/v1/push"),
        Format::Journal => ("systemd-journal-remote's format", "/upload"),
    };
    // Since version 3.0, Loki refuses a request without streams with this message.
    let empty = format == Format::Loki && words.contains("at least one valid stream");
    match (meaning(format, reply), reply.status) {
        (Meaning::Taken(_), _) => ok(format!("{name}: {url} accepts {kind}")),
        _ if empty => ok(format!("{name}: {url} accepts {kind}")),
        (_, None) => error(
            format!("{name}: {url} does not answer: {words}"),
            "check that it is running and that no firewall blocks it",
        ),
        (_, Some(status @ (401 | 403 | 407))) => error(
            format!("{name}: {url} denies access (status {status}): {words}"),
            "set username and password_file, bearer_token_file or cert_file of the destination",
        ),
        (_, Some(status @ (404 | 405 | 415))) => error(
            format!("{name}: {url} does not accept {kind} (status {status}): {words}"),
            format!("end the URL with {path}, and set format to that of the receiver"),
        ),
        (_, Some(status @ 200..=399)) => error(
            format!("{name}: {url} answers {status}, which is not a success in {kind}"),
            format!("end the URL with {path}, and set format to that of the receiver"),
        ),
        (_, Some(status @ (429 | 500..))) => warning(
            format!("{name}: {url} answers {status}: {words}"),
            "the receiver is overloaded or failing; logs stay in the journal and are retried",
        ),
        (_, Some(status)) => error(format!("{name}: {url} answers {status}: {words}"), "see the receiver's log"),
    }
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;

    use super::*;
    use crate::check::Severity;

    fn found(format: Format, status: Option<u16>, words: &str) -> Found {
        let reply =
            Reply { status, words: words.to_owned(), retry_after: None, headers: HeaderMap::new(), body: vec![] };
        answer_found("a", "http://a/", format, &reply)
    }

    #[test]
    fn an_empty_request_tells_what_a_receiver_takes() {
        use Format::{Journal, Loki, Otlp};
        use Severity::{Error, Ok, Warning};
        let no_stream = "error at least one valid stream is required for ingestion";
        for (format, status, words, severity, said) in [
            (Otlp, Some(200), "", Ok, "accepts OTLP"),
            (Loki, Some(204), "", Ok, "accepts Loki's push API"),
            (Loki, Some(422), no_stream, Ok, "accepts Loki's push API"),
            (Loki, Some(422), "something else", Error, "422: something else"),
            (Loki, Some(200), "", Error, "answers 200, which is not a success"),
            (Journal, Some(202), "", Ok, "accepts systemd-journal-remote's format"),
            (Otlp, Some(404), "no such page", Error, "does not accept OTLP (status 404): no such page"),
            (Otlp, Some(403), "", Error, "denies access"),
            (Otlp, Some(503), "", Warning, "answers 503"),
            (Otlp, None, "connection refused", Error, "does not answer: connection refused"),
        ] {
            let (found, text, fix) = found(format, status, words);
            assert_eq!(found, severity, "{text}");
            assert!(text.contains(said) && fix.is_empty() == (severity == Ok), "{text}; {fix}");
        }
    }

    #[test]
    fn a_journal_that_cannot_be_read_is_worse_where_it_is_to_be_sent() {
        let failed = || Err("no journalctl".to_owned());
        assert_eq!(journal_found(failed(), true).0, Severity::Error);
        assert_eq!(journal_found(failed(), false).0, Severity::Warning);
        assert_eq!(journal_found(Ok(None), true).0, Severity::Warning);
        let (severity, text, _) = journal_found(Ok(Some(1_700_000_000_000_000)), true);
        assert!(severity == Severity::Ok && text.ends_with("2023-11-14T22:13:20Z"), "{text}");
    }

    #[test]
    fn a_journal_in_memory_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(persistence_found(folder.path()), None);
        assert_eq!(persistence_found(&folder.path().join("absent")).unwrap().0, Severity::Warning);
    }
}
