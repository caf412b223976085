//! How models are probed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// What of one model is probed otherwise; `None`: as of all others.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Own {
    /// The paths to ask.
    pub health_endpoints: Option<HealthEndpoints>,
    /// How often.
    pub health_interval: Option<Duration>,
    /// How long an answer may take.
    pub health_timeout: Option<Duration>,
    /// How the server lets the agent in.
    pub access: Access,
}

/// Which paths are asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HealthEndpoints {
    /// What the server answers without work.
    Auto,
    /// These.
    Listed(Vec<String>),
}

/// How a model's server lets the agent in.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Access {
    /// Whether it speaks TLS.
    pub scheme: Scheme,
    /// The name by which it is asked, and that its certificate must be for; `None`: `localhost`.
    pub server_name: Option<String>,
    /// CAs to trust, PEM.
    pub ca_file: Option<PathBuf>,
    /// The only certificates to accept, PEM.
    pub certificate_file: Option<PathBuf>,
    /// File that holds an API key, sent as a bearer token.
    pub api_key_file: Option<PathBuf>,
    /// Further header fields.
    pub headers: BTreeMap<String, String>,
}

impl Access {
    /// Whether requests carry what others must not see.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        self.api_key_file.is_some() || !self.headers.is_empty()
    }
}

/// Whether a server speaks TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Scheme {
    /// As it turns out.
    #[default]
    Auto,
    /// It does not.
    Http,
    /// It does.
    Https,
}

impl Scheme {
    /// How it is written.
    pub const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("http", Self::Http), ("https", Self::Https)];
}
