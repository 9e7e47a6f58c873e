//! A real API server as the backend, so that the same faults and record apply in front of it.
//! Of a kubeconfig it takes the first cluster and the first user, with a client certificate or a token.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::thread;
use std::time::Duration;

use base64::Engine;
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use serde_json::Value;
use ureq::http::Request as Outgoing;
use ureq::tls::{Certificate, ClientCert, PrivateKey};

use super::http::{Backend, Frames, Next, Reply, Request, Response};
use super::tls;

pub struct Upstream {
    url: String,
    config: ureq::config::Config,
    agent: ureq::Agent,
    token: String,
    forward_token: bool,
}

impl Upstream {
    pub fn from_kubeconfig(path: &Path) -> Upstream {
        let text = fs::read_to_string(path).expect("kubeconfig");
        let config: Value = serde_yaml::from_str(&text).expect("kubeconfig in YAML");
        let value = |section: &str, name: &str| {
            let found = config.pointer(&format!("{section}/{name}"));
            found.and_then(Value::as_str).unwrap_or("").to_owned()
        };
        let pem = |section: &str, name: &str| -> String {
            let data = value(section, &format!("{name}-data"));
            if data.is_empty() {
                return fs::read_to_string(value(section, name)).unwrap_or_default();
            }
            let bytes = base64::engine::general_purpose::STANDARD.decode(data);
            String::from_utf8(bytes.expect("base64")).expect("PEM is text")
        };
        let (cluster, user) = ("/clusters/0/cluster", "/users/0/user");
        let (chain, key) = (pem(user, "client-certificate"), pem(user, "client-key"));
        let identity = (!key.is_empty()).then(|| {
            let chain = [Certificate::from_pem(chain.as_bytes()).expect("client certificate")];
            let key = PrivateKey::from_pem(key.as_bytes()).expect("client key");
            ClientCert::new_with_certs(&chain, key)
        });
        let config = ureq::Agent::config_builder()
            .tls_config(tls::client(&pem(cluster, "certificate-authority"), identity))
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .allow_non_standard_methods(true)
            .build();
        Upstream { url: value(cluster, "server"), agent: config.new_agent(), config, token: value(user, "token"), forward_token: false }
    }

    /// The client's own bearer token goes to the server, not this kubeconfig's credentials. The
    /// kubeconfig must then have no client certificate, which would come first.
    pub fn forward_token(mut self) -> Upstream {
        self.forward_token = true;
        self
    }

    fn send(&self, agent: &ureq::Agent, request: &Request) -> Result<Reply, ureq::Error> {
        let mut outgoing = Outgoing::builder().method(request.method.as_str()).uri(format!("{}{}", self.url, request.target));
        for name in ["accept", "content-type", "user-agent"] {
            if !request.header(name).is_empty() {
                outgoing = outgoing.header(name, request.header(name));
            }
        }
        let own = format!("Bearer {}", self.token);
        let authorization = if self.forward_token {
            request.header("authorization")
        } else if self.token.is_empty() {
            ""
        } else {
            &own
        };
        if !authorization.is_empty() {
            outgoing = outgoing.header("authorization", authorization);
        }
        let incoming =
            if request.body.is_empty() { agent.run(outgoing.body(())?)? } else { agent.run(outgoing.body(request.body.clone())?)? };
        let (head, mut body) = incoming.into_parts();
        let mut response = Response { status: head.status.as_u16(), headers: Vec::new(), body: Vec::new() };
        for name in ["content-type", "retry-after", "warning", "audit-id"] {
            for value in head.headers.get_all(name) {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                response.headers.push((name.to_owned(), value));
            }
        }
        if !request.is_watch() || response.status != 200 {
            response.body = body.with_config().limit(u64::MAX).read_to_vec()?;
            return Ok(Reply::Full(response));
        }
        let (sender, lines) = bounded(0);
        let mut reader = BufReader::new(body.into_with_config().limit(u64::MAX).reader());
        thread::spawn(move || {
            loop {
                let mut line = Vec::new();
                let count = reader.read_until(b'\n', &mut line).unwrap_or(0);
                if count == 0 || sender.send(line).is_err() {
                    return;
                }
            }
        });
        let frames = Relayed { agent: agent.clone(), lines };
        Ok(Reply::Stream(response, Box::new(frames)))
    }
}

impl Backend for Upstream {
    fn call(&self, request: &Request) -> Reply {
        // A watch has an agent of its own, whose shutdown frees the blocked reader.
        let agent = if request.is_watch() { self.config.new_agent() } else { self.agent.clone() };
        self.send(&agent, request).unwrap_or_else(|error| {
            let message = format!("test proxy: {error}");
            Reply::Full(Response::failure(502, "BadGateway", &message, Value::Null))
        })
    }

    fn user(&self, _: &Request) -> String {
        "upstream".to_owned()
    }
}

struct Relayed {
    agent: ureq::Agent,
    lines: Receiver<Vec<u8>>,
}

impl Frames for Relayed {
    fn next(&mut self, wait: Duration) -> Next {
        match self.lines.recv_timeout(wait) {
            Ok(line) => Next::Frame(line),
            Err(RecvTimeoutError::Timeout) => Next::Idle,
            Err(RecvTimeoutError::Disconnected) => Next::End,
        }
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        self.agent.clone().shutdown();
    }
}
