//! Whom we trust: the servers with a certificate that an authority of ours has signed, and the one whose very certificate we were given.
//!
//! The library's own check of a server knows authorities only, and lists of revoked certificates that nobody gives us.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::crypto::SIGNATURES;

/// Which servers are taken.
#[derive(Debug)]
pub(super) enum Trust {
    /// Those that these vouch for.
    Listed(Authorities),
    /// Any server, by the user's wish.
    Anybody,
}

/// The certificates of a CA field: authorities, or a server's own.
#[derive(Debug)]
pub(super) struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    roots: RootCertStore,
}

impl Authorities {
    /// From PEM. What cannot be read in it is left out, as kubectl does, as long as there is one that can; the error is one sentence.
    pub(super) fn read(pem: &[u8]) -> Result<Self, String> {
        let blocks: Vec<_> = CertificateDer::pem_slice_iter(pem).collect();
        let certificates: Vec<_> = blocks.iter().flatten().cloned().collect();
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(certificates.iter().cloned());
        match (usable, blocks.is_empty()) {
            (0, true) => return Err("contains no PEM certificate".to_owned()),
            (0, false) => return Err("contains no usable certificate".to_owned()),
            (_, _) if usable < blocks.len() => {
                log::warn!(unusable = blocks.len() - usable, usable; "some certificates of the authorities cannot be read; left out");
            }
            (_, _) => {}
        }
        Ok(Self { certificates, roots })
    }

    fn check(&self, server: &CertificateDer<'_>, chain: &[CertificateDer<'_>], name: &ServerName<'_>, now: UnixTime) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(server)?;
        match verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, chain, now, SIGNATURES.all) {
            // Its times have been checked before: that comes first (a test holds it).
            Err(error) if is_about_its_issuer(&error) && self.certificates.contains(server) => {}
            other => other?,
        }
        verify_server_name(&parsed, name)
    }
}

/// Nothing is wrong with the certificate itself, for someone who trusts it as it is.
fn is_about_its_issuer(error: &Error) -> bool {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => true,
        Error::InvalidCertificate(CertificateError::Other(other)) => {
            matches!(other.0.downcast_ref::<webpki::Error>(), Some(webpki::Error::CaUsedAsEndEntity))
        }
        _ => false,
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self {
            Self::Listed(authorities) => authorities.check(end_entity, intermediates, name, now)?,
            Self::Anybody => {}
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not supported".to_owned()))
    }

    /// Also of a server that is not checked otherwise: its certificate counts only with its key.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &SIGNATURES)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SIGNATURES.supported_schemes()
    }
}
