//! Metrics: the catalogue, the families filled by sources, and their encodings.
//!
//! [`encode`] turns a [`Page`] into bytes: it sorts and validates the page and writes it in the [`Format`] that the
//! client asked for. No state is kept between scrapes.

pub(crate) mod buckets;
pub mod catalogue;
mod dialect;
pub mod docs;
pub mod exposition;
pub mod family;
pub mod foreign;
pub mod format;
pub mod protobuf;
mod text;

pub use buckets::Buckets;
use dialect::Dialect;
use family::{Page, PageError};
use format::Format;

/// The whole page in `format`, in memory, so that an error never leaves half a page behind.
///
/// # Errors
/// See [`Page::sort`].
pub fn encode(mut page: Page, format: Format) -> Result<Vec<u8>, PageError> {
    page.sort()?;
    Ok(match format {
        Format::Text => text::encode(&page, Dialect::Prometheus).into_bytes(),
        Format::OpenMetrics => text::encode(&page, Dialect::OpenMetrics).into_bytes(),
        Format::Protobuf => protobuf::encode(&page),
    })
}
