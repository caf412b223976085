//! The web configuration file: TLS and access control of the listeners, in the format of Prometheus' exporter-toolkit.
//!
//! <https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md>. Settings
//! that the agent cannot apply are errors; none is silently ignored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bcrypt::HashParts;

use super::kind::{BOOLEAN, List, Mapping, Optional, Scalar, Span, TEXT, Words, string_like};
use super::mistakes::{ConfigErrors, Mistakes, quoted};
use super::section::{Section, part, section};
use super::tree::Node;
use super::value::{self, Kind, expected, kind};
use super::yaml::Yaml;
use super::{Empty, file};

section! {
    /// Requirements of the listeners; by default none, unencrypted.
    pub struct Web {
        /// TLS of the listeners.
        #[key = "tls_server_config"]
        tls: TlsServer = TlsServer::default(), part::<TlsServer>();
        /// HTTP beyond that.
        #[key = "http_server_config"]
        http: HttpServer = HttpServer::default(), part::<HttpServer>();
        /// Users for basic authentication: names and bcrypt hashes of passwords. Empty: everyone.
        #[key = "basic_auth_users"]
        users: BTreeMap<String, String> = BTreeMap::new(), USERS;
        /// Rate limit of all clients of a listener together.
        rate_limit: RateLimit = RateLimit::default(), part::<RateLimit>();
    }
}

section! {
    /// TLS of the listeners.
    pub struct TlsServer [check complete] {
        /// Server certificate chain, PEM.
        cert_file: Option<PathBuf> = None, Optional(FILE);
        /// The same, inline.
        cert: Option<String> = None, Optional(PEM);
        /// Private key, PEM.
        key_file: Option<PathBuf> = None, Optional(FILE);
        /// The same, inline.
        key: Option<String> = None, Optional(PEM);
        /// Which clients need a certificate.
        client_auth_type: ClientAuth = ClientAuth::None, CLIENT_AUTH;
        /// CA certificates for client certificates, PEM.
        client_ca_file: Option<PathBuf> = None, Optional(FILE);
        /// The same, inline.
        client_ca: Option<String> = None, Optional(PEM);
        /// Subject alternative names (DNS, IP address, e-mail, URI); a client certificate must have one of them. Empty: any.
        client_allowed_sans: Vec<String> = Vec::new(), List { of: TEXT, what: "names", most: 256 };
        /// Minimum TLS version.
        min_version: TlsVersion = TlsVersion::Tls12, Words(TlsVersion::WORDS);
        /// Maximum TLS version.
        max_version: TlsVersion = TlsVersion::Tls13, Words(TlsVersion::WORDS);
        /// Cipher suites for TLS 1.2; empty: all of rustls. Those of TLS 1.3 are always enabled.
        cipher_suites: Vec<String> = Vec::new(), List { of: TEXT, what: "names of cipher suites", most: 64 };
        /// Whether the order of `cipher_suites` takes precedence over the client's.
        prefer_server_cipher_suites: bool = true, BOOLEAN;
        /// Key exchange groups in order of preference; empty: all of rustls.
        curve_preferences: Vec<String> = Vec::new(), List { of: TEXT, what: "names of curves", most: 16 };
    }
}

section! {
    /// HTTP beyond TLS.
    pub struct HttpServer {
        /// Accepted for files that are shared with other exporters; the listeners use HTTP/1.1, which HTTP/2 clients fall back to.
        http2: bool = true, BOOLEAN;
        /// Header fields added to each response.
        headers: BTreeMap<String, String> = BTreeMap::new(), HEADERS;
    }
}

section! {
    /// A token bucket.
    pub struct RateLimit [check lets_any_in] {
        /// Time between two requests; `0`: no limit.
        interval: Duration = Duration::ZERO, Span("0s", "1h");
        /// Requests allowed at once.
        burst: u64 = 0, COUNT;
    }
}

/// Which clients need a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientAuth {
    /// None.
    None,
    /// None, but one that is shown must be right.
    IfGiven,
    /// All.
    Required,
}

impl ClientAuth {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("NoClientCert", Self::None),
        ("VerifyClientCertIfGiven", Self::IfGiven),
        ("RequireAndVerifyClientCert", Self::Required),
    ];
}

/// Versions of TLS.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TlsVersion {
    /// 1.2, RFC 5246.
    Tls12,
    /// 1.3, RFC 8446.
    Tls13,
}

impl TlsVersion {
    const WORDS: &'static [(&'static str, Self)] = &[("TLS12", Self::Tls12), ("TLS13", Self::Tls13)];
}

impl TlsServer {
    /// Whether the listeners speak TLS.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.cert_file.is_some() || self.cert.is_some()
    }
}

impl Web {
    /// Whether not everybody who reaches a port is answered.
    #[must_use]
    pub fn asks_who(&self) -> bool {
        !self.users.is_empty() || self.tls.client_auth_type == ClientAuth::Required
    }

    /// The files that it names, which may be renewed without it.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let TlsServer { cert_file, key_file, client_ca_file, .. } = &self.tls;
        [cert_file, key_file, client_ca_file].into_iter().filter_map(Option::as_deref)
    }
}

/// Loads and checks the web configuration file at `path`. Paths in it are relative to its directory.
///
/// # Errors
/// It cannot be read, is not YAML, is empty, or holds mistakes: all of them.
pub fn load(path: &Path) -> Result<Web, ConfigErrors> {
    let name = path.display().to_string();
    let text = file::read(path).map_err(|mistake| ConfigErrors::new(&name, vec![mistake]))?;
    let mut web = parse(&name, &text)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let TlsServer { cert_file, key_file, client_ca_file, .. } = &mut web.tls;
    for file in [cert_file, key_file, client_ca_file].into_iter().flatten() {
        *file = folder.join(&file);
    }
    Ok(web)
}

/// Checks `text`, which came from `name`.
///
/// # Errors
/// As [`load`].
pub fn parse(name: &str, text: &str) -> Result<Web, ConfigErrors> {
    super::parse_section(name, text, Empty::Mistake)
}

fn complete(tls: &TlsServer, section: &Section<'_>, mistakes: &mut Mistakes) {
    let both = [
        ("cert", tls.cert.is_some() && tls.cert_file.is_some()),
        ("key", tls.key.is_some() && tls.key_file.is_some()),
        ("client_ca", tls.client_ca.is_some() && tls.client_ca_file.is_some()),
    ];
    for (name, _) in both.into_iter().filter(|(_, both)| *both) {
        section.mistake(Some(name), format!("is set twice, as {name} and as {name}_file"), mistakes);
    }
    let right = |names: &[&str], mistakes: &Mistakes| names.iter().all(|name| section.is_right(name, mistakes));
    let (certificate, key) = (tls.is_on(), tls.key.is_some() || tls.key_file.is_some());
    if section.is_written() && right(&["cert", "cert_file", "key", "key_file"], mistakes) && !(certificate && key) {
        section.mistake(None, "needs cert_file and key_file, or cert and key", mistakes);
    }
    let authority = tls.client_ca.is_some() || tls.client_ca_file.is_some();
    if right(&["client_auth_type", "client_ca", "client_ca_file"], mistakes) {
        match (tls.client_auth_type, authority) {
            (ClientAuth::None, true) => {
                section.mistake(None, "has a client CA, but client_auth_type requests no certificate", mistakes);
            }
            (ClientAuth::IfGiven | ClientAuth::Required, false) => {
                section.mistake(Some("client_auth_type"), "needs client_ca_file or client_ca", mistakes);
            }
            _ => {}
        }
    }
    if !tls.client_allowed_sans.is_empty() && tls.client_auth_type != ClientAuth::Required {
        let message = "needs client_auth_type: RequireAndVerifyClientCert; otherwise clients need no certificate";
        section.mistake(Some("client_allowed_sans"), message, mistakes);
    }
    if tls.min_version > tls.max_version {
        section.mistake(Some("min_version"), "is newer than max_version", mistakes);
    }
}

fn lets_any_in(limit: &RateLimit, section: &Section<'_>, mistakes: &mut Mistakes) {
    if limit.burst == 0 && !limit.interval.is_zero() && section.is_right("burst", mistakes) {
        section.mistake(None, "needs a burst of at least 1; with 0, no request is answered", mistakes);
    }
}

/// The text of a PEM file.
const PEM: Scalar<String> = Scalar {
    text: "PEM text",
    schema: || string_like("-----BEGIN "),
    read: |node| match kind(node) {
        Kind::Str(text) => Ok(text.to_owned()),
        _ => Err(expected("the text of a PEM file", node)),
    },
    write: Yaml::text,
};

/// The name of a file, relative to the web configuration file or absolute.
const FILE: Scalar<PathBuf> = Scalar {
    text: "path",
    schema: || string_like("."),
    read: |node| value::string(node).map(PathBuf::from),
    write: |path| Yaml::text(&path.display()),
};

const COUNT: Scalar<u64> = Scalar {
    text: "number",
    schema: || serde_json::json!({"type": "integer", "minimum": 0}),
    read: value::count,
    write: |count| Yaml::text(count),
};

const CLIENT_AUTH: Scalar<ClientAuth> = Scalar {
    text: "`NoClientCert`, `VerifyClientCertIfGiven` or `RequireAndVerifyClientCert`",
    schema: || serde_json::json!({"enum": ClientAuth::WORDS.iter().map(|(word, _)| word).collect::<Vec<_>>()}),
    read: |node| match value::string(node)? {
        word @ ("RequestClientCert" | "RequireAnyClientCert") => Err(format!(
            "{word} does not verify certificates, so anyone can create one; use RequireAndVerifyClientCert or NoClientCert"
        )),
        _ => value::word(node, ClientAuth::WORDS),
    },
    write: |auth| {
        ClientAuth::WORDS.iter().find(|(_, other)| other == auth).map_or(Yaml::Null, |(word, _)| Yaml::text(word))
    },
};

/// Maximum bcrypt cost: a second and a half of CPU time.
const MAX_COST: u32 = 14;

const USERS: Mapping<Scalar<String>> = Mapping {
    text: "mapping of user names to bcrypt hashes",
    expected: "a mapping of user names to bcrypt hashes, or {} for none",
    most: 1000,
    name: user_name,
    value: Scalar { text: "bcrypt hash", schema: || string_like("^\\$2[abxy]\\$"), read: hash, write: Yaml::text },
};

fn user_name(name: &str) -> Result<String, String> {
    // RFC 7617, section 2: the first colon ends the name.
    if name.contains(':') {
        Err(format!("{} contains a colon, which basic authentication cannot send", quoted(name)))
    } else {
        Ok(name.to_owned())
    }
}

fn hash(node: &Node) -> Result<String, String> {
    let text = value::string(node)?;
    let parts: HashParts = text.parse().map_err(|_| {
        // What stands there may be the password itself.
        "is not a bcrypt hash; make one with: htpasswd -nBC 10 \"\" | tr -d ':\\n'".to_owned()
    })?;
    match parts.get_cost() {
        cost if cost > MAX_COST => {
            Err(format!("has cost {cost}; a cost above {MAX_COST} takes seconds of CPU time per attempt"))
        }
        _ => Ok(text.to_owned()),
    }
}

/// The header fields that may be set: none that says what the response itself is.
const HEADER_NAMES: [&str; 5] = [
    "content-security-policy",
    "strict-transport-security",
    "x-content-type-options",
    "x-frame-options",
    "x-xss-protection",
];

const HEADERS: Mapping<Scalar<String>> = Mapping {
    text: "mapping of header names to values",
    expected: "a mapping of header names to values, or {} for none",
    most: HEADER_NAMES.len(),
    name: |written| {
        let name = written.to_lowercase();
        if HEADER_NAMES.contains(&name.as_str()) {
            Ok(name)
        } else {
            Err(format!("{} cannot be set; these can: {}", quoted(written), HEADER_NAMES.join(", ")))
        }
    },
    value: Scalar { read: value::header_value, ..TEXT },
};

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG";

    #[test]
    fn the_toolkits_own_example_is_taken() {
        let text = format!(
            "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\nbasic_auth_users:\n  alice: {HASH}\n\
             rate_limit:\n  interval: \"1s\"\n  burst: 20\nhttp_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n"
        );
        let web = parse("web.yml", &text).unwrap();
        assert!(web.tls.is_on() && web.asks_who());
        assert_eq!(web.users["alice"], HASH);
        assert_eq!((web.rate_limit.interval, web.rate_limit.burst), (Duration::from_secs(1), 20));
        assert_eq!(web.http.headers["x-frame-options"], "deny");
        assert_eq!(web.tls.min_version, TlsVersion::Tls12);
    }

    #[test]
    fn names_of_files_are_relative_to_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.yml");
        std::fs::write(&path, "tls_server_config: {cert_file: a.pem, key_file: /etc/b.pem}\n").unwrap();
        let web = load(&path).unwrap();
        assert_eq!(web.files().collect::<Vec<_>>(), [&*folder.path().join("a.pem"), Path::new("/etc/b.pem")]);
        assert!(load(&folder.path().join("none")).unwrap_err().to_string().contains("no such file"));
    }

    #[test]
    fn what_would_let_in_more_than_is_meant_is_a_mistake() {
        for (text, part) in [
            ("", "empty"),
            ("tls_server_config: {}", "needs cert_file and key_file"),
            ("tls_server_config: {cert_file: a}", "needs cert_file and key_file"),
            ("tls_server_config: {cert_file: a, cert: b, key_file: c}", "is set twice"),
            (
                "tls_server_config: {cert_file: a, key_file: b, client_auth_type: RequireAnyClientCert}",
                "anyone can create one",
            ),
            (
                "tls_server_config: {cert_file: a, key_file: b, client_auth_type: RequireAndVerifyClientCert}",
                "needs client_ca_file",
            ),
            ("tls_server_config: {cert_file: a, key_file: b, client_ca_file: c}", "requests no certificate"),
            ("tls_server_config: {cert_file: a, key_file: b, client_allowed_sans: [x]}", "needs client_auth_type"),
            ("tls_server_config: {cert_file: a, key_file: b, min_version: TLS10}", "TLS12"),
            ("tls_server_config: {cert_file: a, key_file: b, min_version: TLS13, max_version: TLS12}", "newer"),
            ("basic_auth_users: {alice: secret}", "is not a bcrypt hash"),
            ("basic_auth_users: {alice: $2y$15$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG}", "cost 15"),
            ("basic_auth_users: {\"a:b\": $2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG}", "colon"),
            ("basic_auth_user: {}", "did you mean \"basic_auth_users\""),
            ("http_server_config: {headers: {Content-Type: text/plain}}", "cannot be set"),
            ("rate_limit: {interval: 2h}", "1h"),
            ("rate_limit: {interval: 1s}", "needs a burst"),
        ] {
            let found = parse("web.yml", text).unwrap_err().to_string();
            assert!(found.contains(part), "{text}: {found}");
            assert!(!found.contains("secret"), "a password is shown: {found}");
        }
    }
}
