//! How a receiver lets the agent in.

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
}
