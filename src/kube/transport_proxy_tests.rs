//! Through a proxy, beside the same without one.

use super::*;
use crate::kube::config::Proxy;
use tunnel::{ONLY_THE_PROXY, Tunnel, connect, socks};

#[path = "../../tests/scripted/support/tunnel.rs"]
mod tunnel;

#[test]
fn requests_go_through_the_configured_proxy_to_the_servers_own_name() {
    let tls = || server_tls(testdata::NAMED, testdata::NAMED_KEY, None);
    for (accept, url) in [(connect as fn(&mut TcpStream) -> Option<String>, "http://"), (socks, "socks5://")] {
        for (tls, host) in [(tls(), "127.0.0.1"), (tls(), ONLY_THE_PROXY), (None, "127.0.0.1")] {
            let (middle, peer) = (Tunnel::start(accept), Peer::start(tls.clone(), echo));
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
    let (middle, peer) = (Tunnel::start(connect), Peer::start(None, echo));
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
        (format!("http://127.0.0.1:{}", Tunnel::start(refuse).port), "403"),
        (format!("http://u:canary@127.0.0.1:{nobody}"), "cannot connect through the proxy 127.0.0.1:"),
        (format!("socks5://127.0.0.1:{nobody}"), "cannot connect through the proxy 127.0.0.1:"),
        (format!("socks5://127.0.0.1:{}", Tunnel::start(refuse).port), "cannot connect through the proxy 127.0.0.1:"),
        (format!("http://127.0.0.1:{}", Tunnel::start(|_| None).port), "cannot connect through the proxy 127.0.0.1:"),
    ] {
        let mut config = peer.config();
        config.proxy = Some(Proxy::parse(&url).expect("a proxy"));
        let error = client(&config, WAIT).call_unit(&create).expect_err("no way");
        let text = error.to_string();
        assert!(!error.maybe_applied() && text.contains(expected) && !text.contains("canary"), "{url}: {text}");
    }
    assert_eq!(peer.connections.load(Ordering::SeqCst), 0);
}

/// Takes a login where one is offered, and is content without.
fn socks_without_login(client: &mut TcpStream) -> Option<String> {
    let mut methods = [0; 4];
    client.peek(&mut methods).ok()?;
    // Both, so that the proxy may choose.
    if methods != [5, 2, 0, 2] {
        return None;
    }
    socks(client)
}

/// RFC 1929.
fn socks_with_login(client: &mut TcpStream) -> Option<String> {
    let mut methods = [0; 4];
    client.read_exact(&mut methods).ok()?;
    client.write_all(&[5, 2]).ok()?;
    let mut login = [0; 3 + "user".len() + "canary".len()];
    client.read_exact(&mut login).ok()?;
    if &login != b"\x01\x04user\x06canary" {
        return None;
    }
    client.write_all(&[1, 0]).ok()?;
    let mut request = [0; 10];
    client.read_exact(&mut request).ok()?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).ok()?;
    Some(format!("127.0.0.1:{}", u16::from_be_bytes([request[8], request[9]])))
}

/// Ends its lines as RFC 9112, section 2.2 tells recipients to accept.
fn connect_with_bare_lines(client: &mut TcpStream) -> Option<String> {
    let mut request = [0; 4096];
    let amount = client.read(&mut request).ok()?;
    let text = String::from_utf8_lossy(&request[..amount]).into_owned();
    client.write_all(b"HTTP/1.1 200\nVia: x\n\n").ok()?;
    Some(text.split(' ').nth(1)?.to_owned())
}

#[test]
fn proxies_that_take_a_login_or_none_and_bare_lines_are_understood() {
    for (accept, url) in [
        (socks_without_login as fn(&mut TcpStream) -> Option<String>, "socks5://user:canary@"),
        (socks_with_login, "socks5://user:canary@"),
        (connect_with_bare_lines, "http://"),
    ] {
        let (middle, peer) = (Tunnel::start(accept), Peer::start(None, echo));
        let mut config = peer.config();
        config.proxy = Some(Proxy::parse(&format!("{url}127.0.0.1:{}", middle.port)).expect("a proxy"));
        client(&config, Duration::from_secs(5)).call::<String>(&Request::get_path("/version")).expect("an answer");
    }
}

#[test]
fn a_proxy_that_cannot_be_looked_up_is_named_with_its_place() {
    let mut config = Peer::start(None, echo).config();
    config.proxy = Some(Proxy::parse("http://u:canary@proxy.invalid:3").expect("a proxy"));
    let error = client(&config, WAIT).ping().expect_err("no such name").to_string();
    assert!(error.contains("cannot connect through the proxy proxy.invalid:3 (proxy-url): ") && !error.contains("canary"), "{error}");
}
