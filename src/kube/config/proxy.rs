//! The proxy between us and the API server: of a kubeconfig (`proxy-url`), or of the variables that kubectl takes too. Pure.

use std::fmt;
use std::net::IpAddr;

use super::parts::Server;

/// Longest user name and password in bytes: the protocol has one byte for their lengths (RFC 1929).
const LOGIN_MAX: usize = 255;

/// A proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// How it is spoken to.
    pub protocol: ProxyProtocol,
    /// Where it is.
    pub server: Server,
    /// What it wants to know of us.
    pub login: Option<ProxyLogin>,
    /// The field or variable that names it, for messages.
    pub origin: &'static str,
}

/// How a proxy is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// HTTP, with CONNECT (RFC 9110, section 9.3.6).
    Http,
    /// SOCKS 5 (RFC 1928). It looks up names, as with kubectl.
    Socks5,
}

/// User name and password for a proxy. `Debug` does not print them.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyLogin {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
}

impl fmt::Debug for ProxyLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProxyLogin(..)")
    }
}

impl Proxy {
    /// Reads the URL of a `proxy-url`; without a scheme it is `http`. The error quotes nothing of it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
            None if text.contains("//") => (String::new(), text),
            None => ("http".to_owned(), text),
        };
        let (protocol, port) = match scheme.as_str() {
            "http" => (ProxyProtocol::Http, 80),
            "socks5" | "socks5h" => (ProxyProtocol::Socks5, 1080),
            "https" => return Err("a proxy that is reached over TLS is not supported".to_owned()),
            _ => return Err("scheme must be http or socks5".to_owned()),
        };
        let rest = rest.trim_end_matches('/');
        let (login, authority) = rest.rsplit_once('@').map_or((None, rest), |(login, authority)| (Some(login), authority));
        let has_port = authority.rsplit(']').next().is_some_and(|after| after.contains(':'));
        let port = if has_port { String::new() } else { format!(":{port}") };
        let server = Server::parse(&format!("http://{authority}{port}"))?;
        let login = login.map(ProxyLogin::parse).transpose()?;
        let origin = "proxy-url";
        if server.prefix.is_empty() { Ok(Self { protocol, server, login, origin }) } else { Err("must have no path".to_owned()) }
    }

    /// The proxy of the environment for this server, by the rules of Go's `httpproxy`, which are kubectl's: `HTTPS_PROXY` or
    /// `HTTP_PROXY` by the server's scheme, never for this machine itself, nor for what `NO_PROXY` lists. The error is the variable
    /// and what is wrong with it.
    pub(super) fn of_environment(server: &Server, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, (&'static str, String)> {
        let names = if server.https { ["HTTPS_PROXY", "https_proxy"] } else { ["HTTP_PROXY", "http_proxy"] };
        let Some((name, url)) = names.into_iter().find_map(|name| Some((name, env(name)?))) else { return Ok(None) };
        let list = env("NO_PROXY").or_else(|| env("no_proxy")).unwrap_or_default();
        if is_this_machine(&server.host) || list.split(',').any(|entry| is_listed(server, entry.trim())) {
            return Ok(None);
        }
        Self::parse(&url).map(|proxy| Some(Self { origin: name, ..proxy })).map_err(|reason| (name, reason))
    }
}

impl ProxyLogin {
    fn parse(text: &str) -> Result<Self, String> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        // A slash in it is written as %2F; otherwise the host would end there.
        let is_valid = |part: &String| part.len() <= LOGIN_MAX && !text.contains(['/', '?', '#']);
        let part = |text| decode(text).filter(is_valid).ok_or("user name or password is not valid");
        Ok(Self { user: part(user)?, password: part(password)? })
    }
}

/// Percent-encoding (RFC 3986, section 2.1) undone.
fn decode(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (code, rest) = piece.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether an entry of `NO_PROXY` means this server: `*`, an address, a network, or a domain with all that is in it; each of the last
/// three with a port or without. A domain with a leading dot means only what is in it.
fn is_listed(server: &Server, entry: &str) -> bool {
    if entry == "*" {
        return true;
    }
    let address = server.host.parse::<IpAddr>().ok();
    if let Some((network, bits)) = entry.split_once('/') {
        return match (network.parse(), bits.parse(), address) {
            (Ok(network), Ok(bits), Some(address)) => is_in(address, network, bits),
            _ => false,
        };
    }
    let is_plain_v6 = entry.matches(':').count() > 1 && !entry.starts_with('[');
    let (entry, port) = match entry.rsplit_once(':') {
        Some((entry, port)) if !is_plain_v6 && !port.ends_with(']') => (entry, Some(port)),
        _ => (entry, None),
    };
    if entry.is_empty() || port.is_some_and(|port| port.parse() != Ok(server.port)) {
        return false;
    }
    let entry = entry.trim_start_matches('[').trim_end_matches(']');
    if let Ok(listed) = entry.parse::<IpAddr>() {
        return address == Some(listed);
    }
    let (entry, host) = (entry.to_ascii_lowercase(), server.host.to_ascii_lowercase());
    match entry.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(&entry) {
        inside if inside.starts_with('.') => host.ends_with(inside),
        domain => host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
    }
}

/// Whether an address is in a network of so many bits.
fn is_in(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    let numbers = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => Some((u128::from(address.to_bits()), u128::from(network.to_bits()), 32)),
        (IpAddr::V6(address), IpAddr::V6(network)) => Some((address.to_bits(), network.to_bits(), 128)),
        _ => None,
    };
    numbers.is_some_and(|(address, network, all)| bits <= all && (address ^ network).checked_shr(all - bits).unwrap_or(0) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies() {
        for (text, expected) in [
            ("http://p:3128", Ok("Http p:3128 ")),
            ("http://p", Ok("Http p:80 ")),
            ("p:3128/", Ok("Http p:3128 ")),
            ("socks5://127.0.0.1:1080", Ok("Socks5 127.0.0.1:1080 ")),
            ("socks5h://p", Ok("Socks5 p:1080 ")),
            ("http://u:canary@p:1", Ok("Http p:1 u canary")),
            ("http://u@p:1", Ok("Http p:1 u ")),
            ("http://%75:c%40na:ry%25@p:1", Ok("Http p:1 u c@na:ry%")),
            ("http://[fd00::1]:1", Ok("Http [fd00::1]:1 ")),
            ("http://[fd00::1]", Ok("Http [fd00::1]:80 ")),
            ("HTTP://p:3128", Ok("Http p:3128 ")),
            ("Socks5://p", Ok("Socks5 p:1080 ")),
            ("http//u:canary@p:1", Err("scheme must be http or socks5")),
            ("http://u:can/ary@p:1", Err("user name or password is not valid")),
            ("https://p:1", Err("a proxy that is reached over TLS is not supported")),
            ("ftp://canary", Err("scheme must be http or socks5")),
            ("http://", Err("host is missing or malformed")),
            ("http://p:0", Err("port must be from 1 to 65535")),
            ("http://p/canary", Err("must have no path")),
            ("http://p:1/canary", Err("must have no path")),
            ("http://%4:canary@p", Err("user name or password is not valid")),
            ("http://u:canary%ff@p", Err("user name or password is not valid")),
            ("http://p?canary", Err("must contain only scheme, host, port and path")),
        ] {
            let proxy = Proxy::parse(text);
            let shown = proxy.as_ref().map(|Proxy { protocol, server, login, origin: _ }| {
                let login = login.as_ref().map_or_else(String::new, |login| format!("{} {}", login.user, login.password));
                format!("{protocol:?} {} {login}", server.authority())
            });
            assert_eq!(shown.as_deref().map_err(|reason| reason.as_str()), expected, "{text}");
            assert!(!format!("{proxy:?}").contains("canary"), "{proxy:?}");
        }
        assert!(Proxy::parse(&format!("http://u:{}@p", "x".repeat(256))).is_err());
    }

    #[test]
    fn no_proxy_is_read_as_kubectl_reads_it() {
        for (server, list, is_direct) in [
            ("https://a.example.com", "", false),
            ("https://a.example.com", "*", true),
            ("https://a.example.com", "example.com", true),
            ("https://A.example.com", "b, Example.com", true),
            ("https://a.example.com", ".example.com", true),
            ("https://a.example.com", "*.example.com", true),
            ("https://example.com", ".example.com", false),
            ("https://example.com", "*.example.com", false),
            ("https://api.test", "*api.test", false),
            ("https://a.api.test", "*api.test", false),
            ("https://api.test", "*test", false),
            ("https://api.test", "..test", false),
            ("https://api.test", "*.test:443", true),
            ("https://api.test", ".test:444", false),
            ("https://api.test", ".", false),
            ("https://api.test", ":443", false),
            ("https://api.test", "test", true),
            ("https://example.com", "example.com", true),
            ("https://badexample.com", "example.com", false),
            ("https://a.example.com:6443", "example.com:6443", true),
            ("https://a.example.com:6443", "example.com:443", false),
            ("https://10.1.2.3", "10.1.2.3", true),
            ("https://10.1.2.3:6443", "10.1.2.3:6443", true),
            ("https://10.1.2.3", "10.0.0.0/8", true),
            ("https://10.1.2.3", "10.2.0.0/16", false),
            ("https://10.1.2.3", "0.0.0.0/0", true),
            ("https://10.1.2.3", "10.0.0.0/33", false),
            ("https://[fd00::1]", "fd00::/8", true),
            ("https://[fd00::1]", "fd00::1", true),
            ("https://[fd00::1]:6443", "[fd00::1]:6443", true),
            ("https://[fd00::1]", "fd01::1,10.0.0.0/8", false),
            ("https://127.0.0.1:6443", "", true),
            ("https://localhost:6443", "", true),
            ("https://[::1]:6443", "", true),
        ] {
            let env = |name: &str| match name {
                "HTTPS_PROXY" => Some("http://p:1".to_owned()),
                "NO_PROXY" => Some(list.to_owned()).filter(|list| !list.is_empty()),
                _ => None,
            };
            let proxy = Proxy::of_environment(&Server::parse(server).expect("a server"), &env).expect("a valid URL");
            assert_eq!(proxy.is_none(), is_direct, "{server} with {list:?}");
        }
    }

    #[test]
    fn the_variable_goes_by_the_servers_scheme() {
        let env = |name: &str| matches!(name, "http_proxy" | "HTTPS_PROXY").then(|| format!("http://{}", &name[..5].to_lowercase()));
        let of = |server: &str| {
            Proxy::of_environment(&Server::parse(server).expect("a server"), &env).expect("valid").map(|proxy| proxy.server.host)
        };
        assert_eq!((of("https://a"), of("http://a")), (Some("https".to_owned()), Some("http_".to_owned())));
        let bad = Proxy::of_environment(&Server::parse("https://a").expect("a server"), &|_| Some("ftp://canary".to_owned()));
        assert_eq!(bad, Err(("HTTPS_PROXY", "scheme must be http or socks5".to_owned())));
    }
}
