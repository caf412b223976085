//! TLS to receivers: trusted CAs, and the client certificate.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use crate::config::resolved::Access;
use crate::credentials::{self, FileError};

/// Why TLS cannot be set up. Treated like any outage, because a missing file may appear later.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The host has no CA certificates.
    #[error("cannot read the host's CA certificates: {0}")]
    Store(String),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

/// TLS configuration of `access`. If `encrypted` is false, TLS is not needed and the host's CAs are not loaded.
pub(super) fn config(access: &Access, encrypted: bool) -> Result<ClientConfig, TlsError> {
    let roots = match (&access.ca_file, encrypted) {
        (_, false) => RootCertStore::empty(),
        (Some(file), true) => from_file(file)?,
        (None, true) => from_host()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match (&access.cert_file, &access.key_file) {
        (Some(certificate), Some(key)) if encrypted => {
            builder.with_client_auth_cert(credentials::certificates(certificate)?, credentials::private_key(key)?)?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn from_file(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in credentials::certificates(file)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

fn from_host() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    // Stores can contain certificates that the library does not support; it is enough that some are valid.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let error = found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(TlsError::Store(error));
    }
    Ok(roots)
}
