//! Metrics: the catalogue, the families filled by sources, and their encodings.
//!
//! [`encode`] turns a [`Page`] into bytes: it sorts and validates the page and writes it in the [`Format`] that the
//! client asked for. No state is kept between scrapes.

pub(crate) mod buckets;
pub mod catalogue;
pub mod docs;
pub mod exposition;
pub mod family;
pub mod foreign;
pub mod format;
pub mod protobuf;
mod text;

pub use buckets::Buckets;
use catalogue::agent::PROCESS_START;
use family::{Family, Page, PageError, Value};
use format::Format;

/// The agent's start, from the page itself, in seconds since the epoch.
pub(crate) fn start_seconds(page: &Page) -> Option<f64> {
    let family = page.families.iter().find(|family| std::ptr::eq(family.desc, &PROCESS_START))?;
    match family.samples.first()?.value {
        Value::Float(seconds) => Some(seconds),
        Value::Integer(seconds) => Some(seconds as f64),
        Value::Histogram(_) => None,
    }
}

/// When a family's values were 0, if they count from the agent's start (`start`, from [`start_seconds`]) or later.
pub(crate) fn began(family: &Family, start: Option<f64>) -> Option<f64> {
    if !family.desc.counts_since_start() {
        return None;
    }
    match (start, family.began) {
        (Some(start), Some(began)) => Some(began.max(start)),
        (start, began) => start.or(began),
    }
}

/// Encodes the whole page in memory, so that an error never leaves a partial page.
///
/// # Errors
/// See [`Page::sort`].
pub fn encode(mut page: Page, format: Format) -> Result<Vec<u8>, PageError> {
    page.sort()?;
    Ok(match format {
        Format::Text => text::encode(&page, text::Dialect::Prometheus).into_bytes(),
        Format::OpenMetrics => text::encode(&page, text::Dialect::OpenMetrics).into_bytes(),
        Format::Protobuf => protobuf::encode(&page),
    })
}
