//! Kubeconfig files: read, merge, resolve to a [`Config`]. Errors never hold values of a file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::config::{Auth, Ca, ClientCertPem, Config, ConfigError, Server};
use super::error::{hide_values, one_line};

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    current_context: Option<String>,
    #[serde(default)]
    clusters: Option<Vec<Named>>,
    #[serde(default)]
    users: Option<Vec<Named>>,
    #[serde(default)]
    contexts: Option<Vec<Named>>,
}

/// An element of one of the lists.
#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(default, rename = "cluster", alias = "user", alias = "context")]
    fields: Option<Fields>,
}

/// What a cluster, a user or a context says. No two of them have a field of the same name, and one type for
/// all is a third of the code.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Fields {
    // Clusters.
    #[serde(default)]
    server: Option<String>,
    #[serde(default)]
    certificate_authority: Option<String>,
    #[serde(default)]
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: Option<bool>,
    #[serde(default)]
    tls_server_name: Option<String>,
    #[serde(default)]
    proxy_url: Option<String>,
    // Users.
    #[serde(default)]
    client_certificate: Option<String>,
    #[serde(default)]
    client_certificate_data: Option<String>,
    #[serde(default)]
    client_key: Option<String>,
    #[serde(default)]
    client_key_data: Option<String>,
    #[serde(default)]
    token: Option<String>,
    #[serde(default, rename = "tokenFile")]
    token_file: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    exec: Option<serde_json::Value>,
    #[serde(default)]
    auth_provider: Option<serde_json::Value>,
    #[serde(default, rename = "as")]
    impersonate: Option<serde_json::Value>,
    // Contexts.
    #[serde(default)]
    cluster: Option<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
}

/// An entry, and the file that it came from: its relative paths start there.
struct From {
    file: PathBuf,
    entry: Fields,
}

#[derive(Default)]
struct Merged {
    /// Name, and the file that says so.
    current_context: Option<(String, PathBuf)>,
    clusters: BTreeMap<String, From>,
    users: BTreeMap<String, From>,
    contexts: BTreeMap<String, From>,
}

impl Merged {
    fn add(&mut self, path: &Path, file: File) {
        let File { current_context, clusters, users, contexts } = file;
        if let (None, Some(name)) = (&self.current_context, present(current_context)) {
            self.current_context = Some((name, path.to_owned()));
        }
        for (entries, list) in [(&mut self.clusters, clusters), (&mut self.users, users), (&mut self.contexts, contexts)] {
            for Named { name, fields } in list.unwrap_or_default() {
                entries.entry(name).or_insert_with(|| From { file: path.to_owned(), entry: fields.unwrap_or_default() });
            }
        }
    }
}

/// Reads the files, the first of which counts for each name, and resolves the context.
pub(super) fn load(paths: &[PathBuf], context: Option<&str>) -> Result<Config, ConfigError> {
    let mut merged = Merged::default();
    let mut found = Vec::new();
    let mut missing = None;
    for path in paths {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                merged.add(path, parse(path, &text)?);
                found.push(path.display().to_string());
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => missing = Some(path),
            Err(error) => return Err(ConfigError::new(path.display(), "", error, "check the file and its permissions")),
        }
    }
    if found.is_empty() {
        let place = missing.map_or_else(|| "kubeconfig".to_owned(), |path| path.display().to_string());
        return Err(ConfigError::new(place, "", "no such file", "use --kubeconfig FILE or set KUBECONFIG"));
    }
    resolve(&merged, &found.join(":"), context)
}

fn parse(path: &Path, text: &str) -> Result<File, ConfigError> {
    if text.trim().is_empty() {
        return Ok(File::default());
    }
    serde_yaml::from_str::<Option<File>>(text).map(Option::unwrap_or_default).map_err(|error| {
        let reason = one_line(&hide_values(&error.to_string()), 300);
        ConfigError::new(path.display(), "", format!("not a kubeconfig: {reason}"), "compare with `kubectl config view`")
    })
}

fn resolve(merged: &Merged, all: &str, context: Option<&str>) -> Result<Config, ConfigError> {
    let (name, place) = match (context, &merged.current_context) {
        (Some(name), _) => (name, all.to_owned()),
        (None, Some((name, file))) => (name.as_str(), file.display().to_string()),
        (None, None) => return Err(ConfigError::new(all, "current-context", "not set", "use --context NAME")),
    };
    let unknown = |kind: &str, place: &dyn fmt::Display, name: &str, known: Vec<&String>| {
        let known = known.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "there are none".to_owned() } else { format!("there are: {}", one_line(&known, 300)) };
        ConfigError::new(place, kind, format!("no {kind} named {}", one_line(name, 100)), &known)
    };
    let context = merged.contexts.get(name).ok_or_else(|| unknown("context", &place, name, merged.contexts.keys().collect()))?;
    let Fields { cluster, user, namespace, .. } = &context.entry;
    let place = context.file.display();
    let cluster_name = cluster.as_deref().unwrap_or_default();
    let cluster =
        merged.clusters.get(cluster_name).ok_or_else(|| unknown("cluster", &place, cluster_name, merged.clusters.keys().collect()))?;
    let nobody = From { file: context.file.clone(), entry: Fields::default() };
    let (user_name, user) = match user.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => (name, merged.users.get(name).ok_or_else(|| unknown("user", &place, name, merged.users.keys().collect()))?),
        None => ("", &nobody),
    };
    let config = build(cluster_name, cluster, user_name, user, namespace.clone())?;
    config.check()?;
    Ok(config)
}

fn build(cluster_name: &str, cluster: &From, user_name: &str, user: &From, namespace: Option<String>) -> Result<Config, ConfigError> {
    let at_cluster = Entry { file: &cluster.file, label: format!("cluster {}", one_line(cluster_name, 100)) };
    let at_user = Entry { file: &user.file, label: format!("user {}", one_line(user_name, 100)) };
    let Fields { server, certificate_authority, certificate_authority_data, insecure_skip_tls_verify, tls_server_name, proxy_url, .. } =
        cluster.entry.clone();
    let server = present(server).ok_or_else(|| at_cluster.error("server", "not set", "set it to https://HOST:PORT"))?;
    let server = Server::parse(&server).map_err(|reason| at_cluster.error("server", reason, "set it to https://HOST:PORT"))?;
    if present(proxy_url).is_some() {
        return Err(at_cluster.error("proxy-url", "proxies are not supported", "use a context that reaches the server directly"));
    }
    let insecure = insecure_skip_tls_verify.unwrap_or(false);
    let ca = match (present(certificate_authority_data), present(certificate_authority)) {
        _ if insecure => None,
        (Some(data), _) => Some(Ca::Pem(at_cluster.decode("certificate-authority-data", &data)?)),
        (None, Some(path)) => Some(Ca::File(at_cluster.resolve(&path))),
        (None, None) => None,
    };
    let (auth, client_cert) = build_user(&at_user, user.entry.clone())?;
    Ok(Config {
        server,
        ca,
        insecure,
        tls_server_name: present(tls_server_name),
        auth,
        client_cert,
        namespace: present(namespace).unwrap_or_else(|| "default".to_owned()),
        source: cluster.file.display().to_string(),
    })
}

fn build_user(at: &Entry<'_>, user: Fields) -> Result<(Auth, Option<ClientCertPem>), ConfigError> {
    let Fields {
        client_certificate,
        client_certificate_data,
        client_key,
        client_key_data,
        token,
        token_file,
        username,
        password,
        exec,
        auth_provider,
        impersonate,
        ..
    } = user;
    if exec.is_some() {
        return Err(at.error("exec", "credential plugins are not supported yet", "use a user with a token or a client certificate"));
    }
    if auth_provider.is_some() {
        return Err(at.error("auth-provider", "not supported", "Kubernetes removed it; use a token or a client certificate"));
    }
    if impersonate.is_some() {
        return Err(at.error("as", "impersonation is not supported", "use a user of its own"));
    }
    let certificate = at.content("client-certificate", client_certificate_data, client_certificate)?;
    let key = at.content("client-key", client_key_data, client_key)?;
    let client_cert = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(ClientCertPem { certificate, key }),
        (None, None) => None,
        (Some(_), None) => return Err(at.error("client-key", "not set", "a client certificate needs its key")),
        (None, Some(_)) => return Err(at.error("client-certificate", "not set", "a client key needs its certificate")),
    };
    let auth = match (present(token_file), present(token), present(username)) {
        (Some(path), _, _) => Auth::TokenFile(at.resolve(&path)),
        (None, Some(token), _) => {
            if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(at.error("token", "holds characters that no token has", "check for line breaks and spaces"));
            }
            Auth::Token(token)
        }
        (None, None, Some(username)) => Auth::Basic { username, password: password.unwrap_or_default() },
        (None, None, None) => Auth::None,
    };
    Ok((auth, client_cert))
}

/// Where an entry stands, for messages and relative paths.
struct Entry<'a> {
    file: &'a Path,
    label: String,
}

impl Entry<'_> {
    fn error(&self, field: &str, reason: impl fmt::Display, hint: &str) -> ConfigError {
        ConfigError::new(self.file.display(), &format!("{}: {field}", self.label), reason, hint)
    }

    /// Relative paths start at the file's folder.
    fn resolve(&self, path: &str) -> PathBuf {
        self.file.parent().map_or_else(|| PathBuf::from(path), |folder| folder.join(path))
    }

    fn decode(&self, field: &str, data: &str) -> Result<Vec<u8>, ConfigError> {
        let compact: String = data.split_whitespace().collect();
        STANDARD.decode(compact).map_err(|_| self.error(field, "not base64", "it holds the PEM text in base64"))
    }

    /// Data in the file counts before a path.
    fn content(&self, field: &str, data: Option<String>, path: Option<String>) -> Result<Option<Vec<u8>>, ConfigError> {
        match (present(data), present(path)) {
            (Some(data), _) => self.decode(&format!("{field}-data"), &data).map(Some),
            (None, Some(path)) => {
                let path = self.resolve(&path);
                std::fs::read(&path).map(Some).map_err(|error| self.error(field, format!("{}: {error}", path.display()), "check the path"))
            }
            (None, None) => Ok(None),
        }
    }
}

/// kubectl takes an empty text for absent.
fn present(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

#[cfg(test)]
#[path = "kubeconfig_tests.rs"]
mod tests;
