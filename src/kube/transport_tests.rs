//! The real transport against real sockets: TLS, limits, shutdown.

use super::*;
use crate::api::Resource;
use crate::kube::scripted::{TempDir, WAIT, testdata};
use crate::kube::{Client, ClientOptions, Error, Request};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A peer on a port of its own. Each connection runs `serve` with its number; the threads end with their peers.
struct Peer {
    port: u16,
    connections: Arc<AtomicUsize>,
}

type Tls = Option<Arc<rustls::ServerConfig>>;
trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

impl Peer {
    fn start(tls: Tls, serve: impl Fn(usize, &mut dyn Stream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let serve = Arc::new(serve);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let number = count.fetch_add(1, Ordering::SeqCst);
                let (tls, serve) = (tls.clone(), Arc::clone(&serve));
                std::thread::spawn(move || run(number, stream, tls, &*serve));
            }
        });
        Self { port, connections }
    }

    fn config(&self) -> Config {
        Config {
            server: Server { https: false, host: "127.0.0.1".to_owned(), port: self.port, prefix: "/prefix".to_owned() },
            proxy: None,
            ca: None,
            insecure: false,
            tls_server_name: None,
            auth: Auth::None,
            client_cert: None,
            namespace: "default".to_owned(),
            source: "test".to_owned(),
        }
    }

    fn tls_config(&self, ca: Pem) -> Config {
        let mut config = self.config();
        config.server.https = true;
        config.ca = Some(ca);
        config
    }
}

fn run(number: usize, mut stream: TcpStream, tls: Tls, serve: &dyn Fn(usize, &mut dyn Stream)) {
    match tls {
        None => serve(number, &mut stream),
        Some(config) => {
            let connection = rustls::ServerConnection::new(config).expect("a server");
            let mut stream = rustls::StreamOwned::new(connection, stream);
            serve(number, &mut stream);
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    }
}

/// Reads a request up to the end of its headers, and the body if it has a length. `None` at the end of the connection.
fn read_request(stream: &mut dyn Stream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
    }
    let mut text = String::from_utf8(bytes).expect("text");
    let length = text.to_lowercase().split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse::<usize>().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    text.push_str(&String::from_utf8(body).expect("text"));
    Some(text)
}

fn answer(stream: &mut dyn Stream, text: &str) {
    let _ = stream.write_all(text.as_bytes());
    let _ = stream.flush();
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Blocks until the other side closes.
fn wait_closed(stream: &mut dyn Stream) {
    let _ = stream.read(&mut [0]);
}

fn client(config: &Config, call_timeout: Duration) -> Client {
    Client::new(config, ClientOptions { call_timeout, ..ClientOptions::default() }).expect("a client")
}

fn pair(certificate: &[u8], key: &[u8]) -> ClientCert {
    ClientCert { certificate: Pem::Data(certificate.to_vec()), key: Pem::Data(key.to_vec()), user: String::new() }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn server_tls(certificate: &[u8], key: &[u8], client_ca: Option<&[u8]>) -> Tls {
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_slice(key).expect("a key");
    let builder = rustls::ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().expect("versions");
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(ca).map(|certificate| certificate.expect("PEM")));
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        }
    };
    Some(Arc::new(builder.with_single_cert(chain, key).expect("a pair")))
}

/// Answers every request with its own text as a JSON string.
fn echo(_: usize, stream: &mut dyn Stream) {
    while let Some(request) = read_request(stream) {
        answer(stream, &ok(&serde_json::Value::from(request).to_string()));
    }
}

#[test]
fn a_request_goes_out_as_it_should_and_its_connection_is_used_again() {
    let peer = Peer::start(None, echo);
    let client = client(&peer.config(), WAIT);
    let request = Request::create(Resource::SECRETS, "ns", &serde_json::json!({"a": 1})).with_query("fieldValidation", "Warn");
    for _ in 0..3 {
        let seen = client.call::<String>(&request).expect("an answer").to_lowercase();
        assert!(seen.starts_with("post /prefix/api/v1/namespaces/ns/secrets?fieldvalidation=warn http/1.1\r\n"), "{seen}");
        for header in [
            &format!("host: 127.0.0.1:{}\r\n", peer.port),
            "accept: application/json\r\n",
            "content-type: application/json\r\n",
            "user-agent: quarks-job/",
        ] {
            assert!(seen.contains(header), "{header:?} not in {seen}");
        }
        assert!(seen.ends_with("\r\n\r\n{\"a\":1}"));
        assert!(!seen.contains("authorization") && !seen.contains("accept-encoding") && !seen.contains("chunked"), "{seen}");
    }
    let options = crate::kube::DeleteOptions { uid: None, resource_version: None, propagation: crate::kube::Propagation::Background };
    let delete = Request::delete(Resource::SECRETS, &crate::api::ObjectKey::new("ns", "a"), &options);
    let seen = client.call::<String>(&delete).expect("an answer");
    assert!(seen.starts_with("DELETE ") && seen.ends_with("\"propagationPolicy\":\"Background\"}"), "{seen}");
    assert_eq!(peer.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn only_the_configured_authority_is_trusted() {
    let peer = Peer::start(server_tls(testdata::SERVER, testdata::SERVER_KEY, None), echo);
    let mut config = peer.tls_config(Pem::Data(testdata::CA.to_vec()));
    config.auth = Auth::Token("canary".to_owned());
    let seen = client(&config, WAIT).call::<String>(&Request::get_path("/version")).expect("an answer");
    assert!(seen.to_lowercase().contains("authorization: bearer canary\r\n"), "{seen}");

    config.ca = Some(Pem::Data(testdata::OTHER_CA.to_vec()));
    let error = client(&config, WAIT).ping().expect_err("another authority");
    assert!(!error.maybe_applied() && error.to_string().contains("server certificate not trusted"), "{error}");

    config.ca = None;
    assert!(Client::new(&config, ClientOptions::default()).is_err(), "no authorities are built in, and none were looked for");
    config.insecure = true;
    client(&config, WAIT).call::<String>(&Request::get_path("/version")).expect("not checked, as configured");
}

#[test]
fn the_certificate_is_checked_against_the_given_name() {
    let peer = Peer::start(server_tls(testdata::NAMED, testdata::NAMED_KEY, None), echo);
    let mut config = peer.tls_config(Pem::Data(testdata::CA.to_vec()));
    let error = client(&config, WAIT).ping().expect_err("the certificate is not for 127.0.0.1");
    assert!(error.to_string().contains("server certificate not trusted"), "{error}");
    config.tls_server_name = Some("kubernetes".to_owned());
    let seen = client(&config, WAIT).call::<String>(&Request::get_path("/version")).expect("an answer");
    assert!(seen.to_lowercase().contains(&format!("host: 127.0.0.1:{}\r\n", peer.port)), "{seen}");
}

#[test]
fn a_rotated_ca_file_is_read_again() {
    let peer = Peer::start(server_tls(testdata::SERVER, testdata::SERVER_KEY, None), echo);
    let dir = TempDir::new();
    let client = client(&peer.tls_config(Pem::File(dir.write("ca.crt", testdata::OTHER_CA))), WAIT);
    let post = Request::create(Resource::JOBS, "ns", &serde_json::json!({}));
    assert!(client.call::<String>(&post).is_err());
    dir.write("ca.crt", "-----BEGIN CERT");
    assert!(client.call::<String>(&post).is_err(), "half-written");
    dir.write("ca.crt", testdata::CA);
    client.call::<String>(&post).expect("trusted now");
    client.fork().call::<String>(&post).expect("trusted in a fork too");
}

#[test]
fn a_client_certificate_is_presented() {
    let peer = Peer::start(server_tls(testdata::SERVER, testdata::SERVER_KEY, Some(testdata::CA)), echo);
    let mut config = peer.tls_config(Pem::Data(testdata::CA.to_vec()));
    assert!(client(&config, WAIT).ping().is_err());
    config.client_cert = Some(pair(testdata::CLIENT, testdata::CLIENT_KEY));
    client(&config, WAIT).call::<String>(&Request::get_path("/version")).expect("an answer");
    config.client_cert = Some(pair(testdata::CLIENT, testdata::SERVER_KEY));
    let error = Client::new(&config, ClientOptions::default()).expect_err("a pair that does not match");
    assert!(error.to_string().starts_with("test: client-key: does not match"), "{error}");
}

#[test]
fn redirects_are_answers() {
    let peer = Peer::start(None, |_, stream| {
        while read_request(stream).is_some() {
            answer(stream, "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");
        }
    });
    assert_eq!(client(&peer.config(), WAIT).ping().expect_err("no answer").code(), Some(302));
    assert_eq!(peer.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn headers_that_mean_something_come_through() {
    let peer = Peer::start(None, |_, stream| {
        while read_request(stream).is_some() {
            answer(stream, "HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let error = client(&peer.config(), WAIT).ping().expect_err("429");
    assert_eq!((error.code(), error.retry_after()), (Some(429), Some(Duration::from_secs(7))));
}

#[test]
fn what_was_certainly_not_sent_is_told_apart() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let mut config = Peer::start(None, echo).config();
    config.server.port = port;
    let create = Request::create(Resource::JOBS, "ns", &serde_json::json!({}));
    let error = client(&config, WAIT).call_unit(&create).expect_err("nobody listens");
    assert!(error.is_transient() && !error.maybe_applied(), "{error}");

    let peer = Peer::start(None, |_, stream| {
        read_request(stream);
    });
    let error = client(&peer.config(), WAIT).call_unit(&create).expect_err("closed after the request");
    assert!(error.is_transient() && error.maybe_applied(), "{error}");
    assert_eq!(peer.connections.load(Ordering::SeqCst), 1, "a write is never sent again");

    let error = client(&peer.config(), WAIT).ping().expect_err("closed after the request");
    assert!(error.is_transient(), "{error}");
    assert_eq!(peer.connections.load(Ordering::SeqCst), 3, "a read is, once");
}

#[test]
fn a_call_has_a_limit_from_headers_to_body() {
    for half in ["", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"] {
        let peer = Peer::start(None, move |_, stream| {
            read_request(stream);
            answer(stream, half);
            wait_closed(stream);
        });
        let error = client(&peer.config(), Duration::from_millis(50)).ping().expect_err("too late");
        assert!(matches!(error, Error::Transport { timed_out: true, sent: true, .. }), "{error:?}");
    }
}

#[test]
fn a_call_may_have_a_shorter_limit_of_its_own() {
    let peer = Peer::start(None, |_, stream| {
        read_request(stream);
        wait_closed(stream);
    });
    let create = Request::create(Resource::JOBS, "ns", &serde_json::json!({}));
    for request in [create, Request::get_path("/version")] {
        let error = client(&peer.config(), WAIT * 100).call_unit_within(&request, Duration::from_millis(50)).expect_err("too late");
        assert!(matches!(error, Error::Transport { timed_out: true, sent: true, .. }), "{error:?}");
    }
    let error = client(&peer.config(), Duration::from_millis(50)).call_unit_within(&Request::get_path("/version"), WAIT * 100);
    assert!(matches!(error, Err(Error::Transport { timed_out: true, .. })), "the client's limit holds as well: {error:?}");
}

#[test]
fn a_cut_body_is_an_error() {
    let cuts = [
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"a\"",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n",
        // Without a length this reads as a clean end, and only the JSON tells.
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"a\"",
    ];
    for cut in cuts {
        let peer = Peer::start(None, move |_, stream| {
            read_request(stream);
            answer(stream, cut);
        });
        let error = client(&peer.config(), WAIT).ping().expect_err(cut);
        assert!(error.is_transient(), "{error}");
    }
}

const STREAM_START: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na\n\r\n";

#[test]
fn a_stream_outlives_the_call_limit_but_not_its_idle_limit() {
    for tls in [None, server_tls(testdata::SERVER, testdata::SERVER_KEY, None)] {
        let is_tls = tls.is_some();
        let peer = Peer::start(tls, |_, stream| {
            read_request(stream);
            answer(stream, STREAM_START);
            // Longer than the call limit; each silence is shorter than the idle limit.
            for _ in 0..4 {
                std::thread::sleep(Duration::from_millis(100));
                answer(stream, "2\r\na\n\r\n");
            }
            wait_closed(stream);
        });
        let config = if is_tls { peer.tls_config(Pem::Data(testdata::CA.to_vec())) } else { peer.config() };
        let client = client(&config, Duration::from_millis(300));
        let watch = Request::watch(Resource::JOBS, "", &"1".into(), 200);
        let mut reader = client.open(&watch, Duration::from_millis(1000)).expect("headers");
        let mut text = Vec::new();
        let error = reader.read_to_end(&mut text).expect_err("silence");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error:?}");
        assert_eq!(text, b"a\n".repeat(5));
    }
}

#[test]
fn shutdown_frees_a_blocked_reader_at_once() {
    for tls in [None, server_tls(testdata::SERVER, testdata::SERVER_KEY, None)] {
        let is_tls = tls.is_some();
        let peer = Peer::start(tls, |_, stream| {
            read_request(stream);
            answer(stream, STREAM_START);
            wait_closed(stream);
        });
        let config = if is_tls { peer.tls_config(Pem::Data(testdata::CA.to_vec())) } else { peer.config() };
        let client = client(&config, WAIT);
        let watcher = client.fork();
        let mut reader = watcher.open(&Request::watch(Resource::JOBS, "", &"1".into(), 200), WAIT).expect("headers");
        reader.read_exact(&mut [0; 2]).expect("the first line");
        let start = Instant::now();
        let blocked = std::thread::spawn(move || reader.read_to_end(&mut Vec::new()));
        watcher.shutdown();
        assert!(blocked.join().expect("no panic").is_err());
        assert!(start.elapsed() < WAIT / 2);
        assert!(watcher.ping().expect_err("refused").is_shutdown());
        assert!(!client.is_shut_down());
    }
}

#[cfg(test)]
#[path = "transport_certificates_tests.rs"]
mod certificates;
#[cfg(test)]
#[path = "transport_proxy_tests.rs"]
mod proxy;
