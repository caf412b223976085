//! TLS to a model's server on this host.
//!
//! A process that can bind the port could also answer in plain text, so an untrusted certificate is no worse than none:
//! without credentials to protect, any certificate is accepted. Credentials are sent only to a server whose certificate
//! is verified.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use crate::config::resolved::probing::Access;
use crate::credentials::certificates;

/// Creates a TLS connector with the configured trust.
///
/// # Errors
/// A certificate file cannot be read, or contains none.
pub(super) fn connector(access: &Access) -> io::Result<TlsConnector> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let any = |only| Verifier { only, provider };
    let config = match (&access.certificate_file, &access.ca_file) {
        (Some(file), _) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(any(Some(certificates(file).map_err(io::Error::other)?)))),
        (None, Some(file)) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates(file).map_err(io::Error::other)?);
            builder.with_root_certificates(roots)
        }
        (None, None) if access.has_credentials() => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            builder.with_root_certificates(roots)
        }
        (None, None) => builder.dangerous().with_custom_certificate_verifier(Arc::new(any(None))),
    };
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Accepts one of these certificates, or any; possession of the private key is always verified.
#[derive(Debug)]
struct Verifier {
    only: Option<Vec<CertificateDer<'static>>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.only {
            Some(only) if !only.iter().any(|one| one.as_ref() == end_entity.as_ref()) => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
