//! TLS to receivers: which CAs are trusted, and who the agent says that it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::files::{self, FileError};
use crate::config::resolved::Access;

/// Why there is no TLS: an outage like any other, because the file may come yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The host has no CAs.
    #[error("cannot read CA certificates from this host's store: {0}")]
    Store(String),
    /// A file does not hold what it should.
    #[error("{} holds no {what}: {error}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What is wrong.
        error: String,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

/// TLS as `access` says; `encrypted`: whether it will be needed at all, which keeps the host's CAs out of memory where not.
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
    // Stores hold certificates that no library takes; what matters is that there are any.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let error = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
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
