//! Checks of the servers that samples and alerts are sent to. Each gets an empty request, which changes nothing.

use std::time::Duration;

use bytes::Bytes;

use super::facts::Facts;
use super::{Found, Severity, error, ok, warning};
use crate::alerts;
use crate::config::resolved::remote_write::{self as resolved, Destination};
use crate::outbound::Reply;
use crate::remote_write::client::Client;
use crate::remote_write::encode::Protocol;
use crate::remote_write::sender::ReceiverAnswer;

/// Timeout of these requests.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// An empty message of either protocol (no bytes), compressed with snappy's block format: its length, zero.
const NOTHING: Bytes = Bytes::from_static(&[0]);

fn wait<T>(future: impl Future<Output = T>) -> Result<T, Found> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => Ok(runtime.block_on(future)),
        Err(cause) => Err(error(format!("cannot create an HTTP client: {cause}"), "see the error")),
    }
}

/// Each remote-write destination.
pub(super) fn remote_write(facts: &Facts<'_>) -> Vec<Found> {
    let destinations = facts.config.destinations();
    if destinations.is_empty() {
        return vec![ok("no destination is configured, so nothing is sent")];
    }
    destinations.into_iter().flat_map(|(name, destination)| destination_found(&name, destination)).collect()
}

fn destination_found(name: &str, mut destination: Destination) -> Vec<Found> {
    destination.timeout = destination.timeout.min(PATIENCE);
    let url = destination.url.clone().unwrap_or_default();
    let mut client = match Client::new(&destination) {
        Ok(client) => client,
        Err(cause) => return vec![error(format!("{name}: {cause}"), "correct its URL")],
    };
    let wanted = match destination.protocol {
        resolved::Protocol::Auto => vec![Protocol::V2, Protocol::V1],
        resolved::Protocol::V1 => vec![Protocol::V1],
        resolved::Protocol::V2 => vec![Protocol::V2],
    };
    let asked = wait(async {
        let mut answers = Vec::new();
        for protocol in wanted {
            let answer = client.post(NOTHING, protocol).await;
            // Only a receiver that supports 2.0 reports the number of written samples.
            let certain = protocol == Protocol::V2 && answer.written.is_some();
            answers.push((protocol, answer));
            if certain {
                break;
            }
        }
        (answers, about(&mut client, &url).await)
    });
    let (answers, about) = match asked {
        Ok(asked) => asked,
        Err(found) => return vec![found],
    };
    let found = answers_found(name, &url, &answers);
    let takes = found.0 == Severity::Ok;
    let about = about.filter(|_| takes).map(|about| prometheus_found(name, &about));
    std::iter::once(found).chain(about).collect()
}

/// What Prometheus reports about itself.
struct About {
    version: String,
    features: String,
    config: String,
}

/// Requested if the URL is that of Prometheus; other receivers with this path do not answer it.
async fn about(client: &mut Client, url: &str) -> Option<About> {
    let (base, _) = url.split_once("/api/v1/write")?;
    let path = base.splitn(4, '/').nth(3).map_or(String::new(), |path| format!("/{path}"));
    let mut ask = async |what: &str, key: &str| {
        let answer = client.get_json(&format!("{path}/api/v1/status/{what}")).await?;
        Some(answer["data"][key].as_str()?.to_owned())
    };
    Some(About {
        version: ask("buildinfo", "version").await?,
        features: ask("flags", "enable-feature").await?,
        config: ask("config", "yaml").await?,
    })
}

/// Handling of histograms and of late samples.
fn prometheus_found(name: &str, About { version, features, config }: &About) -> Found {
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    let always = (numbers.next(), numbers.next()) >= (Some(3), Some(8));
    let native = always || features.split(',').any(|feature| feature == "native-histograms");
    let native = if native { "stores native histograms" } else { "stores classic histograms only" };
    let window = config.lines().find_map(|line| line.trim().strip_prefix("out_of_order_time_window: "));
    match window.filter(|window| !window.starts_with('0')) {
        Some(window) => ok(format!("{name}: Prometheus {version} {native} and accepts samples up to {window} late")),
        None => warning(
            format!(
                "{name}: Prometheus {version} {native} and rejects samples more than an hour late, so longer outages leave a gap"
            ),
            "set storage.tsdb.out_of_order_time_window in prometheus.yml to remote_write.max_age of the agents (7d)",
        ),
    }
}

/// The meaning of the responses to empty requests, in the order received.
fn answers_found(name: &str, url: &str, answers: &[(Protocol, ReceiverAnswer)]) -> Found {
    let success = |answer: &ReceiverAnswer| answer.status.is_some_and(|status| (200..300).contains(&status));
    for (protocol, answer) in answers {
        match protocol {
            Protocol::V2 if success(answer) && answer.written.is_some() => {
                return ok(format!("{name}: {url} accepts remote write 2.0"));
            }
            Protocol::V1 if success(answer) => {
                return ok(format!("{name}: {url} accepts remote write 1.0, classic histograms only"));
            }
            _ => {}
        }
    }
    let last = answers.last().map(|(_, answer)| answer);
    let words = last.map_or("", |answer| answer.words.as_str());
    match last.and_then(|answer| answer.status) {
        None => error(
            format!("{name}: {url} does not answer: {words}"),
            "check that it is running and that no firewall blocks it",
        ),
        Some(404 | 405) => error(
            format!("{name}: {url} does not support remote write (status 404)"),
            "start Prometheus with --web.enable-remote-write-receiver, and end the URL with /api/v1/write",
        ),
        Some(status @ (401 | 403)) => error(
            format!("{name}: {url} denies access (status {status}): {words}"),
            "set username and password_file, bearer_token_file or cert_file of the destination",
        ),
        Some(status @ 200..300) => error(
            format!("{name}: {url} answers {status} to remote write 2.0 but stores nothing: it supports only 1.0"),
            "set the destination's protocol to auto or 1.0",
        ),
        Some(status @ (429 | 500..)) => warning(
            format!("{name}: {url} answers {status}: {words}"),
            "the receiver is overloaded or failing; samples are kept and retried",
        ),
        Some(status) => error(format!("{name}: {url} answers {status}: {words}"), "see the receiver's log"),
    }
}

/// Each Alertmanager and other receiver of alerts.
pub(super) fn alerts(facts: &Facts<'_>) -> Vec<Found> {
    let remote = facts.config.remote.as_ref().filter(|_| facts.config.alerts.enabled);
    let Some(remote) = remote else { return vec![ok("no alerts are sent")] };
    let (replies, notes) = match wait(alerts::command::ask(remote, PATIENCE)) {
        Ok(asked) => asked,
        Err(found) => return vec![found],
    };
    let mut found: Vec<_> = notes.into_iter().map(|note| warning(note, "remove the path from the URL")).collect();
    found.extend(replies.iter().map(|(url, reply)| peer_found(url, reply)));
    if replies.is_empty() {
        found.push(ok("no Alertmanager is configured, so no rules are evaluated"));
    }
    found
}

fn peer_found(url: &str, reply: &Reply) -> Found {
    match reply.status {
        Some(200..300) => ok(format!("{url} accepts alerts")),
        None => error(
            format!("{url} does not answer: {}", reply.words),
            "check that it is running and that no firewall blocks it",
        ),
        Some(status @ (401 | 403)) => error(
            format!("{url} denies access (status {status})"),
            "set username and password_file, or bearer_token_file, of remote_monitoring.alerting",
        ),
        Some(status) => error(
            format!("{url} answers {status} to an empty list of alerts: {}", reply.words),
            "use Alertmanager 0.16 or later, or a receiver that accepts the JSON of its API v2",
        ),
    }
}

/// Grafana, which alerts link to.
pub(super) fn grafana(facts: &Facts<'_>) -> Vec<Found> {
    let url = facts.config.remote.as_ref().and_then(|remote| remote.grafana_url.as_deref());
    let Some(url) = url else { return vec![ok("not configured")] };
    let reached = wait(async {
        let uri: hyper::Uri = url.parse().ok()?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let connect = tokio::net::TcpStream::connect((host, port));
        tokio::time::timeout(PATIENCE, connect).await.ok()?.ok()
    });
    vec![match reached {
        Ok(Some(_)) => ok(format!("{url} is reachable")),
        Ok(None) => warning(
            format!("{url} is not reachable from here"),
            "it is used only for links in alerts; correct dashboard_url if it is wrong",
        ),
        Err(found) => found,
    }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote_write::sender::Written;

    fn answer(status: Option<u16>, written: bool) -> ReceiverAnswer {
        let written = written.then_some(Written { samples: Some(0), histograms: None });
        ReceiverAnswer { status, words: "words".to_owned(), retry_after: None, written, classic_only: false }
    }

    #[test]
    fn a_prometheus_says_what_becomes_of_histograms_and_late_samples() {
        let about = |version: &str, features: &str, config: &str| About {
            version: version.to_owned(),
            features: features.to_owned(),
            config: config.to_owned(),
        };
        let window = "global: {}\nstorage:\n  tsdb:\n    out_of_order_time_window: 1w\n";
        let (severity, text, _) = prometheus_found("p", &about("2.53.1", "exemplar-storage,native-histograms", window));
        assert_eq!(severity, Severity::Ok);
        assert!(text.contains("stores native") && text.ends_with("up to 1w late"), "{text}");
        let (severity, text, fix) = prometheus_found("p", &about("3.5.0", "", "global: {}\n"));
        assert_eq!(severity, Severity::Warning);
        assert!(text.contains("classic histograms only") && fix.contains("out_of_order_time_window"), "{text}");
        assert!(prometheus_found("p", &about("3.10.0", "", window)).1.contains("stores native"));
        assert_eq!(
            prometheus_found("p", &about("3.8.0", "", "    out_of_order_time_window: 0s\n")).0,
            Severity::Warning
        );
    }

    #[test]
    fn an_empty_request_tells_which_protocol_a_receiver_takes() {
        let found =
            |answers: &[(Protocol, ReceiverAnswer)]| answers_found("prometheus", "http://p/api/v1/write", answers);
        let two = found(&[(Protocol::V2, answer(Some(204), true))]);
        assert!(two.0 == Severity::Ok && two.1.ends_with("2.0"), "{two:?}");
        // An old Prometheus answers 204 to what it does not understand.
        let one = found(&[(Protocol::V2, answer(Some(204), false)), (Protocol::V1, answer(Some(204), false))]);
        assert!(one.0 == Severity::Ok && one.1.contains("1.0, classic"), "{one:?}");
        let nothing = found(&[(Protocol::V2, answer(Some(204), false))]);
        assert!(nothing.0 == Severity::Error && nothing.1.contains("stores nothing"), "{nothing:?}");
        let off = found(&[(Protocol::V2, answer(Some(404), false)), (Protocol::V1, answer(Some(404), false))]);
        assert!(off.0 == Severity::Error && off.2.contains("--web.enable-remote-write-receiver"), "{off:?}");
        let closed = found(&[(Protocol::V2, answer(None, false)), (Protocol::V1, answer(None, false))]);
        assert!(closed.0 == Severity::Error && closed.1.contains("does not answer: words"), "{closed:?}");
        assert_eq!(
            found(&[(Protocol::V2, answer(Some(503), false)), (Protocol::V1, answer(Some(503), false))]).0,
            Severity::Warning
        );
        assert_eq!(found(&[(Protocol::V1, answer(Some(401), false))]).0, Severity::Error);
    }
}
