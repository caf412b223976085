//! How a receiver lets the agent in.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Credentials and trust; all `None`: none, and the CAs of the host.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Access {
    /// User name of basic authentication.
    pub username: Option<String>,
    /// File that holds its password.
    pub password_file: Option<PathBuf>,
    /// File that holds a bearer token.
    pub bearer_token_file: Option<PathBuf>,
    /// File of the CAs to trust, PEM, instead of the host's.
    pub ca_file: Option<PathBuf>,
    /// File of the certificate that the agent shows, and of those between it and its CA, PEM.
    pub cert_file: Option<PathBuf>,
    /// File of its private key.
    pub key_file: Option<PathBuf>,
    /// Further header fields, names in lower case.
    pub headers: BTreeMap<String, String>,
}
