//! TLS 1.3, with ring, over the HTTP client's TCP connection; certificates and keys from PEM, checked before anything is built on
//! them.
//!
//! The HTTP client's own connector is not used: it brings TLS 1.2, and logs everything that rustls does.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned};
use ureq::unversioned::transport::time::Instant;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, Either, NextTimeout, Transport, TransportAdapter};

use super::crypto;

/// Most that is held of an answer before it is taken, and of a request before it is sent; also the longest head of both.
const BUFFER: usize = 16 * 1024;
/// Bytes that are read at first. The room for them is allocated even while nothing comes.
const PIECE: usize = 512;
/// What the HTTP client wants as room for the next piece of a body that it sends.
const BODY_PIECE: usize = 10 * 1024;

/// Whom to trust, and who we are.
pub(crate) enum Trust {
    /// Servers with a certificate of one of these authorities.
    Roots(RootCertStore),
    /// Any server, by the user's wish.
    Anybody,
}

/// The client's certificates, and the key of the first.
pub(crate) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Puts TLS over connections to servers that want it. Clones share what was read from certificates, and the server's tickets.
#[derive(Clone, Debug)]
pub(crate) struct TlsConnector {
    config: Arc<ClientConfig>,
}

impl TlsConnector {
    /// The error is one sentence.
    pub(crate) fn new(trust: Trust, identity: Option<Identity>) -> Result<Self, String> {
        let provider = Arc::new(crypto::provider());
        let anybody = Anybody(provider.signature_verification_algorithms);
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).map_err(|error| error.to_string())?;
        let builder = match trust {
            Trust::Roots(roots) => builder.with_root_certificates(roots),
            Trust::Anybody => builder.dangerous().with_custom_certificate_verifier(Arc::new(anybody)),
        };
        let config = match identity {
            // The error could quote the key's bytes, so it is not passed on.
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|_| "certificate and key do not match".to_owned())?,
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
        Ok(Some(Either::B(TlsTransport { buffers: Passing::default(), stream: StreamOwned { conn, sock } })))
    }
}

/// What connecting has left of its time: TLS does not start again from zero.
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
    buffers: Passing,
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
        let output = std::mem::take(&mut self.buffers.output);
        Ok(self.stream.write_all(&output[..amount])?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        // Not into the buffers: they need not be there while nothing comes in.
        let mut piece = [0; PIECE];
        let free = BUFFER.saturating_sub(self.buffers.input().len()).min(PIECE);
        let amount = self.stream.read(&mut piece[..free])?;
        self.buffers.append(&piece[..amount]);
        if amount == PIECE {
            // More may have come with it. An error will be met again by the next who waits.
            let more = self.stream.conn.reader().read(self.buffers.input_append_buf()).unwrap_or(0);
            self.buffers.input_appended(more);
        }
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

/// Buffers that are allocated only while they hold something. Most connections of an operator wait for hours.
#[derive(Debug, Default)]
struct Passing {
    /// From `start` to `end` is what has come in and was not taken.
    input: Vec<u8>,
    start: usize,
    end: usize,
    output: Vec<u8>,
    /// The last that was taken was more than nothing.
    has_progressed: bool,
}

impl Passing {
    fn append(&mut self, piece: &[u8]) {
        self.make_room(piece.len());
        self.input[self.end..self.end + piece.len()].copy_from_slice(piece);
        self.end += piece.len();
    }

    /// At least so many bytes after `end`.
    fn make_room(&mut self, amount: usize) {
        self.input.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.input.len() < self.end + amount {
            self.input.resize(self.end + amount, 0);
        }
    }
}

impl Buffers for Passing {
    fn output(&mut self) -> &mut [u8] {
        self.output.resize(BUFFER, 0);
        &mut self.output
    }

    fn input(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        self.make_room(BUFFER.saturating_sub(self.end - self.start));
        &mut self.input[self.end..]
    }

    fn input_appended(&mut self, amount: usize) {
        self.end += amount;
    }

    fn input_consume(&mut self, amount: usize) {
        self.has_progressed = amount > 0;
        self.start += amount;
        if self.start == self.end {
            (self.input, self.start, self.end) = (Vec::new(), 0, 0);
        }
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        self.make_room(BODY_PIECE);
        self.output.resize(BUFFER, 0);
        (&mut self.input[self.end..], &mut self.output)
    }

    fn can_use_input(&self) -> bool {
        self.start < self.end && self.has_progressed
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
        Err(rustls::Error::General("TLS 1.2 is not supported".to_owned()))
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
    if usable == 0 { Err("contains no usable certificate".to_owned()) } else { Ok(roots) }
}

/// The client's certificates and key. Whether they match is checked by [`TlsConnector::new`].
pub(crate) fn read_identity(certificate: &[u8], key: &[u8]) -> Result<Identity, String> {
    let chain = read_certificates(certificate)?;
    // The error could quote the key's bytes, so it is not passed on.
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|_| "contains no PEM private key (encrypted keys are not supported)".to_owned())?;
    Ok((chain, key))
}

fn read_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|_| "is not valid PEM".to_owned())?;
    if certificates.is_empty() { Err("contains no PEM certificate".to_owned()) } else { Ok(certificates) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::scripted::testdata;

    #[test]
    fn buffers_pass_everything_on_and_keep_nothing() {
        let mut buffers = Passing::default();
        buffers.append(b"abc");
        assert!(!buffers.can_use_input(), "nothing of it was taken yet");
        buffers.input_consume(0);
        assert!(!buffers.can_use_input());
        buffers.input_consume(1);
        assert!(buffers.can_use_input());
        buffers.append(b"def");
        assert_eq!(buffers.input(), b"bcdef");
        let free = buffers.input_append_buf();
        assert_eq!(free.len(), BUFFER - 5);
        free[0] = b'g';
        buffers.input_appended(1);
        assert_eq!(buffers.output().len(), BUFFER);
        assert_eq!(buffers.input(), b"bcdefg");
        let (piece, output) = buffers.tmp_and_output();
        assert!(piece.len() >= BODY_PIECE && output.len() == BUFFER);
        assert_eq!(buffers.input(), b"bcdefg");
        buffers.input_consume(6);
        assert_eq!((buffers.input.capacity(), buffers.input().len(), buffers.can_use_input()), (0, 0, false));
    }

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
