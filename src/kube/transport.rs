//! One HTTP exchange. The only file that names ureq, besides `tls` and `via`, which give it TLS and a proxy.
//!
//! Promises: an answer's status is never turned into an error; no redirect is followed, no proxy used but the configured one; nothing
//! waits without a limit; `shutdown` unblocks every blocked read; certificates that are files are read again when they have changed.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use ureq::config::AutoHeaderValue;
use ureq::http::{HeaderMap, HeaderValue, header};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Connector as _, NextTimeout, TcpConnector};

use super::config::{Auth, ClientCert, ClientCertPem, Config, ConfigError, Pem, PluginPatience, Proxy, Server};
use super::request::{ContentType, Method};
use super::tls::{HandshakeError, TlsConnector};
use super::trust::{Authorities, Trust};
use super::via::ProxyConnector;
use super::{explain, identity};

/// Time for connecting, TLS included. Three SYNs, and a slow machine's handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Buffers of a connection, each way, and the longest head of an answer. ureq's 128 KiB would be most of the memory of an idle operator.
const BUFFER: usize = 16 * 1024;
/// Buffers of a connection under TLS, in and out. `tls` holds the decrypted data, but only while there is any.
const UNDER_TLS: (usize, usize) = (2 * 1024, 1024);
/// Idle connections older than this are not used again; the API server drops them after 90 s.
const MAX_IDLE_AGE: Duration = Duration::from_secs(60);
/// Time for which a name's addresses are kept: every request would look them up.
const RESOLVED_FOR: Duration = Duration::from_secs(10);
/// Time for which the files of a client certificate are not read again.
const IDENTITY_FOR: Duration = Duration::from_secs(10);

/// Time limits of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The client's usual limit on the whole exchange, body included.
    Call,
    /// This limit on the whole exchange.
    Within(Duration),
    /// A body without end: a limit on the wait for the status line and one on each silence after it.
    Stream {
        /// Until the answer's headers are in.
        headers: Duration,
        /// Between two reads.
        idle: Duration,
    },
}

/// A request as it is sent on the wire.
#[derive(Debug)]
pub struct HttpRequest<'a> {
    /// HTTP method.
    pub method: Method,
    /// Encoded, with a leading slash, without the server's prefix.
    pub path_and_query: String,
    /// `Accept`.
    pub accept: &'static str,
    /// `Authorization`; a secret.
    pub authorization: Option<&'a str>,
    /// Body with its type.
    pub body: Option<(ContentType, &'a [u8])>,
    /// Time limits.
    pub limit: Limit,
}

/// An answer: whatever the status, and the headers that mean something to us.
pub struct HttpResponse {
    /// HTTP status code.
    pub status: u16,
    /// `Retry-After`.
    pub retry_after: Option<String>,
    /// Each `Warning`.
    pub warnings: Vec<String>,
    /// A body cut short without a length reads as a clean end: readers check what they got.
    pub body: Box<dyn Read + Send>,
}

impl fmt::Debug for HttpResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpResponse").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Why no answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportErrorKind {
    /// The server's certificate is not trusted. Nothing was sent.
    Certificate,
    /// No connection, or a request that cannot be written. Nothing was sent.
    Connect,
    /// A time limit passed, perhaps after sending.
    TimedOut,
    /// The connection ended before any byte of the answer. A stale pooled connection looks like this.
    Closed,
    /// Anything else, perhaps after sending.
    Other,
}

/// No answer came.
#[derive(Clone, Debug)]
pub struct TransportError {
    /// What kind of failure.
    pub kind: TransportErrorKind,
    /// Explanation; contains nothing of the request.
    pub message: String,
}

impl TransportError {
    /// False only if certainly nothing reached the server.
    pub fn sent(&self) -> bool {
        !matches!(self.kind, TransportErrorKind::Certificate | TransportErrorKind::Connect)
    }
}

/// Sends requests. Implemented by [`HttpTransport`], and by a script in tests.
pub trait Transport: Send + Sync {
    /// One exchange up to the answer's headers.
    fn send(&self, request: &HttpRequest<'_>) -> Result<HttpResponse, TransportError>;
    /// A transport to the same server with connections of its own, to be shut down on its own.
    fn fork(&self) -> Arc<dyn Transport>;
    /// A client certificate is sent if the server requests one.
    fn has_certificate(&self) -> bool {
        false
    }
    /// Ends all exchanges, also those blocked in a read, and refuses further ones.
    fn shutdown(&self);
}

/// The real transport: HTTP/1.1, TLS by rustls, a pool of connections.
pub struct HttpTransport {
    settings: Arc<Settings>,
    agent: Mutex<Current>,
}

struct Settings {
    config: Config,
    user_agent: String,
    call_timeout: Duration,
    max_connections: usize,
    patience: PluginPatience,
    /// Why the client certificate cannot be used, as it was logged last. One for all forks, so that one of them tells.
    fault: Mutex<Option<String>>,
}

struct Current {
    agent: ureq::Agent,
    /// What was made of both of these, to be shared with forks.
    tls: TlsConnector,
    /// Content of the CA that the agent was built with.
    ca: Arc<[u8]>,
    /// Client certificate that it was built with.
    identity: Arc<Option<ClientCertPem>>,
    identity_read: Instant,
    closed: bool,
}

impl HttpTransport {
    /// Reads and checks certificates; connects to nothing.
    pub fn new(
        config: &Config,
        user_agent: &str,
        call_timeout: Duration,
        max_connections: usize,
        patience: PluginPatience,
    ) -> Result<Self, ConfigError> {
        let (config_here, user_agent, fault) = (config.clone(), user_agent.to_owned(), Mutex::new(None));
        let settings = Settings { config: config_here, user_agent, call_timeout, max_connections, patience, fault };
        let ca = read_ca(config)?;
        let identity = settings.identity()?;
        let tls = build_tls(config, &ca, identity.as_ref())?;
        let agent = build_agent(&settings, &tls);
        let current = Current { agent, tls, ca, identity: Arc::new(identity), identity_read: Instant::now(), closed: false };
        Ok(Self { settings: Arc::new(settings), agent: Mutex::new(current) })
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        // The fields are replaced whole, so a panic elsewhere does not spoil them.
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a refused certificate: rebuilds the agent if the CA file has changed.
    fn reload_ca(&self) -> bool {
        let Ok(ca) = read_ca(&self.settings.config) else { return false };
        let mut current = self.lock();
        if current.closed || current.ca == ca {
            return false;
        }
        // A half-written file keeps the last good one.
        let Ok(tls) = build_tls(&self.settings.config, &ca, (*current.identity).as_ref()) else { return false };
        log::info!("CA file changed, read again");
        current.agent = build_agent(&self.settings, &tls);
        current.tls = tls;
        current.ca = ca;
        true
    }

    /// Rebuilds the agent if a plugin has printed another client certificate since, or its files have changed. While they cannot be used
    /// the last good ones are kept: of two files the second may not be written yet.
    fn renew_identity(&self) {
        let Config { auth, client_cert, .. } = &self.settings.config;
        let is_by_plugin = matches!(auth, Auth::Exec(_));
        if !is_by_plugin {
            let mut current = self.lock();
            if client_cert.is_none() || current.identity_read.elapsed() < IDENTITY_FOR {
                return;
            }
            current.identity_read = Instant::now();
        }
        let identity = match self.settings.identity() {
            Ok(identity) => identity,
            // Why a plugin has failed is the error of the call.
            Err(_) if is_by_plugin => return,
            Err(error) => return self.settings.report(Some(error.to_string())),
        };
        let mut current = self.lock();
        if current.closed {
            return;
        }
        if *current.identity == identity {
            return self.settings.report(None);
        }
        match build_tls(&self.settings.config, &current.ca, identity.as_ref()) {
            Ok(tls) => {
                if !is_by_plugin {
                    log::info!("client certificate changed, read again");
                }
                *self.settings.fault() = None;
                current.agent = build_agent(&self.settings, &tls);
                current.tls = tls;
                current.identity = Arc::new(identity);
            }
            Err(error) => self.settings.report(Some(error.to_string())),
        }
    }

    fn send_once(&self, request: &HttpRequest<'_>) -> Result<HttpResponse, TransportError> {
        let agent = self.lock().agent.clone();
        let server = &self.settings.config.server;
        let uri = format!("{}{}{}", server.origin(), server.prefix, request.path_and_query);
        let mut builder = ureq::http::Request::builder().method(request.method.as_str()).uri(uri);
        builder = builder.header(header::ACCEPT, request.accept);
        if let Some(authorization) = request.authorization {
            let mut value = HeaderValue::from_str(authorization).map_err(|_| refused("credential is not a valid HTTP header value"))?;
            value.set_sensitive(true);
            builder = builder.header(header::AUTHORIZATION, value);
        }
        let request_limit = request.limit;
        let response = match request.body {
            Some((content_type, bytes)) => {
                let request =
                    builder.header(header::CONTENT_TYPE, content_type.as_str()).body(bytes).map_err(|_| refused("bad request"))?;
                match request_limit {
                    // A write is not a stream.
                    Limit::Call | Limit::Stream { .. } => agent.run(request),
                    Limit::Within(limit) => agent.run(agent.configure_request(request).timeout_global(Some(limit)).build()),
                }
            }
            None => {
                let message = builder.body(()).map_err(|_| refused("bad request"))?;
                match request_limit {
                    Limit::Call => agent.run(message),
                    Limit::Within(limit) => agent.run(agent.configure_request(message).timeout_global(Some(limit)).build()),
                    Limit::Stream { headers, idle } => agent.run(
                        agent
                            .configure_request(message)
                            .timeout_global(None)
                            .timeout_recv_response(Some(headers))
                            .timeout_per_read(Some(idle))
                            .build(),
                    ),
                }
            }
        }
        .map_err(|error| classify(&error, self.settings.config.proxy.as_ref()))?;
        let (parts, body) = response.into_parts();
        Ok(HttpResponse {
            status: parts.status.as_u16(),
            retry_after: texts(&parts.headers, header::RETRY_AFTER).pop(),
            warnings: texts(&parts.headers, header::WARNING),
            body: Box::new(Body(body.into_reader())),
        })
    }
}

impl Transport for HttpTransport {
    fn send(&self, request: &HttpRequest<'_>) -> Result<HttpResponse, TransportError> {
        self.renew_identity();
        match self.send_once(request) {
            // Nothing was sent, so this is safe for writes too.
            Err(error) if error.kind == TransportErrorKind::Certificate && self.reload_ca() => self.send_once(request),
            result => result,
        }
    }

    fn fork(&self) -> Arc<dyn Transport> {
        let current = self.lock();
        let (tls, ca, identity) = (current.tls.clone(), Arc::clone(&current.ca), Arc::clone(&current.identity));
        let agent = build_agent(&self.settings, &tls);
        let current = Current { agent, tls, ca, identity, identity_read: current.identity_read, closed: false };
        Arc::new(Self { settings: Arc::clone(&self.settings), agent: Mutex::new(current) })
    }

    fn has_certificate(&self) -> bool {
        self.lock().identity.is_some()
    }

    fn shutdown(&self) {
        let mut current = self.lock();
        current.closed = true;
        current.agent.clone().shutdown();
    }
}

/// Reads like ureq's body, but with errors that say more than `Other`.
struct Body(ureq::BodyReader<'static>);

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
            Some(ureq::Error::Timeout(limit)) => io::Error::new(io::ErrorKind::TimedOut, format!("time limit reached ({limit})")),
            Some(_) | None => error,
        })
    }
}

fn texts(headers: &HeaderMap, name: header::HeaderName) -> Vec<String> {
    headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
}

fn refused(message: &str) -> TransportError {
    TransportError { kind: TransportErrorKind::Connect, message: message.to_owned() }
}

fn classify(error: &ureq::Error, proxy: Option<&Proxy>) -> TransportError {
    use TransportErrorKind::{Certificate, Closed, Connect, Other, TimedOut};
    let (in_handshake, io) = match error {
        ureq::Error::Other(other) => other.downcast_ref::<HandshakeError>().map_or((false, None), |error| (true, Some(&error.0))),
        ureq::Error::Io(error) => (false, Some(error)),
        _ => (false, None),
    };
    let tls = io.and_then(|error| error.get_ref()?.downcast_ref::<rustls::Error>());
    let kind = match (error, io) {
        _ if tls.is_some_and(explain::is_about_certificate) => Certificate,
        _ if in_handshake => Connect,
        (ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect), _) => Connect,
        (ureq::Error::Timeout(_), _) => TimedOut,
        (
            ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::ConnectProxyFailed(_)
            | ureq::Error::BadUri(_)
            | ureq::Error::Http(_)
            | ureq::Error::Tls(_)
            | ureq::Error::TlsRequired
            | ureq::Error::RequireHttpsOnly(_),
            _,
        ) => Connect,
        // An alert may come after the request, in TLS 1.3 when the server refuses the client's certificate.
        (_, Some(error)) if tls.is_none() => match error.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::NotConnected => Connect,
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Closed,
            _ => Other,
        },
        // The enum is ureq's and open: when in doubt, the request was sent.
        _ => Other,
    };
    let reason = match (error, tls) {
        (ureq::Error::ConnectProxyFailed(reason), _) => reason.clone(),
        (_, Some(tls)) => explain::explain(tls),
        _ => error.to_string(),
    };
    let message = match kind {
        Certificate => format!("server certificate not trusted: {reason}"),
        Connect => match proxy {
            Some(proxy) => format!("cannot connect through the proxy {} ({}): {reason}", proxy.server.authority(), proxy.origin),
            None => format!("cannot connect: {reason}"),
        },
        TimedOut => format!("no answer in time: {reason}"),
        Closed | Other => reason,
    };
    TransportError { kind, message }
}

fn read_ca(config: &Config) -> Result<Arc<[u8]>, ConfigError> {
    let Some(ca) = &config.ca else { return Ok(Arc::from([])) };
    let refuse = |error| ConfigError::new(ca.place(&config.source), "certificate authority", error, "check the path");
    ca.read().map(|pem| Arc::from(&*pem)).map_err(refuse)
}

impl Settings {
    /// The client certificate to use now.
    fn identity(&self) -> Result<Option<ClientCertPem>, ConfigError> {
        let Config { auth, client_cert, source, .. } = &self.config;
        if let Auth::Exec(plugin) = auth {
            return plugin.current(self.patience).map(|issued| issued.identity.clone());
        }
        let Some(cert) = client_cert else { return Ok(None) };
        let read = |pem: &Pem, field| {
            let refuse = |error| ConfigError::new(pem.place(source), &format!("{}{field}", cert.user), error, "check the path");
            pem.read().map(Cow::into_owned).map_err(refuse)
        };
        let (certificate, key) = (read(&cert.certificate, "client-certificate")?, read(&cert.key, "client-key")?);
        Ok(Some(ClientCertPem { certificate, key }))
    }

    /// Logs why the client certificate cannot be used, or that it can again, once each.
    fn report(&self, new: Option<String>) {
        let mut fault = self.fault();
        if *fault != new {
            match &new {
                Some(error) => log::warn!(error:%; "client certificate not usable; keeping the last one"),
                None => log::info!("client certificate usable again"),
            }
            *fault = new;
        }
    }

    fn fault(&self) -> MutexGuard<'_, Option<String>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn build_agent(settings: &Settings, tls: &TlsConnector) -> ureq::Agent {
    let Settings { config, user_agent, call_timeout, max_connections, patience: _, fault: _ } = settings;
    let Server { https, .. } = config.server;
    let (input, output) = if https { UNDER_TLS } else { (BUFFER, BUFFER) };
    let agent_config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .https_only(https)
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(AutoHeaderValue::Provided(Arc::new(user_agent.clone())))
        .accept_encoding(AutoHeaderValue::None)
        .input_buffer_size(input)
        .output_buffer_size(output)
        .max_response_header_size(BUFFER)
        .max_idle_connections(*max_connections)
        .max_idle_connections_per_host(*max_connections)
        .max_idle_age(MAX_IDLE_AGE)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(Some(*call_timeout))
        .build();
    // A proxy looks up the server's name itself.
    let first = config.proxy.as_ref().map_or(&config.server, |proxy| &proxy.server).clone();
    let resolver = ServerResolver { server: first, known: Mutex::new(None), system: DefaultResolver::default() };
    let via = ProxyConnector { proxy: config.proxy.clone(), server: config.server.clone() };
    let connector = ().chain(TcpConnector::default()).chain(via).chain(tls.clone());
    ureq::Agent::with_parts(agent_config, connector, resolver)
}

fn build_tls(config: &Config, ca: &[u8], identity: Option<&ClientCertPem>) -> Result<TlsConnector, ConfigError> {
    let trust = if config.insecure || !config.server.https {
        Trust::Anybody
    } else {
        let place = config.ca.as_ref().map_or_else(|| config.source.clone(), |ca| ca.place(&config.source));
        let hint = "set it to the API server's CA certificate in PEM";
        Trust::Listed(Authorities::read(ca).map_err(|reason| ConfigError::new(place, "certificate authority", reason, hint))?)
    };
    let refuse = |field: &'static str, hint: &'static str| move |reason: String| ConfigError::new(&config.source, field, reason, hint);
    let identity = identity.map(identity::read).transpose().map_err(|error| unusable(config, &error))?;
    let name = config.tls_server_name.clone().map(ServerName::try_from).transpose();
    let name = name.map_err(|_| refuse("tls-server-name", "use the name in the server's certificate")("not a valid name".to_owned()))?;
    TlsConnector::new(trust, identity, name).map_err(refuse("TLS", ""))
}

/// With the file or entry that the client certificate is from.
fn unusable(config: &Config, error: &identity::Unusable) -> ConfigError {
    let identity::Unusable { is_key, reason, hint } = *error;
    match (&config.auth, &config.client_cert) {
        (Auth::Exec(plugin), _) => {
            plugin.error(format!("status.{}: {reason}", if is_key { "clientKeyData" } else { "clientCertificateData" }), hint)
        }
        (_, Some(ClientCert { certificate, key, user })) => {
            let (pem, field) = if is_key { (key, "client-key") } else { (certificate, "client-certificate") };
            ConfigError::new(pem.place(&config.source), &format!("{user}{field}"), reason, hint)
        }
        (_, None) => ConfigError::new(&config.source, "client certificate", reason, hint),
    }
}

/// Always resolves the server to connect to. Addresses need no look-up, and
/// names are looked up once in a while: ureq asks for every request, and starts a thread each time.
#[derive(Debug)]
struct ServerResolver {
    server: Server,
    known: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
    system: DefaultResolver,
}

impl Resolver for ServerResolver {
    fn resolve(
        &self,
        _uri: &ureq::http::Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        if let Ok(ip) = self.server.host.parse::<IpAddr>() {
            addresses.push(SocketAddr::new(ip, self.server.port));
            return Ok(addresses);
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, found)) = known.as_ref().filter(|(at, _)| at.elapsed() < RESOLVED_FOR) {
            found.iter().for_each(|address| addresses.push(*address));
            return Ok(addresses);
        }
        let uri = format!("{}/", self.server.origin()).parse().map_err(|_| ureq::Error::HostNotFound)?;
        // Why a name is not found has no kind of its own.
        let found = self.system.resolve(&uri, config, timeout).map_err(|error| match error {
            ureq::Error::Io(error) => ureq::Error::Io(io::Error::new(io::ErrorKind::AddrNotAvailable, error)),
            other => other,
        })?;
        *known = Some((Instant::now(), found.iter().copied().collect()));
        Ok(found)
    }
}

#[cfg(test)]
#[path = "transport_tests.rs"]
mod tests;
