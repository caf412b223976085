//! Credential, certificate and key files: size-limited, and reloaded when they change.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::host::files::{read_whole, read_whole_text};

/// Maximum size of a credential or certificate file; a host's whole CA bundle is a quarter of this.
const LARGEST: usize = 1 << 20;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// It has invalid content.
    #[error("{from} contains no {what}: {error}")]
    Content {
        /// The file, or the configuration key that holds the text itself.
        from: String,
        /// Expected content.
        what: &'static str,
        error: String,
    },
}

/// Reads the file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    read_whole(path, LARGEST).map_err(|error| FileError::Read { path: path.to_owned(), error })
}

/// Reads the file as text.
pub(crate) fn text(path: &Path) -> Result<String, FileError> {
    read_whole_text(path, LARGEST).map_err(|error| FileError::Read { path: path.to_owned(), error })
}

/// The certificates in a PEM file, in its order: at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    certificates_in(&read(path)?, &path.display())
}

/// The certificates in a PEM text that came from `from`.
pub(crate) fn certificates_in(pem: &[u8], from: &dyn Display) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| content(from, "certificate", &error))?;
    if found.is_empty() { Err(content(from, "certificate", &"no PEM block of this kind")) } else { Ok(found) }
}

/// The private key in a PEM file.
pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    private_key_in(&read(path)?, &path.display())
}

/// The private key in a PEM text that came from `from`.
pub(crate) fn private_key_in(pem: &[u8], from: &dyn Display) -> Result<PrivateKeyDer<'static>, FileError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| content(from, "private key", &error))
}

fn content(from: &dyn Display, what: &'static str, error: &dyn Display) -> FileError {
    FileError::Content { from: from.to_string(), what, error: error.to_string() }
}
