//! Metrics: the catalogue, the families that sources fill, and their encodings.
//!
//! A scrape is a [`Page`] in, bytes out: [`encode`] sorts and checks it and writes it in the
//! [`Format`] that the client asked for. Nothing is kept between scrapes.

pub(crate) mod buckets;
pub mod catalogue;
pub mod docs;
pub mod exposition;
pub mod family;
pub mod foreign;
pub mod format;
pub mod protobuf;
mod text;

use family::{Page, PageError};
use format::Format;

/// The whole page in `format`, in memory, so that an error never leaves half a page behind.
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
