//! The body that is sent to Alertmanager: API v2, `postableAlerts` of
//! [openapi.yaml](https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml).

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use hyper::header::{CONTENT_TYPE, HeaderName};
use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::state::Texts;
use super::window::Millis;

/// One alert as it is sent.
#[derive(Clone, PartialEq, Debug)]
pub struct Notification {
    /// The labels that identify it.
    pub labels: Texts,
    /// Its rendered annotations.
    pub annotations: Texts,
    /// When it started firing.
    pub starts_at: Millis,
    /// When it was resolved; while it fires, when it expires unless it is sent again.
    pub ends_at: Millis,
    /// Link to more details.
    pub generator_url: String,
}

impl Serialize for Notification {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut alert = serializer.serialize_struct("postableAlert", 5)?;
        alert.serialize_field("labels", &self.labels)?;
        alert.serialize_field("annotations", &self.annotations)?;
        alert.serialize_field("startsAt", &rfc3339(self.starts_at))?;
        alert.serialize_field("endsAt", &rfc3339(self.ends_at))?;
        alert.serialize_field("generatorURL", &self.generator_url)?;
        alert.end()
    }
}

/// Headers of a request.
pub(super) const HEADERS: [(HeaderName, &str); 1] = [(CONTENT_TYPE, "application/json")];

/// The body of `POST /api/v2/alerts`.
pub(super) fn body(batch: &[Arc<Notification>]) -> Vec<u8> {
    let alerts: Vec<&Notification> = batch.iter().map(|notification| &**notification).collect();
    // Strings and maps of strings always serialise.
    serde_json::to_vec(&alerts).unwrap_or_default()
}

/// The last millisecond of the year 9999: years have four digits.
const LAST: u64 = 253_402_300_799_999;

fn rfc3339(at: Millis) -> String {
    let since = Duration::from_millis(u64::try_from(at).unwrap_or(0).min(LAST));
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_what_the_api_takes() {
        let texts = |name: &str, value: &str| Texts::from([(name.to_owned(), value.to_owned())]);
        let alert = Notification {
            labels: texts("alertname", "A \"b\"\n"),
            annotations: texts("summary", "ü"),
            starts_at: 1_700_000_000_123,
            ends_at: 1_700_000_240_000,
            generator_url: "http://grafana/".to_owned(),
        };
        let body: serde_json::Value = serde_json::from_slice(&body(&[Arc::new(alert)])).unwrap();
        let expected = serde_json::json!({
            "labels": {"alertname": "A \"b\"\n"},
            "annotations": {"summary": "ü"},
            "startsAt": "2023-11-14T22:13:20.123Z",
            "endsAt": "2023-11-14T22:17:20.000Z",
            "generatorURL": "http://grafana/",
        });
        assert_eq!(body[0], expected);
        assert_eq!(body.as_array().unwrap().len(), 1);
    }

    #[test]
    fn any_time_can_be_said() {
        assert_eq!(rfc3339(i64::MIN), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59.999Z");
    }
}
