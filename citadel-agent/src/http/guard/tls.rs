//! TLS of the listeners, and client certificates.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    SupportedCipherSuite, SupportedProtocolVersion,
};
use tokio_rustls::TlsAcceptor;
use x509_parser::extensions::GeneralName;

use crate::config::web::{ClientAuth, TlsServer, TlsVersion};
use crate::credentials::{certificates, certificates_in, private_key, private_key_in};

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key file cannot be used.
    #[error("{0}")]
    File(String),
    /// A cipher suite that rustls does not support.
    #[error("cipher_suites: there is no {name}; there are: {known}")]
    Suite {
        /// Its name in the file.
        name: String,
        /// The supported ones.
        known: String,
    },
    /// A curve that rustls does not support.
    #[error("curve_preferences: there is no {name}; there are: CurveP256, CurveP384, X25519")]
    Curve {
        /// Its name in the file.
        name: String,
    },
    /// The key does not match the certificate, or similar.
    #[error("{0}")]
    Setup(#[from] rustls::Error),
    /// The client CA certificates cannot be used.
    #[error("client_ca: {0}")]
    Authority(String),
}

/// The acceptor for `tls`; `None` if TLS is off.
pub(super) fn acceptor(tls: &TlsServer) -> Result<Option<TlsAcceptor>, TlsError> {
    if !tls.is_on() {
        return Ok(None);
    }
    let mut provider = ring::default_provider();
    provider.cipher_suites = suites(provider.cipher_suites, &tls.cipher_suites)?;
    provider.kx_groups = groups(provider.kx_groups, &tls.curve_preferences)?;
    let provider = Arc::new(provider);
    let certificate = match (&tls.cert_file, &tls.cert) {
        (Some(file), _) => certificates(file)?,
        (None, Some(text)) => certificates_in(text.as_bytes(), &"cert")?,
        (None, None) => return Ok(None),
    };
    let key = match (&tls.key_file, &tls.key) {
        (Some(file), _) => private_key(file)?,
        (None, text) => private_key_in(text.as_deref().unwrap_or_default().as_bytes(), &"key")?,
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(tls.min_version, tls.max_version))?;
    let builder = match tls.client_auth_type {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::IfGiven | ClientAuth::Required => {
            builder.with_client_cert_verifier(Arc::new(client_verifier(tls, &provider)?))
        }
    };
    let mut config = builder.with_single_cert(certificate, key)?;
    config.ignore_client_order = tls.prefer_server_cipher_suites && !tls.cipher_suites.is_empty();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

fn versions(min: TlsVersion, max: TlsVersion) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(TlsVersion::Tls13, &TLS13), (TlsVersion::Tls12, &TLS12)];
    all.into_iter().filter(|(version, _)| (min..=max).contains(version)).map(|(_, version)| version).collect()
}

/// All suites of TLS 1.3, and the named ones of TLS 1.2, in this order.
fn suites(all: Vec<SupportedCipherSuite>, names: &[String]) -> Result<Vec<SupportedCipherSuite>, TlsError> {
    if names.is_empty() {
        return Ok(all);
    }
    let name_of = |suite: &SupportedCipherSuite| format!("{:?}", suite.suite());
    let (mut chosen, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|suite| suite.tls13().is_some());
    for name in names {
        // Go has other names for those of TLS 1.3, and ignores them here.
        if name.starts_with("TLS_AES_") || name == "TLS_CHACHA20_POLY1305_SHA256" {
            continue;
        }
        // Go's older names of two suites omit the hash.
        let full = if name.ends_with("_CHACHA20_POLY1305") { format!("{name}_SHA256") } else { name.clone() };
        match others.iter().find(|suite| name_of(suite) == full) {
            Some(suite) => chosen.push(*suite),
            None => {
                let known = others.iter().map(name_of).collect::<Vec<_>>().join(", ");
                return Err(TlsError::Suite { name: name.clone(), known });
            }
        }
    }
    Ok(chosen)
}

fn groups(
    all: Vec<&'static dyn SupportedKxGroup>,
    names: &[String],
) -> Result<Vec<&'static dyn SupportedKxGroup>, TlsError> {
    use rustls::NamedGroup;
    if names.is_empty() {
        return Ok(all);
    }
    let group = |name: &String| {
        let wanted = match name.as_str() {
            "CurveP256" => NamedGroup::secp256r1,
            "CurveP384" => NamedGroup::secp384r1,
            "X25519" => NamedGroup::X25519,
            _ => return Err(TlsError::Curve { name: name.clone() }),
        };
        all.iter().find(|group| group.name() == wanted).copied().ok_or_else(|| TlsError::Curve { name: name.clone() })
    };
    names.iter().map(group).collect()
}

fn client_verifier(tls: &TlsServer, provider: &Arc<CryptoProvider>) -> Result<Verifier, TlsError> {
    let authorities = match (&tls.client_ca_file, &tls.client_ca) {
        (Some(file), _) => certificates(file)?,
        (None, text) => certificates_in(text.as_deref().unwrap_or_default().as_bytes(), &"client_ca")?,
    };
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|error| TlsError::Authority(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if tls.client_auth_type == ClientAuth::IfGiven { builder.allow_unauthenticated() } else { builder };
    let chain = builder.build().map_err(|error| TlsError::Authority(error.to_string()))?;
    Ok(Verifier { chain, names: tls.client_allowed_sans.clone() })
}

/// Verifies the chain of a client certificate, then that it has one of the names.
#[derive(Debug)]
struct Verifier {
    chain: Arc<dyn ClientCertVerifier>,
    names: Vec<String>,
}

impl ClientCertVerifier for Verifier {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        if self.names.is_empty() || names_of(end_entity).iter().any(|name| self.names.contains(name)) {
            return Ok(verified);
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn offer_client_auth(&self) -> bool {
        self.chain.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// The subject alternative names of a certificate, RFC 5280, section 4.2.1.6. Empty if they cannot be read.
fn names_of(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else { return Vec::new() };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            _ => None,
        },
        _ => None,
    };
    names.value.general_names.iter().filter_map(name).collect()
}
