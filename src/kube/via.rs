//! The way through a proxy: asks it for a connection to the API server, over a connection to the proxy.
//!
//! The HTTP client's own connectors are not used: they take the server's name from the URL, read the environment, speak every version of
//! SOCKS, and cost 12 KB more.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ureq::unversioned::transport::{ConnectionDetails, Connector, Either, Transport, TransportAdapter};

use super::config::{Proxy, ProxyLogin, ProxyProtocol, Server};
use super::tls::left;

/// Longest head of a proxy's answer in bytes.
const HEAD_MAX: usize = 8 * 1024;

/// Makes a connection to the proxy one to the server. Without a proxy the connection stays as it is.
#[derive(Debug)]
pub(super) struct ProxyConnector {
    pub(super) proxy: Option<Proxy>,
    pub(super) server: Server,
}

impl<In: Transport> Connector<In> for ProxyConnector {
    type Out = Either<In, Box<dyn Transport>>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        let Some(proxy) = &self.proxy else { return Ok(Some(Either::A(transport))) };
        let mut stream = TransportAdapter::new(transport.boxed(), Arc::clone(&details.current_time));
        stream.set_timeout(left(details));
        let result = match proxy.protocol {
            ProxyProtocol::Http => connect(&mut stream, &self.server, proxy.login.as_ref()),
            ProxyProtocol::Socks5 => socks5(&mut stream, &self.server, proxy.login.as_ref()),
        };
        result.map_err(|error| match ureq::Error::from(error) {
            ureq::Error::Io(error) => ureq::Error::ConnectProxyFailed(error.to_string()),
            other => other,
        })?;
        Ok(Some(Either::B(stream.into_inner())))
    }
}

/// RFC 9110, section 9.3.6.
fn connect(stream: &mut (impl Read + Write), server: &Server, login: Option<&ProxyLogin>) -> io::Result<()> {
    let target = server.authority();
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(ProxyLogin { user, password }) = login {
        request += &format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(format!("{user}:{password}")));
    }
    stream.write_all((request + "\r\n").as_bytes())?;
    // Byte by byte: what follows is the server's.
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\n\r\n") && !head.ends_with(b"\n\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
        if head.len() > HEAD_MAX {
            return Err(io::Error::other("its answer is too long"));
        }
    }
    let line = String::from_utf8_lossy(&head);
    match line.split([' ', '\r', '\n']).nth(1) {
        Some(status) if status.starts_with('2') => Ok(()),
        Some(status) if line.starts_with("HTTP/1.") => Err(io::Error::other(format!("it answers {status}"))),
        _ => Err(io::Error::other("it does not speak HTTP")),
    }
}

/// RFC 1928, and RFC 1929 for the login.
fn socks5(stream: &mut (impl Read + Write), server: &Server, login: Option<&ProxyLogin>) -> io::Result<()> {
    const NO_LOGIN: u8 = 0;
    const LOGIN: u8 = 2;
    // Some proxies want no login of some clients, and choose.
    stream.write_all(if login.is_some() { &[5, 2, NO_LOGIN, LOGIN] } else { &[5, 1, NO_LOGIN] })?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer)?;
    let login = match (answer, login) {
        ([5, NO_LOGIN], _) => None,
        ([5, LOGIN], Some(login)) => Some(login),
        _ => return Err(io::Error::other("it does not speak SOCKS 5, or wants another kind of login")),
    };
    if let Some(ProxyLogin { user, password }) = login {
        let mut request = vec![1];
        push_short(&mut request, user)?;
        push_short(&mut request, password)?;
        stream.write_all(&request)?;
        stream.read_exact(&mut answer)?;
        if answer[1] != 0 {
            return Err(io::Error::other("it refuses the login"));
        }
    }
    let mut request = vec![5, 1, 0];
    match server.host.parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(1);
            request.extend_from_slice(&address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(4);
            request.extend_from_slice(&address.octets());
        }
        Err(_) => {
            request.push(3);
            push_short(&mut request, &server.host)?;
        }
    }
    request.extend_from_slice(&server.port.to_be_bytes());
    stream.write_all(&request)?;
    let mut reply = [0; 5];
    stream.read_exact(&mut reply)?;
    if reply[1] != 0 {
        return Err(io::Error::other(format!("it cannot connect, reply {}", reply[1])));
    }
    // The rest of its address, and the port: of no use here.
    let rest = match reply[3] {
        1 => 4 + 2 - 1,
        4 => 16 + 2 - 1,
        _ => usize::from(reply[4]) + 2,
    };
    stream.read_exact(&mut vec![0; rest])
}

/// A text after its length in one byte.
fn push_short(request: &mut Vec<u8>, text: &str) -> io::Result<()> {
    request.push(u8::try_from(text.len()).map_err(|_| io::Error::other("a name is too long for it"))?);
    request.extend_from_slice(text.as_bytes());
    Ok(())
}
