//! TLS 1.3, with ring, over the HTTP client's TCP connection.
//!
//! The HTTP client's own connector is not used: it brings TLS 1.2, and logs everything that rustls does.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use ureq::unversioned::transport::time::Instant;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, Either, NextTimeout, Transport, TransportAdapter};

use super::crypto;
use super::trust::Trust;

/// Most that is held of an answer before it is taken, and of a request before it is sent; also the longest head of both.
const BUFFER: usize = 16 * 1024;
/// Bytes that are read at first. The room for them is allocated even while nothing comes.
const PIECE: usize = 512;
/// What the HTTP client wants as room for the next piece of a body that it sends.
const BODY_PIECE: usize = 10 * 1024;

/// Puts TLS over connections to servers that want it. Clones share what was read from certificates, and the server's tickets.
#[derive(Clone, Debug)]
pub(super) struct TlsConnector {
    config: Arc<ClientConfig>,
    /// Name of the server's certificate, if not the address' own.
    name: Option<ServerName<'static>>,
}

impl TlsConnector {
    /// The error is one sentence.
    pub(super) fn new(trust: Trust, identity: Option<Arc<SingleCertAndKey>>, name: Option<ServerName<'static>>) -> Result<Self, String> {
        let provider = Arc::new(crypto::provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).map_err(|error| error.to_string())?;
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(trust));
        let config = match identity {
            Some(identity) => builder.with_client_cert_resolver(identity),
            None => builder.with_no_client_auth(),
        };
        Ok(Self { config: Arc::new(config), name })
    }
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let name = match &self.name {
            Some(name) => name.clone(),
            None => {
                let host = details.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
                ServerName::try_from(host.to_owned()).map_err(io::Error::other)?
            }
        };
        let mut conn = ClientConnection::new(Arc::clone(&self.config), name).map_err(io::Error::other)?;
        let mut sock = TransportAdapter::new(transport.boxed(), Arc::clone(&details.current_time));
        sock.set_timeout(left(details));
        conn.complete_io(&mut sock).map_err(|error| match ureq::Error::from(error) {
            ureq::Error::Io(error) => ureq::Error::Other(Box::new(HandshakeError(error))),
            other => other,
        })?;
        Ok(Some(Either::B(TlsTransport { buffers: Passing::default(), stream: StreamOwned { conn, sock } })))
    }
}

/// There is no TLS with the server. Nothing was sent.
#[derive(Debug)]
pub(super) struct HandshakeError(pub io::Error);

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS handshake: {}", self.0)
    }
}

impl std::error::Error for HandshakeError {}

/// What connecting has left of its time: TLS does not start again from zero.
pub(super) fn left(details: &ConnectionDetails<'_>) -> NextTimeout {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
