//! The parts of a configuration: an address, certificates, and the error of an invalid one. Independent of where they come from.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use crate::yaml;

/// Bad or missing configuration; one line that names place, field, reason and remedy, never a value that is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// File, flag or variable.
    pub place: String,
    /// Field in it; may be empty.
    pub field: String,
    /// What is wrong.
    pub reason: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl ConfigError {
    pub(crate) fn new(place: impl fmt::Display, field: &str, reason: impl fmt::Display, hint: &str) -> Self {
        Self { place: place.to_string(), field: field.to_owned(), reason: reason.to_string(), hint: hint.to_owned() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, field, reason, hint } = self;
        write!(f, "{place}: ")?;
        if !field.is_empty() {
            write!(f, "{field}: ")?;
        }
        f.write_str(reason)?;
        if !hint.is_empty() {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Address of the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// False only for an explicit `http://` in a kubeconfig.
    pub https: bool,
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Path prefix, empty or starting with a slash, without a trailing one.
    pub prefix: String,
}

impl Server {
    /// Reads a URL. Without a scheme it is https.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (https, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some(_) => return Err("scheme must be https or http".to_owned()),
            None => (true, text),
        };
        if rest.contains(['?', '#', '@']) || rest.contains(|character: char| character.is_whitespace() || character.is_control()) {
            return Err("must contain only scheme, host, port and path".to_owned());
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (host, port) = match authority.strip_prefix('[') {
            Some(inner) => {
                let (host, after) = inner.split_once(']').ok_or("missing closing bracket")?;
                host.parse::<Ipv6Addr>().map_err(|_| "not a valid IPv6 address in brackets")?;
                (host, if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or("unexpected text after the bracket")?) })
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if host.is_empty() || host.contains(':') && !authority.starts_with('[') {
            return Err("host is missing or malformed".to_owned());
        }
        let port = match port {
            Some(port) => port.parse::<u16>().ok().filter(|port| *port > 0).ok_or("port must be from 1 to 65535")?,
            None if https => 443,
            None => 80,
        };
        Ok(Self { https, host: host.to_owned(), port, prefix: path.trim_end_matches('/').to_owned() })
    }

    /// Host and port.
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> String {
        format!("{}://{}", if self.https { "https" } else { "http" }, self.authority())
    }
}

/// Certificates or a key, in PEM. `Debug` does not print them.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// The content.
    Data(Vec<u8>),
    /// A file that may be replaced: it is read again.
    File(PathBuf),
}

impl Pem {
    /// The content now.
    pub(crate) fn read(&self) -> io::Result<Cow<'_, [u8]>> {
        match self {
            Self::Data(data) => Ok(Cow::Borrowed(data)),
            Self::File(path) => yaml::read_bytes(File::open(path)?).map(Cow::Owned),
        }
    }

    /// Where it comes from, for messages: the file, or `otherwise`.
    pub(crate) fn place(&self, otherwise: &str) -> String {
        match self {
            Self::Data(_) => otherwise.to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(_) => f.write_str("Data(..)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// The client certificate of a configuration, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCert {
    /// Certificate chain.
    pub certificate: Pem,
    /// Private key.
    pub key: Pem,
    /// The entry that they stand in, before a field's name in messages.
    pub user: String,
}

/// Client certificate and key, in PEM. `Debug` does not print them.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertPem {
    /// Certificate chain.
    pub certificate: Vec<u8>,
    /// Private key.
    pub key: Vec<u8>,
}

impl fmt::Debug for ClientCertPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCertPem(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(https: bool, host: &str, port: u16, prefix: &str) -> Server {
        Server { https, host: host.to_owned(), port, prefix: prefix.to_owned() }
    }

    #[test]
    fn servers() {
        let cases = [
            ("https://example.com", Some(server(true, "example.com", 443, ""))),
            ("https://example.com:6443/", Some(server(true, "example.com", 6443, ""))),
            ("https://example.com/k8s/clusters/a/", Some(server(true, "example.com", 443, "/k8s/clusters/a"))),
            ("http://127.0.0.1:8001", Some(server(false, "127.0.0.1", 8001, ""))),
            ("http://localhost", Some(server(false, "localhost", 80, ""))),
            ("https://[fd00::1]:6443", Some(server(true, "fd00::1", 6443, ""))),
            ("https://[fd00::1]", Some(server(true, "fd00::1", 443, ""))),
            ("example.com:6443", Some(server(true, "example.com", 6443, ""))),
            ("HTTPS://example.com", Some(server(true, "example.com", 443, ""))),
            ("Http://example.com", Some(server(false, "example.com", 80, ""))),
            ("https://", None),
            ("https://a:b@example.com", None),
            ("https://example.com?x=y", None),
            ("https://exa mple.com", None),
            ("https://fd00::1", None),
            ("https://[fd00::1", None),
            ("https://[fd00::1]6443", None),
            ("https://[example.com]", None),
            ("https://example.com:0", None),
            ("https://example.com:port", None),
            ("ftp://example.com", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Server::parse(text).ok(), expected, "{text}");
        }
        assert_eq!(server(true, "fd00::1", 6443, "").origin(), "https://[fd00::1]:6443");
        assert_eq!(server(false, "a", 80, "").origin(), "http://a:80");
    }
}
