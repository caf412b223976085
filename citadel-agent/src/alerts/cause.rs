//! The cause in the alert: what `explain` says of the model that it is about, as it is sent.

use std::sync::Arc;

use super::notification::Notification;
use super::window::Millis;
use crate::explain::{Against, explain};
use crate::history::History;

/// The annotation.
const EXPLANATION: &str = "explanation";

/// How far back an alert is explained: what rules look at.
const LOOKED_AT: Millis = 5 * 60 * 1000;

/// The notification with an explanation, where it is about a model that still has the problem. A rule's own annotation of that name
/// stays.
pub(super) fn explained(history: &History, notification: Arc<Notification>, now: Millis) -> Arc<Notification> {
    let port = notification.labels.get("port").and_then(|port| port.parse().ok());
    let (Some(port), true) = (port, notification.ends_at > now) else { return notification };
    let Some(first) = explain(history, Some(port), now - LOOKED_AT, now, Against::Before).into_iter().next() else {
        return notification;
    };
    let mut notification = Arc::unwrap_or_clone(notification);
    notification.annotations.entry(EXPLANATION.to_owned()).or_insert_with(|| first.first_sentences());
    Arc::new(notification)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::Texts;
    use crate::metrics::catalogue::models::{MODEL_UP, REQUESTS};
    use crate::metrics::family::{Page, Value};

    #[test]
    fn an_alert_about_a_model_says_why_at_each_time_that_it_is_sent() {
        let history = History::default();
        let now = 1_800_000_000_000;
        for at in 0..3u64 {
            let mut page = Page::default();
            page.add(&MODEL_UP, ["phi3", "11403"], Value::Integer(1));
            page.add(&REQUESTS, ["phi3", "11403", "chat_completions", "503"], Value::Integer(at * 20));
            history.take(&page, now - 11_000 + at.cast_signed() * 5000);
        }
        let alert = |port: &str, ends_at| {
            let labels = Texts::from([("port".to_owned(), port.to_owned())]);
            let (annotations, generator_url) = (Texts::new(), String::new());
            Arc::new(Notification { labels, annotations, starts_at: now - 1, ends_at, generator_url })
        };
        let text = |alert: Arc<Notification>| alert.annotations.get(EXPLANATION).cloned();
        let said = text(explained(&history, alert("11403", now + 60_000), now)).unwrap();
        assert!(said.starts_with("100 % of 40 requests failed"), "{said}");
        assert!(said.contains("(40 with 503)"), "{said}");
        // One that has ended, one of another model, one about no model.
        for other in [alert("11403", now - 1), alert("11404", now + 60_000), alert("", now + 60_000)] {
            assert_eq!(text(explained(&history, other, now)), None);
        }
    }
}
