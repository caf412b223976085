//! Content coding: gzip for clients that accept it, [RFC 9110, section
//! 12.5.3](https://www.rfc-editor.org/rfc/rfc9110#section-12.5.3).

use std::io::{self, Write as _};

use axum::http::HeaderMap;
use axum::http::header::ACCEPT_ENCODING;
use flate2::Compression;
use flate2::write::GzEncoder;

/// Content coding of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Coding {
    /// Uncompressed.
    Identity,
    Gzip,
}

/// The lowest level: metrics pages are so repetitive that it shrinks them to a tenth or less, and higher levels are not
/// worth their CPU time.
const LEVEL: Compression = Compression::fast();

impl Coding {
    /// gzip if the client accepts it and does not prefer identity.
    pub(super) fn negotiate(headers: &HeaderMap) -> Self {
        let (mut gzip, mut identity) = (0.0, 0.0);
        for value in headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()) {
            for element in value.split(',') {
                let (name, parameter) = element.split_once(';').unwrap_or((element, "q=1"));
                let weight = weight(parameter).unwrap_or(0.0);
                match name.trim() {
                    name if name.eq_ignore_ascii_case("gzip") => gzip = weight,
                    name if name.eq_ignore_ascii_case("identity") => identity = weight,
                    _ => {}
                }
            }
        }
        if gzip > 0.0 && gzip >= identity { Self::Gzip } else { Self::Identity }
    }

    /// Value of `Content-Encoding`, if any.
    pub(super) const fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
        }
    }

    /// Encodes a body.
    pub(super) fn encode(self, body: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            Self::Identity => Ok(body),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 16), LEVEL);
                encoder.write_all(&body)?;
                encoder.finish()
            }
        }
    }
}

/// The weight in `q=0.5`.
fn weight(parameter: &str) -> Option<f32> {
    let (name, value) = parameter.split_once('=')?;
    let weight = value.trim().parse().ok()?;
    (name.trim().eq_ignore_ascii_case("q") && (0.0..=1.0).contains(&weight)).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn only_who_names_gzip_gets_it() {
        for (fields, coding) in [
            (&[][..], Coding::Identity),
            (&["gzip"], Coding::Gzip),
            (&["deflate, GZip;q=0.5"], Coding::Gzip),
            (&["br", "gzip ; q=1.0"], Coding::Gzip),
            (&["gzip;q=0.5, identity"], Coding::Identity),
            (&["gzip, identity"], Coding::Gzip),
            (&["identity;q=0, gzip;q=0.1"], Coding::Gzip),
            (&["gzip;q=0"], Coding::Identity),
            (&["gzip;q=2"], Coding::Identity),
            (&["gzip;q=NaN"], Coding::Identity),
            (&["gzip;level=9"], Coding::Identity),
            (&["*"], Coding::Identity),
            (&["x-gzipped, zstd"], Coding::Identity),
            (&[",;,=", "\u{e9}"], Coding::Identity),
        ] {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(ACCEPT_ENCODING, HeaderValue::from_str(field).unwrap());
            }
            assert_eq!(Coding::negotiate(&headers), coding, "{fields:?}");
        }
    }
}
