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
