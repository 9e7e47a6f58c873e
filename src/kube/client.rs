//! Calls: a request with our credential, the answer decoded.
//!
//! Promises: no call takes longer than its limit; a write is never silently sent twice; a rotated credential is picked up; no write
//! starts once the fence is down; while the API server asks for a pause (429) nothing is sent; `shutdown` ends all calls.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::api::{Resource, Status, StatusDetails};
use crate::text::{describe_decode, one_line};
use crate::until::Until;

use super::answer::Answer;
use super::config::{Auth, Config, ConfigError, Issued, Plugin, PluginPatience, TokenFile};
use super::error::{Error, Result};
use super::headers::{bounded_seconds, parse_retry_after, parse_warnings};
use super::pause::Pause;
use super::request::Request;
use super::transport::{HttpRequest, HttpResponse, HttpTransport, Limit, Transport, TransportError, TransportErrorKind};

/// Told about each exchange: the request, and the status code (0 if no answer came).
pub type Observer = Arc<dyn Fn(&Request, u16) + Send + Sync>;

/// Largest error body that is read; a `Status` is far smaller.
const ERROR_BODY_MAX: usize = 256 * 1024;

/// How a [`Client`] behaves.
#[derive(Clone)]
pub struct ClientOptions {
    /// `User-Agent`, seen in audit logs.
    pub user_agent: String,
    /// Limit on one call from connecting to the end of the body. Default 30 s: the API server gives up after 60 s.
    pub call_timeout: Duration,
    /// Idle connections kept. Default 4.
    pub max_connections: usize,
    /// Largest answer in bytes. Default 32 MiB.
    pub max_body: usize,
    /// Told about each exchange.
    pub observer: Option<Observer>,
    /// How long a call may wait, besides its own limit, because the API server has too much to do and asks everybody to wait. Zero: it
    /// does not wait and leaves it to who called. Default zero.
    pub busy_wait: Duration,
    /// How long a credential plugin may take once it has said something: it may wait for a person. Default: the call's limit.
    pub login_timeout: Duration,
    /// Takes what a credential plugin says on standard error, a line at a time. Default: the log.
    pub plugin_says: fn(&str),
    /// While this does not hold, no write is sent. Asked right before each; what is on its way is not called back.
    pub fence: Option<Until>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            user_agent: concat!("quarks-job/", env!("CARGO_PKG_VERSION")).to_owned(),
            call_timeout: Duration::from_secs(30),
            max_connections: 4,
            max_body: 32 * 1024 * 1024,
            observer: None,
            busy_wait: Duration::ZERO,
            login_timeout: Duration::ZERO,
            plugin_says: |line| log::warn!(line:%; "credential plugin"),
            fence: None,
        }
    }
}

impl ClientOptions {
    fn patience(&self) -> PluginPatience {
        PluginPatience { silent: self.call_timeout, talking: self.login_timeout, tell: self.plugin_says }
    }
}

/// A client of the API server. Clones share connections and credential.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    transport: Arc<dyn Transport>,
    credential: Arc<Credential>,
    options: ClientOptions,
    pause: Pause,
    closed: AtomicBool,
}

enum Credential {
    None,
    /// Value of the `Authorization` header.
    Fixed(String),
    File(TokenFile),
    Exec(Arc<Plugin>),
}

/// A credential that may rotate, as it was used for a request.
enum Used {
    Fixed,
    File(Arc<str>),
    Exec(Arc<Issued>),
}

impl Client {
    /// Reads and checks certificates and token file; connects to nothing.
    pub fn new(config: &Config, options: ClientOptions) -> std::result::Result<Self, ConfigError> {
        config.check()?;
        if config.insecure {
            log::warn!(server:% = config.server.origin(); "server certificate is not verified, as configured");
        }
        let ClientOptions { user_agent, call_timeout, max_connections, .. } = &options;
        let transport = HttpTransport::new(config, user_agent, *call_timeout, *max_connections, options.patience())?;
        if let Auth::TokenFile(path) = &config.auth {
            // Tells of a wrong path at the start instead of with the first call.
            TokenFile::new(path.clone())
                .current(Instant::now())
                .map_err(|error| ConfigError::new(error.path.display(), "token", error.reason, "it must hold a service account token"))?;
        }
        Ok(Self::with_transport(Arc::new(transport), &config.auth, options))
    }

    pub(crate) fn with_transport(transport: Arc<dyn Transport>, auth: &Auth, options: ClientOptions) -> Self {
        let credential = match auth {
            Auth::None => Credential::None,
            Auth::Token(token) => Credential::Fixed(format!("Bearer {token}")),
            Auth::Basic { username, password } => Credential::Fixed(format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))),
            Auth::TokenFile(path) => Credential::File(TokenFile::new(path.clone())),
            Auth::Exec(plugin) => Credential::Exec(Arc::clone(plugin)),
        };
        let (credential, pause, closed) = (Arc::new(credential), Pause::default(), AtomicBool::new(false));
        Self { inner: Arc::new(Inner { transport, credential, options, pause, closed }) }
    }

    /// A client with connections of its own, to be shut down on its own. It waits for no pause of others, and makes none.
    pub fn fork(&self) -> Self {
        let Inner { transport, credential, options, pause: _, closed } = &*self.inner;
        let inner = Inner {
            transport: transport.fork(),
            credential: Arc::clone(credential),
            options: ClientOptions { busy_wait: Duration::ZERO, ..options.clone() },
            pause: Pause::default(),
            closed: AtomicBool::new(closed.load(Ordering::Acquire)),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Sends the request and decodes the answer.
    pub fn call<T: DeserializeOwned>(&self, request: &Request) -> Result<T> {
        decode(request, &self.call_text(request, self.inner.options.max_body)?)
    }

    /// Like [`Client::call`], with the texts of the answer's `Warning` headers.
    pub fn call_with_warnings<T: DeserializeOwned>(&self, request: &Request) -> Result<(T, Vec<String>)> {
        let response = self.exchange(request, Limit::Call)?;
        let warnings = response.warnings.iter().flat_map(|value| parse_warnings(value)).collect();
        let body = self.read_body(request, response, self.inner.options.max_body)?;
        Ok((decode(request, &body)?, warnings))
    }

    /// Sends the request; the answer's body does not matter.
    pub fn call_unit(&self, request: &Request) -> Result<()> {
        self.call_and_drop(request, Limit::Call)
    }

    /// Like [`Client::call_unit`], with a limit of its own.
    pub fn call_unit_within(&self, request: &Request, limit: Duration) -> Result<()> {
        self.call_and_drop(request, Limit::Within(limit.min(self.inner.options.call_timeout)))
    }

    fn call_and_drop(&self, request: &Request, limit: Limit) -> Result<()> {
        let mut response = self.exchange(request, limit)?;
        // Read so that the connection can be used again. The status has been good already.
        let limit = u64::try_from(self.inner.options.max_body).unwrap_or(u64::MAX);
        let _ = io::copy(&mut response.body.by_ref().take(limit), &mut io::sink());
        Ok(())
    }

    /// Sends the request and returns the raw body, at most `max` bytes.
    pub fn call_text(&self, request: &Request, max: usize) -> Result<Vec<u8>> {
        let response = self.exchange(request, Limit::Call)?;
        self.read_body(request, response, max)
    }

    /// Asks whether the API server answers at all.
    pub fn ping(&self) -> Result<()> {
        self.call::<IgnoredAny>(&Request::get_path("/version")).map(|_| ())
    }

    /// Starts a watch: a body without end. Limits: the call's on the headers, `idle` on each silence.
    pub(crate) fn open(&self, request: &Request, idle: Duration) -> Result<Box<dyn Read + Send>> {
        let limit = Limit::Stream { headers: self.inner.options.call_timeout, idle };
        self.exchange(request, limit).map(|response| response.body)
    }

    /// Sends the request and gives the body to be read bit by bit, under the call's limit on the whole exchange.
    pub(crate) fn open_page(&self, request: &Request) -> Result<Box<dyn Read + Send>> {
        self.exchange(request, Limit::Call).map(|response| response.body)
    }

    /// Ends all calls of this client and its clones, and refuses further ones.
    pub fn shutdown(&self) {
        self.inner.closed.store(true, Ordering::Release);
        self.inner.pause.close();
        self.inner.transport.shutdown();
    }

    /// Limit on one call.
    pub fn call_timeout(&self) -> Duration {
        self.inner.options.call_timeout
    }

    /// True after [`Client::shutdown`].
    pub fn is_shut_down(&self) -> bool {
        self.inner.closed.load(Ordering::Acquire)
    }

    /// One request up to a good status. If the API server has too much to do everybody waits. After a 429, which means that nothing was
    /// done, the request is sent again then.
    fn exchange(&self, request: &Request, limit: Limit) -> Result<HttpResponse> {
        let Inner { options, pause, .. } = &*self.inner;
        let deadline = Instant::now() + options.busy_wait;
        loop {
            if !self.is_shut_down() {
                pause.wait(deadline);
            }
            let result = self.exchange_now(request, limit);
            let asked = result.as_ref().err().filter(|_| !options.busy_wait.is_zero()).and_then(|error| pause_of(request, error));
            let Some(asked) = asked else { return result };
            let end = pause.begin(asked, Instant::now());
            if end > deadline || !matches!(&result, Err(Error::Status { code: 429, .. })) || self.is_shut_down() {
                return result;
            }
        }
    }

    /// The same, even during a pause. A refused token is read again and the request repeated once: 401 means that nothing was done.
    fn exchange_now(&self, request: &Request, limit: Limit) -> Result<HttpResponse> {
        let inner = &*self.inner;
        let unsent =
            |message: String| Error::Transport { verb: request.verb, resource: request.resource, sent: false, timed_out: false, message };
        let patience = inner.options.patience();
        let bearer = |token: &str| Some(format!("Bearer {token}"));
        let (authorization, used) = match &*inner.credential {
            Credential::None => (None, Used::Fixed),
            Credential::Fixed(value) => (Some(value.clone()), Used::Fixed),
            Credential::File(file) => {
                let token = file.current(Instant::now()).map_err(|error| unsent(error.to_string()))?;
                (bearer(&token), Used::File(token))
            }
            Credential::Exec(plugin) => {
                let issued = plugin.current(patience).map_err(|error| unsent(one_line(&error.to_string(), 500)))?;
                (issued.token.as_deref().and_then(bearer), Used::Exec(issued))
            }
        };
        let response = self.send(request, authorization.as_deref(), limit)?;
        if response.status != 401 {
            return self.check_status(request, response);
        }
        let by_certificate = authorization.is_none() && inner.transport.has_certificate();
        let authorization = match (&*inner.credential, &used) {
            (Credential::File(file), Used::File(used)) => file.after_rejection(used, Instant::now()).map(|token| bearer(&token)),
            (Credential::Exec(plugin), Used::Exec(used)) => {
                plugin.after_rejection(used, patience).map(|issued| issued.token.as_deref().and_then(bearer))
            }
            _ => None,
        };
        let Some(authorization) = authorization else {
            return self.check_status(request, response).map_err(|error| if by_certificate { with_hint(error) } else { error });
        };
        drop(response);
        let response = self.send(request, authorization.as_deref(), limit)?;
        self.check_status(request, response)
    }

    /// A GET whose connection ended before any answer is repeated once: a pooled connection may have been stale.
    /// A write never is.
    fn send(&self, request: &Request, authorization: Option<&str>, limit: Limit) -> Result<HttpResponse> {
        if request.method.is_write() && self.inner.options.fence.as_ref().is_some_and(|fence| !fence.holds()) {
            return Err(Error::Fenced);
        }
        let mut result = self.send_once(request, authorization, limit);
        if !request.method.is_write() && matches!(&result, Err(error) if error.kind == TransportErrorKind::Closed) && !self.is_shut_down() {
            result = self.send_once(request, authorization, limit);
        }
        result.map_err(|error| {
            if self.is_shut_down() {
                return Error::Shutdown;
            }
            Error::Transport {
                verb: request.verb,
                resource: request.resource,
                sent: error.sent(),
                timed_out: error.kind == TransportErrorKind::TimedOut,
                message: one_line(&error.message, 300),
            }
        })
    }

    fn send_once(&self, request: &Request, authorization: Option<&str>, limit: Limit) -> std::result::Result<HttpResponse, TransportError> {
        if self.is_shut_down() {
            return Err(TransportError { kind: TransportErrorKind::Connect, message: "client is shut down".to_owned() });
        }
        let result = self.inner.transport.send(&HttpRequest {
            method: request.method,
            path_and_query: request.path_and_query(),
            accept: request.accept,
            authorization,
            body: request.body.as_ref().map(|(content_type, bytes)| (*content_type, bytes.as_slice())),
            limit,
        });
        if let Some(observer) = &self.inner.options.observer {
            observer(request, result.as_ref().map_or(0, |response| response.status));
        }
        result
    }

    fn check_status(&self, request: &Request, response: HttpResponse) -> Result<HttpResponse> {
        let code = response.status;
        if (200..300).contains(&code) {
            return Ok(response);
        }
        let header = response.retry_after.as_deref().and_then(|value| parse_retry_after(value, std::time::SystemTime::now()));
        // An error body that cannot be read changes nothing: the code is known.
        let body = self.read_body(request, response, ERROR_BODY_MAX).unwrap_or_default();
        let status = read_status(code, &body);
        let retry_after = header.or_else(|| bounded_seconds(status.details.retry_after_seconds));
        Err(Error::Status { verb: request.verb, resource: request.resource, code, status: Box::new(status), retry_after })
    }

    fn read_body(&self, request: &Request, response: HttpResponse, limit: usize) -> Result<Vec<u8>> {
        let Request { verb, resource, .. } = *request;
        let mut body = Vec::new();
        // One byte more than allowed distinguishes "too large" from "just fits".
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        response.body.take(most).read_to_end(&mut body).map_err(|error| self.read_error(verb, resource, &error))?;
        if body.len() > limit {
            return Err(Error::TooLarge { verb, resource, limit });
        }
        Ok(body)
    }

    /// What a failed read of a body means.
    pub(crate) fn read_error(&self, verb: &'static str, resource: Resource, error: &io::Error) -> Error {
        if self.is_shut_down() {
            return Error::Shutdown;
        }
        let timed_out = error.kind() == io::ErrorKind::TimedOut;
        Error::Transport { verb, resource, sent: true, timed_out, message: one_line(&format!("answer truncated: {error}"), 300) }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// The API server does not say what it has against a certificate.
fn with_hint(mut error: Error) -> Error {
    if let Error::Status { status, .. } = &mut error {
        status.message.push_str(" (the client certificate may have expired, or be of another cluster)");
    }
    error
}

/// How long the API server asks everybody to wait. Events have limits of their own: one that is not taken says nothing of other requests.
fn pause_of(request: &Request, error: &Error) -> Option<Duration> {
    error.retry_after().filter(|_| error.answer() == Answer::Busy && request.resource != Resource::EVENTS)
}

/// Decodes a whole body. The message holds no value of it, and of a Secret not even the path.
pub(crate) fn decode<'a, T: serde::Deserialize<'a>>(request: &Request, body: &'a [u8]) -> Result<T> {
    crate::json::from_slice(body).map_err(|error| undecodable(request, &error))
}

fn undecodable(request: &Request, error: &serde_json::Error) -> Error {
    let message = if request.resource == Resource::SECRETS {
        format!("line {} column {}", error.line(), error.column())
    } else {
        one_line(&describe_decode(error), 300)
    };
    Error::Decode { verb: request.verb, resource: request.resource, message, garbled: !error.is_data() }
}

/// The `Status` in an error's body; or one that is not genuine, with code and plain text alone, if something on the way answered.
fn read_status(code: u16, body: &[u8]) -> Status {
    match crate::json::from_slice::<Status>(body) {
        Ok(mut status) if status.is_genuine() => {
            if status.code == 0 {
                status.code = code;
            }
            status
        }
        // A load balancer answers in plain text, HTML or JSON of its own. The wait that it requests counts all the same.
        read => {
            let text = std::str::from_utf8(body).unwrap_or_default().trim();
            let message = if text.starts_with(['<', '{', '[']) { String::new() } else { one_line(text, 200) };
            let retry_after_seconds = read.map_or(0, |status| status.details.retry_after_seconds);
            Status { message, code, details: StatusDetails { retry_after_seconds, ..StatusDetails::default() }, ..Status::default() }
        }
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
