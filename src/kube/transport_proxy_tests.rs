//! Through a proxy, beside the same without one.

use super::*;
use crate::kube::config::Proxy;
use std::io::{BufRead, BufReader};

/// A proxy that passes on to where it is asked, and keeps what it was asked for.
struct Middle {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Middle {
    /// `accept` reads a client's wish and answers it; the address that comes out of it is connected to.
    fn start(accept: fn(&mut TcpStream) -> Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || pass(client, accept, &seen));
            }
        });
        Self { port, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

fn pass(mut client: TcpStream, accept: fn(&mut TcpStream) -> Option<String>, seen: &Mutex<Vec<String>>) {
    let Some(wish) = accept(&mut client) else { return };
    // Names are the proxy's to look up: only it knows this one.
    let address = wish.split(' ').next().unwrap_or_default().replace("only.the.proxy", "127.0.0.1");
    seen.lock().expect("no panic").push(wish);
    let Ok(server) = TcpStream::connect(address) else { return };
    let (mut from, mut to) = (client.try_clone().expect("a handle"), server.try_clone().expect("a handle"));
    let up = std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
    let _ = io::copy(&mut &server, &mut client);
    let _ = client.shutdown(std::net::Shutdown::Both);
    let _ = up.join();
}

/// RFC 9110, section 9.3.6. The wish is the address, and the credential if one is given.
fn connect(client: &mut TcpStream) -> Option<String> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        lines.push(line);
    }
    let address = lines.first()?.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    let credential = lines.iter().find_map(|line| line.trim().strip_prefix("Proxy-Authorization: "));
    Some(credential.map_or_else(|| address.clone(), |credential| format!("{address} {credential}")))
}

/// RFC 1928, without a credential.
fn socks(client: &mut TcpStream) -> Option<String> {
    let mut head = [0; 2];
    client.read_exact(&mut head).ok()?;
    client.read_exact(&mut vec![0; usize::from(head[1])]).ok()?;
    client.write_all(&[5, 0]).ok()?;
    let mut request = [0; 4];
    client.read_exact(&mut request).ok()?;
    let host = match request[3] {
        1 => {
            let mut address = [0; 4];
            client.read_exact(&mut address).ok()?;
            IpAddr::from(address).to_string()
        }
        3 => {
            let mut length = [0];
            client.read_exact(&mut length).ok()?;
            let mut name = vec![0; usize::from(length[0])];
            client.read_exact(&mut name).ok()?;
            String::from_utf8(name).ok()?
        }
        _ => return None,
    };
    let mut port = [0; 2];
    client.read_exact(&mut port).ok()?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).ok()?;
    Some(format!("{host}:{}", u16::from_be_bytes(port)))
}

#[test]
fn requests_go_through_the_configured_proxy_to_the_servers_own_name() {
    let tls = || server_tls(testdata::NAMED, testdata::NAMED_KEY, None);
    for (accept, url) in [(connect as fn(&mut TcpStream) -> Option<String>, "http://"), (socks, "socks5://")] {
        for (tls, host) in [(tls(), "127.0.0.1"), (tls(), "only.the.proxy"), (None, "127.0.0.1")] {
            let (middle, peer) = (Middle::start(accept), Peer::start(tls.clone(), echo));
            let mut config = peer.tls_config(Pem::Data(testdata::CA.to_vec()));
            config.server.https = tls.is_some();
            config.server.host = host.to_owned();
            // The name that the certificate has does not change where the proxy is asked to go.
            config.tls_server_name = Some("kubernetes".to_owned());
            config.proxy = Some(Proxy::parse(&format!("{url}127.0.0.1:{}", middle.port)).expect("a proxy"));
            let client = client(&config, WAIT);
            for _ in 0..2 {
                let seen = client.call::<String>(&Request::get_path("/version")).expect("an answer").to_lowercase();
                assert!(seen.contains(&format!("host: {host}:{}\r\n", peer.port)) && !seen.contains("proxy-"), "{seen}");
            }
            assert_eq!(middle.asked(), [format!("{host}:{}", peer.port)], "{url} to {host}: one connection for both");
        }
    }
}

#[test]
fn the_proxys_credential_goes_to_the_proxy_alone() {
    let (middle, peer) = (Middle::start(connect), Peer::start(None, echo));
    let mut config = peer.config();
    config.proxy = Some(Proxy::parse(&format!("http://us%65r:canary@127.0.0.1:{}", middle.port)).expect("a proxy"));
    let seen = client(&config, WAIT).call::<String>(&Request::get_path("/version")).expect("an answer");
    assert!(!seen.to_lowercase().contains("authorization"), "{seen}");
    assert_eq!(middle.asked(), [format!("127.0.0.1:{} Basic {}", peer.port, "dXNlcjpjYW5hcnk=")]);
    assert!(!format!("{config:?}").contains("canary"), "{config:?}");
}

#[test]
fn a_proxy_that_does_not_help_is_named_and_nothing_was_sent() {
    fn refuse(client: &mut TcpStream) -> Option<String> {
        let _ = client.read(&mut [0; 4096]);
        client.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").ok()?;
        None
    }
    let peer = Peer::start(None, echo);
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let create = Request::create(Resource::JOBS, "ns", &serde_json::json!({}));
    for (url, expected) in [
        (format!("http://127.0.0.1:{}", Middle::start(refuse).port), "403"),
        (format!("http://u:canary@127.0.0.1:{nobody}"), "cannot connect: proxy"),
        (format!("socks5://127.0.0.1:{nobody}"), "cannot connect: proxy"),
        (format!("socks5://127.0.0.1:{}", Middle::start(refuse).port), "cannot connect: proxy"),
        (format!("http://127.0.0.1:{}", Middle::start(|_| None).port), "cannot connect: proxy"),
    ] {
        let mut config = peer.config();
        config.proxy = Some(Proxy::parse(&url).expect("a proxy"));
        let error = client(&config, WAIT).call_unit(&create).expect_err("no way");
        let text = error.to_string();
        assert!(!error.maybe_applied() && text.contains(expected) && !text.contains("canary"), "{url}: {text}");
    }
    assert_eq!(peer.connections.load(Ordering::SeqCst), 0);
}
