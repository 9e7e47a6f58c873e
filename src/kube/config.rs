//! Where the API server is and who we are: in-cluster, or from kubeconfig files as kubectl reads them.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::api::SERVICE_ACCOUNT_DIR;

use super::exec::Plugin;
use super::kubeconfig;

/// For tests: where the account's files are, in the place of [`SERVICE_ACCOUNT_DIR`].
const SERVICE_ACCOUNT_DIR_VARIABLE: &str = "SERVICE_ACCOUNT_DIR";

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
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some(_) => return Err("scheme is neither https nor http".to_owned()),
            None => (true, text),
        };
        if rest.contains(['?', '#', '@']) || rest.contains(|character: char| character.is_whitespace() || character.is_control()) {
            return Err("only scheme, host, port and path may be given".to_owned());
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (host, port) = match authority.strip_prefix('[') {
            Some(inner) => {
                let (host, after) = inner.split_once(']').ok_or("bracket is not closed")?;
                host.parse::<Ipv6Addr>().map_err(|_| "not an IPv6 address in brackets")?;
                (host, if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or("text after the bracket")?) })
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
            Some(port) => port.parse::<u16>().ok().filter(|port| *port > 0).ok_or("port is not a number from 1 to 65535")?,
            None if https => 443,
            None => 80,
        };
        Ok(Self { https, host: host.to_owned(), port, prefix: path.trim_end_matches('/').to_owned() })
    }

    /// Host and port, with another host in its place if given.
    pub fn authority(&self, instead: Option<&str>) -> String {
        let host = instead.unwrap_or(&self.host);
        let port = self.port;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Scheme, host and port, with another host in its place if given.
    pub fn origin(&self, instead: Option<&str>) -> String {
        format!("{}://{}", if self.https { "https" } else { "http" }, self.authority(instead))
    }
}

/// Certificate authority of the API server, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub enum Ca {
    /// Its content.
    Pem(Vec<u8>),
    /// A file, read again when a certificate is refused.
    File(PathBuf),
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pem(_) => f.write_str("Pem(..)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

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

/// How to reach the API server, and as whom. No proxy is ever used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address.
    pub server: Server,
    /// Its certificate authority; there are no built-in ones.
    pub ca: Option<Ca>,
    /// True if the server's certificate is not checked, by the user's wish.
    pub insecure: bool,
    /// Name to check the certificate against, if not the host.
    pub tls_server_name: Option<String>,
    /// `Authorization` header.
    pub auth: Auth,
    /// Client certificate.
    pub client_cert: Option<ClientCertPem>,
    /// Default namespace.
    pub namespace: String,
    /// Where this came from, for messages.
    pub source: String,
}

impl Config {
    /// The service account of the pod that we run in.
    pub fn in_cluster() -> Result<Self, ConfigError> {
        in_cluster_from(&env_var, &account_dir(&env_var))
    }

    /// Kubeconfig files, merged as kubectl does: for each name the first one counts. Missing files
    /// are passed over as long as there is one.
    pub fn from_kubeconfig(paths: &[PathBuf], context: Option<&str>) -> Result<Self, ConfigError> {
        kubeconfig::load(paths, context)
    }

    /// The explicit file, else `$KUBECONFIG`, else in-cluster if there is such a thing and no context was asked for, else `~/.kube/config`.
    pub fn load(explicit: Option<&Path>, context: Option<&str>) -> Result<Self, ConfigError> {
        load_from(explicit, context, &env_var, &account_dir(&env_var))
    }

    /// Refuses what would send a credential over an unverified connection.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let has_credential = !matches!(self.auth, Auth::None);
        if !self.server.https && has_credential && !self.insecure {
            return Err(ConfigError::new(
                &self.source,
                "server",
                "the credential would go over an unencrypted connection",
                "use https://, or set insecure-skip-tls-verify: true if that is what you want",
            ));
        }
        if self.server.https && !self.insecure && self.ca.is_none() {
            return Err(ConfigError::new(
                &self.source,
                "certificate-authority",
                "not set, and there are no built-in authorities",
                "set certificate-authority or certificate-authority-data of the cluster",
            ));
        }
        Ok(())
    }
}

fn env_var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn account_dir(env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    env(SERVICE_ACCOUNT_DIR_VARIABLE).unwrap_or_else(|| SERVICE_ACCOUNT_DIR.to_owned()).into()
}

fn load_from(
    explicit: Option<&Path>,
    context: Option<&str>,
    env: &dyn Fn(&str) -> Option<String>,
    account_dir: &Path,
) -> Result<Config, ConfigError> {
    if let Some(path) = explicit {
        return kubeconfig::load(&[path.to_owned()], context);
    }
    if let Some(list) = env("KUBECONFIG") {
        let paths: Vec<PathBuf> = std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect();
        if !paths.is_empty() {
            return kubeconfig::load(&paths, context);
        }
    }
    if context.is_none() && env("KUBERNETES_SERVICE_HOST").is_some() && account_dir.join("token").exists() {
        return in_cluster_from(env, account_dir);
    }
    let Some(home) = env("HOME") else {
        return Err(ConfigError::new("kubeconfig", "", "none given, not in a cluster, and HOME is not set", "use --kubeconfig FILE"));
    };
    kubeconfig::load(&[Path::new(&home).join(".kube/config")], context)
}

fn in_cluster_from(env: &dyn Fn(&str) -> Option<String>, account_dir: &Path) -> Result<Config, ConfigError> {
    let hint = "only set in a pod; elsewhere use --kubeconfig FILE";
    let required = |name: &str| env(name).ok_or_else(|| ConfigError::new(name, "", "not set", hint));
    let host = required("KUBERNETES_SERVICE_HOST")?;
    let port = required("KUBERNETES_SERVICE_PORT")?;
    let authority = if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let server = Server::parse(&format!("https://{authority}"))
        .map_err(|reason| ConfigError::new("KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT", "", reason, hint))?;
    let token = account_dir.join("token");
    let ca = account_dir.join("ca.crt");
    for path in [&token, &ca] {
        if !path.exists() {
            let hint = "the pod's service account must be mounted (automountServiceAccountToken)";
            return Err(ConfigError::new(path.display(), "", "no such file", hint));
        }
    }
    let namespace = std::fs::read_to_string(account_dir.join("namespace")).map(|text| text.trim().to_owned()).unwrap_or_default();
    Ok(Config {
        server,
        ca: Some(Ca::File(ca)),
        insecure: false,
        tls_server_name: None,
        auth: Auth::TokenFile(token),
        client_cert: None,
        namespace: if namespace.is_empty() { "default".to_owned() } else { namespace },
        source: "in-cluster".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::scripted::TempDir;

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
        assert_eq!(server(true, "fd00::1", 6443, "").origin(None), "https://[fd00::1]:6443");
        assert_eq!(server(false, "a", 80, "").origin(Some("b")), "http://b:80");
    }

    fn env(pairs: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
        move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn in_cluster_reads_the_mounted_account() {
        let dir = TempDir::new();
        let v6 = env(&[("KUBERNETES_SERVICE_HOST", "fd00::1"), ("KUBERNETES_SERVICE_PORT", "443")]);
        let missing = in_cluster_from(&v6, dir.path()).expect_err("no token");
        assert!(missing.to_string().contains("token: no such file"), "{missing}");
        dir.write("token", "t");
        dir.write("ca.crt", "c");
        let config = in_cluster_from(&v6, dir.path()).expect("a config");
        assert_eq!(config.server, server(true, "fd00::1", 443, ""));
        assert_eq!(config.namespace, "default");
        dir.write("namespace", "operators\n");
        let v4 = env(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("KUBERNETES_SERVICE_PORT", "6443")]);
        let config = in_cluster_from(&v4, dir.path()).expect("a config");
        assert_eq!((config.server, config.namespace.as_str()), (server(true, "10.0.0.1", 6443, ""), "operators"));
        assert_eq!(config.auth, Auth::TokenFile(dir.path().join("token")));
        assert_eq!(config.ca, Some(Ca::File(dir.path().join("ca.crt"))));
        let unset = in_cluster_from(&env(&[]), dir.path()).expect_err("no host");
        assert_eq!(unset.to_string(), "KUBERNETES_SERVICE_HOST: not set (only set in a pod; elsewhere use --kubeconfig FILE)");
    }

    #[test]
    fn load_prefers_the_flag_then_the_variable_then_the_cluster_then_home() {
        let dir = TempDir::new();
        let kubeconfig = |server: &str| {
            format!(
                "clusters: [{{name: c, cluster: {{server: 'http://{server}'}}}}]\ncontexts: [{{name: x, context: {{cluster: c}}}}]\ncurrent-context: x\n"
            )
        };
        let flag = dir.write("flag", kubeconfig("flag"));
        let variable = dir.write("variable", kubeconfig("variable"));
        let home = dir.path().join("home");
        std::fs::create_dir_all(home.join(".kube")).expect("mkdir");
        std::fs::write(home.join(".kube/config"), kubeconfig("home")).expect("write");
        dir.write("token", "t");
        dir.write("ca.crt", "c");
        // (flag given, KUBECONFIG set, in a cluster, context asked for) -> host
        let cases = [
            (true, true, true, false, "flag"),
            (false, true, true, false, "variable"),
            (false, false, true, false, "10.0.0.1"),
            (false, false, true, true, "home"),
            (false, false, false, false, "home"),
        ];
        for (with_flag, with_variable, in_cluster, with_context, expected) in cases {
            let env = |name: &str| match name {
                "KUBECONFIG" if with_variable => Some(format!(":/nonexistent:{}", variable.display())),
                "KUBERNETES_SERVICE_HOST" if in_cluster => Some("10.0.0.1".to_owned()),
                "KUBERNETES_SERVICE_PORT" if in_cluster => Some("443".to_owned()),
                "HOME" => Some(home.display().to_string()),
                _ => None,
            };
            let config = load_from(with_flag.then_some(flag.as_path()), with_context.then_some("x"), &env, dir.path()).expect("a config");
            assert_eq!(config.server.host, expected);
        }
    }

    #[test]
    fn credentials_need_a_verified_connection() {
        let base = Config {
            server: server(false, "127.0.0.1", 80, ""),
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
            (Config { server: https, auth: token, ca: Some(Ca::Pem(Vec::new())), ..base }, true),
        ];
        for (config, accepted) in cases {
            assert_eq!(config.check().is_ok(), accepted, "{config:?}");
            assert!(!format!("{config:?} {:?}", config.check()).contains("canary"));
        }
    }
}
