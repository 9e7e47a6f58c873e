//! TLS 1.3, with ring, over the HTTP client's TCP connection; certificates and keys from PEM, checked before anything is built on them.
//!
//! The HTTP client's own connector is not used: it brings TLS 1.2, and log lines of everything that rustls does.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned};
use ureq::unversioned::transport::time::Instant;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter};

/// Whom to trust, and who we are.
pub(crate) enum Trust {
    /// Servers with a certificate of one of these authorities.
    Roots(RootCertStore),
    /// Any server, by the user's wish.
    Anybody,
}

/// The client's certificates, and the key of the first.
pub(crate) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Puts TLS over connections to servers that want it.
#[derive(Debug)]
pub(crate) struct TlsConnector {
    config: Arc<ClientConfig>,
}

impl TlsConnector {
    /// The error is one sentence.
    pub(crate) fn new(trust: Trust, identity: Option<Identity>) -> Result<Self, String> {
        // Handed over explicitly: there is no process-wide default.
        let provider = Arc::new(ring::default_provider());
        let anybody = Anybody(provider.signature_verification_algorithms);
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).map_err(|error| error.to_string())?;
        let builder = match trust {
            Trust::Roots(roots) => builder.with_root_certificates(roots),
            Trust::Anybody => builder.dangerous().with_custom_certificate_verifier(Arc::new(anybody)),
        };
        let config = match identity {
            // The error could quote the key's bytes, so it is not passed on.
            Some((chain, key)) => {
                builder.with_client_auth_cert(chain, key).map_err(|_| "certificate and key do not belong together".to_owned())?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self { config: Arc::new(config) })
    }
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let host = details.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let mut conn = ClientConnection::new(Arc::clone(&self.config), name).map_err(io::Error::other)?;
        let mut sock = TransportAdapter::new(transport.boxed(), Arc::clone(&details.current_time));
        sock.set_timeout(left(details));
        conn.complete_io(&mut sock)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(TlsTransport { buffers, stream: StreamOwned { conn, sock } })))
    }
}

/// What connecting has left of its time: TLS does not begin anew.
fn left(details: &ConnectionDetails<'_>) -> NextTimeout {
    let mut timeout = details.timeout;
    if let (Instant::Exact(start), Instant::Exact(now)) = (details.now, (details.current_time)())
        && !timeout.after.is_not_happening()
    {
        timeout.after = timeout.after.saturating_sub(now.saturating_duration_since(start)).into();
    }
    timeout
}

/// A connection under TLS.
pub(crate) struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTransport")
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        Ok(self.stream.write_all(&self.buffers.output()[..amount])?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

/// Takes any certificate, but only from someone who has its key.
#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Certificate authorities; at least one of them is usable.
pub(crate) fn read_roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(read_certificates(pem)?);
    if usable == 0 { Err("holds no usable certificate".to_owned()) } else { Ok(roots) }
}

/// The client's certificates and key. Whether they belong together [`TlsConnector::new`] tells.
pub(crate) fn read_identity(certificate: &[u8], key: &[u8]) -> Result<Identity, String> {
    let chain = read_certificates(certificate)?;
    // The error could quote the key's bytes, so it is not passed on.
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|_| "holds no private key in PEM (encrypted keys are not supported)".to_owned())?;
    Ok((chain, key))
}

fn read_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates =
        CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|_| "holds no readable PEM".to_owned())?;
    if certificates.is_empty() { Err("holds no certificate in PEM".to_owned()) } else { Ok(certificates) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::scripted::testdata;

    #[test]
    fn roots_and_identities_are_checked() {
        assert_eq!(read_roots(testdata::CA).map(|roots| roots.len()), Ok(1));
        for bad in ["", "junk", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\n!!"] {
            assert!(read_roots(bad.as_bytes()).is_err(), "{bad:?}");
        }
        let connector = |key| TlsConnector::new(Trust::Anybody, Some(read_identity(testdata::CLIENT, key).expect("PEM")));
        assert!(connector(testdata::CLIENT_KEY).is_ok());
        assert!(connector(testdata::SERVER_KEY).is_err());
        assert!(read_identity(testdata::CLIENT, b"junk").is_err());
    }
}
