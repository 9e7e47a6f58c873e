//! How to reach the API server, with which credential, and which configurations are refused.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::parts::{ClientCert, ConfigError, Pem, Server};
use super::plugin::Plugin;
use super::proxy::Proxy;

/// The `Authorization` header. `Debug` does not print secrets.
#[derive(Clone, PartialEq, Eq)]
pub enum Auth {
    /// None: anonymous, or by client certificate only.
    None,
    /// A fixed bearer token.
    Token(String),
    /// A file with a bearer token that rotates.
    TokenFile(PathBuf),
    /// A program that prints a token or a client certificate.
    Exec(Arc<Plugin>),
    /// User name and password.
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: String,
    },
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Token(_) => f.write_str("Token(..)"),
            Self::TokenFile(path) => f.debug_tuple("TokenFile").field(path).finish(),
            Self::Exec(plugin) => f.debug_tuple("Exec").field(plugin).finish(),
            Self::Basic { .. } => f.write_str("Basic(..)"),
        }
    }
}

/// How to reach the API server, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address.
    pub server: Server,
    /// Proxy on the way; `None` in a pod, whatever its variables say.
    pub proxy: Option<Proxy>,
    /// Its certificate authorities, or its own certificate; none are built in.
    pub ca: Option<Pem>,
    /// True if the server's certificate is not checked, by the user's wish.
    pub insecure: bool,
    /// Name to check the certificate against, if not the host.
    pub tls_server_name: Option<String>,
    /// `Authorization` header.
    pub auth: Auth,
    /// Client certificate.
    pub client_cert: Option<ClientCert>,
    /// Default namespace.
    pub namespace: String,
    /// Where this came from, for messages.
    pub source: String,
}

impl Config {
    /// Refuses what would send a credential over an unverified connection.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let has_credential = !matches!(self.auth, Auth::None);
        if !self.server.https && has_credential && !self.insecure {
            return Err(ConfigError::new(
                &self.source,
                "server",
                "the credential would be sent over an unencrypted connection",
                "use https://, or set insecure-skip-tls-verify: true to accept this",
            ));
        }
        if self.server.https && !self.insecure && self.ca.is_none() {
            return Err(ConfigError::new(
                &self.source,
                "certificate-authority",
                "not set, and no authorities of this system found",
                "set certificate-authority or certificate-authority-data of the cluster, or SSL_CERT_FILE",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(https: bool, host: &str, port: u16, prefix: &str) -> Server {
        Server { https, host: host.to_owned(), port, prefix: prefix.to_owned() }
    }

    #[test]
    fn credentials_need_a_verified_connection() {
        let base = Config {
            server: server(false, "127.0.0.1", 80, ""),
            proxy: None,
            ca: None,
            insecure: false,
            tls_server_name: None,
            auth: Auth::None,
            client_cert: None,
            namespace: "default".to_owned(),
            source: "f".to_owned(),
        };
        let token = Auth::Token("canary".to_owned());
        let https = server(true, "a", 443, "");
        let cases = [
            (base.clone(), true),
            (Config { auth: token.clone(), ..base.clone() }, false),
            (Config { auth: token.clone(), insecure: true, ..base.clone() }, true),
            (Config { server: https.clone(), ..base.clone() }, false),
            (Config { server: https.clone(), auth: token.clone(), insecure: true, ..base.clone() }, true),
            (Config { server: https, auth: token, ca: Some(Pem::Data(Vec::new())), ..base }, true),
        ];
        for (config, accepted) in cases {
            assert_eq!(config.check().is_ok(), accepted, "{config:?}");
            assert!(!format!("{config:?} {:?}", config.check()).contains("canary"));
        }
    }
}
