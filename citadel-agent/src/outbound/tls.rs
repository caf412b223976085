//! TLS to receivers: trusted CAs, and the client certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::files::{self, FileError};
use crate::config::resolved::Access;

/// Why TLS cannot be set up. Treated like any outage, because a missing file may appear later.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The host has no CA certificates.
    #[error("cannot read the host's CA certificates: {0}")]
    Store(String),
    /// A file has invalid content.
    #[error("{} contains no {what}: {error}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Expected content.
        what: &'static str,
        /// The error.
        error: String,
    },
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
            let secret = files::read(key)?;
            let secret = PrivateKeyDer::from_pem_slice(&secret).map_err(|error| content(key, "private key", &error))?;
            builder.with_client_auth_cert(certificates(certificate)?, secret)?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn from_file(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
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

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = files::read(file)?;
    let found = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| content(file, "certificate", &error))?;
    match found.is_empty() {
        true => Err(content(file, "certificate", &"no PEM block of this kind")),
        false => Ok(found),
    }
}

fn content(path: &Path, what: &'static str, error: &dyn std::fmt::Display) -> TlsError {
    TlsError::Content { path: path.to_owned(), what, error: error.to_string() }
}
