//! Kubeconfig files: read, merged and resolved to a [`Config`] by the rules of kubectl. Errors never contain values of a file.
//!
//! If there are several files, the first one counts for each name and for the current context; relative paths start at the
//! directory of the file that contains them.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::text::one_line;
use crate::yaml;

use super::access::{Auth, Config};
use super::parts::{ClientCert, ConfigError, Pem, Server};
use super::plugin::{Plugin, PluginSpec};
use super::proxy::Proxy;

/// Versions of the plugins' protocol.
const EXEC_GROUP: &str = "client.authentication.k8s.io/";
/// What to do about a proxy that cannot be used.
const PROXY_HINT: &str = "use http://HOST:PORT or socks5://HOST:PORT";
/// Extension of a cluster that is meant for its plugin.
const EXEC_EXTENSION: &str = "client.authentication.k8s.io/exec";

/// Largest file in bytes. Some hold hundreds of clusters with their certificates.
const FILE_MAX: usize = 8 * 1024 * 1024;
/// Where systems keep the authorities that they trust, as Go's `crypto/x509` looks for them.
const SYSTEM_AUTHORITIES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The variables of the environment.
type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A file and its content, whose lists are lists of named entries.
struct File {
    path: PathBuf,
    content: Value,
}

/// Reads the files, the first of which counts for each name, and resolves the context.
pub(super) fn load(paths: &[PathBuf], context: Option<&str>, env: Env<'_>) -> Result<Config, ConfigError> {
    let mut files = Vec::new();
    let mut missing = None;
    for path in paths {
        match yaml::read_file(path) {
            Ok(text) => files.push(File { path: path.clone(), content: parse(path, &text)? }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing = missing.or(Some(path)),
            Err(error) => return Err(ConfigError::new(path.display(), "", error, "check the file and its permissions")),
        }
    }
    if files.is_empty() {
        let place = missing.map_or_else(|| "kubeconfig".to_owned(), |path| path.display().to_string());
        return Err(ConfigError::new(place, "", "no such file", "use --kubeconfig FILE or set KUBECONFIG"));
    }
    resolve(&files, context, env)
}

fn parse(path: &Path, text: &str) -> Result<Value, ConfigError> {
    let refuse = |reason: &str| {
        ConfigError::new(path.display(), "", format!("not a valid kubeconfig: {reason}"), "compare with `kubectl config view`")
    };
    let Some((line, document)) = yaml::documents(text).into_iter().next() else { return Ok(Value::Null) };
    let content = yaml::parse_within(line, document, FILE_MAX).map_err(|reason| refuse(&reason))?;
    if !content.is_object() && !content.is_null() {
        return Err(refuse("must be a mapping"));
    }
    let top = Entry { file: path, label: String::new(), fields: &content };
    for (field, expected) in [("kind", "Config"), ("apiVersion", "v1")] {
        if top.text(field)?.is_some_and(|value| value != expected) {
            return Err(top.error(field, format!("must be {expected}"), "this is not a kubeconfig"));
        }
    }
    for kind in ["cluster", "user", "context"] {
        let list = match content.get(format!("{kind}s")) {
            None | Some(Value::Null) => continue,
            Some(Value::Array(list)) => list,
            Some(_) => return Err(refuse(&format!("{kind}s must be a list"))),
        };
        let mut names = Map::new();
        for entry in list {
            // As with kubectl, one without a name does no harm; nothing can refer to it.
            let name = match entry.get("name") {
                None | Some(Value::Null) if entry.is_object() || entry.is_null() => continue,
                Some(Value::String(name)) => name,
                Some(_) => return Err(refuse(&format!("{kind}s: a name must be a string"))),
                None => return Err(refuse(&format!("{kind}s: an entry is not a mapping"))),
            };
            if names.insert(name.to_owned(), Value::Null).is_some() {
                return Err(refuse(&format!("{kind}s: duplicate name {}", one_line(name, 100))));
            }
            if entry.get(kind).is_some_and(|fields| !fields.is_object() && !fields.is_null()) {
                return Err(refuse(&format!("{kind} {} must be a mapping", one_line(name, 100))));
            }
        }
    }
    Ok(content)
}

/// Names of all entries of a kind, with their fields and file.
fn entries<'a>(files: &'a [File], kind: &'a str) -> impl Iterator<Item = (&'a str, Entry<'a>)> {
    files.iter().flat_map(move |file| {
        let list = file.content.get(format!("{kind}s")).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(move |entry| {
            let name = entry.get("name")?.as_str()?;
            let fields = entry.get(kind).unwrap_or(&Value::Null);
            Some((name, Entry { file: &file.path, label: format!("{kind} {}: ", one_line(name, 100)), fields }))
        })
    })
}

fn find<'a>(files: &'a [File], kind: &'a str, name: &str, place: &dyn fmt::Display) -> Result<Entry<'a>, ConfigError> {
    if let Some((_, entry)) = entries(files, kind).find(|(known, _)| *known == name) {
        return Ok(entry);
    }
    Err(ConfigError::new(place, kind, format!("no {kind} named {}", one_line(name, 100)), &available(files, kind)))
}

fn available(files: &[File], kind: &str) -> String {
    // In order and each once.
    let mut known = Map::new();
    entries(files, kind).for_each(|(name, _)| drop(known.insert(name.to_owned(), Value::Null)));
    let mut hint = String::new();
    for name in known.keys() {
        hint.push_str(if hint.is_empty() { "available: " } else { ", " });
        hint.push_str(name);
    }
    if hint.is_empty() { "none found".to_owned() } else { one_line(&hint, 300) }
}

fn resolve(files: &[File], context: Option<&str>, env: Env<'_>) -> Result<Config, ConfigError> {
    let all = files.iter().map(|file| file.path.display().to_string()).collect::<Vec<_>>().join(":");
    let mut chosen = context.map(|name| (name.to_owned(), all.clone()));
    for file in files {
        if chosen.is_none() {
            let top = Entry { file: &file.path, label: String::new(), fields: &file.content };
            chosen = top.text("current-context")?.map(|name| (name, file.path.display().to_string()));
        }
    }
    let Some((name, place)) = chosen else { return Err(ConfigError::new(all, "current-context", "not set", "use --context NAME")) };
    let context = find(files, "context", &name, &place)?;
    let place = context.file.display();
    let Some(name) = context.text("cluster")? else { return Err(context.error("cluster", "not set", &available(files, "cluster"))) };
    let cluster = find(files, "cluster", &name, &place)?;
    let user = match context.text("user")? {
        Some(name) => find(files, "user", &name, &place)?,
        None => Entry { file: context.file, label: String::new(), fields: &Value::Null },
    };
    let config = build(&cluster, &user, context.text("namespace")?, env)?;
    config.check()?;
    Ok(config)
}

fn build(cluster: &Entry<'_>, user: &Entry<'_>, namespace: Option<String>, env: Env<'_>) -> Result<Config, ConfigError> {
    let address = cluster.text("server")?.ok_or_else(|| cluster.error("server", "not set", "set it to https://HOST:PORT"))?;
    let server = Server::parse(&address).map_err(|reason| cluster.error("server", reason, "set it to https://HOST:PORT"))?;
    let proxy = match cluster.text("proxy-url")? {
        Some(url) => Some(Proxy::parse(&url).map_err(|reason| cluster.error("proxy-url", reason, PROXY_HINT))?),
        None => Proxy::of_environment(&server, env).map_err(|(name, reason)| ConfigError::new(name, "", reason, PROXY_HINT))?,
    };
    let insecure = cluster.flag("insecure-skip-tls-verify")?;
    let ca = match cluster.pem("certificate-authority")? {
        Some(_) if insecure && server.https => {
            return Err(cluster.error("insecure-skip-tls-verify", "set together with certificate-authority", "remove one of them"));
        }
        _ if insecure => None,
        None if server.https => system_authorities(env).map(Pem::File),
        given => given,
    };
    let (auth, client_cert) = build_user(user, cluster)?;
    Ok(Config {
        server,
        proxy,
        ca,
        insecure,
        tls_server_name: cluster.text("tls-server-name")?,
        auth,
        client_cert,
        namespace: namespace.unwrap_or_else(|| "default".to_owned()),
        source: cluster.file.display().to_string(),
    })
}

/// The file that is named, or the first of the usual ones that exists: for a server with a public certificate.
fn system_authorities(env: Env<'_>) -> Option<PathBuf> {
    env("SSL_CERT_FILE").map(PathBuf::from).or_else(|| SYSTEM_AUTHORITIES.iter().map(PathBuf::from).find(|path| path.exists()))
}

fn build_user(user: &Entry<'_>, cluster: &Entry<'_>) -> Result<(Auth, Option<ClientCert>), ConfigError> {
    if user.fields.get("auth-provider").is_some_and(|value| !value.is_null()) {
        let hint = "Kubernetes removed it; use a token, a client certificate or a credential plugin (exec)";
        return Err(user.error("auth-provider", "not supported", hint));
    }
    for field in ["as", "as-uid", "as-groups", "as-user-extra"] {
        let is_empty = |value: &Value| match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            _ => false,
        };
        if user.fields.get(field).is_some_and(|value| !is_empty(value)) {
            return Err(user.error(field, "impersonation is not supported", "use separate credentials"));
        }
    }
    let certificate = user.pem("client-certificate")?;
    let key = user.pem("client-key")?;
    // A path that cannot be read is told with its field.
    for (field, pem) in [("client-certificate", &certificate), ("client-key", &key)] {
        pem.as_ref().map(|pem| user.content(field, pem)).transpose()?;
    }
    let client_cert = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(ClientCert { certificate, key, user: user.label.clone() }),
        (None, None) => None,
        (Some(_), None) => return Err(user.error("client-key", "not set", "a client certificate requires its key")),
        (None, Some(_)) => return Err(user.error("client-certificate", "not set", "a client key requires its certificate")),
    };
    let (token_file, token) = (user.text("tokenFile")?.map(|path| user.resolve(&path)), user.text("token")?);
    let username = user.text("username")?;
    if username.is_some() && (token.is_some() || token_file.is_some()) {
        return Err(user.error("username", "set together with a token", "remove one of them"));
    }
    // The file counts, unless it is missing and there is a token.
    let auth = match (token_file.filter(|path| token.is_none() || path.exists()), token, username) {
        (Some(path), _, _) => Auth::TokenFile(path),
        (None, Some(token), _) => {
            if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(user.error("token", "contains characters that are not valid in a token", "check for line breaks and spaces"));
            }
            Auth::Token(token)
        }
        (None, None, Some(username)) => Auth::Basic { username, password: user.text("password")?.unwrap_or_default() },
        // As with kubectl, a plugin is asked only if there is no other credential.
        (None, None, None) if client_cert.is_none() => match plugin(user, cluster)? {
            Some(spec) => Auth::Exec(Arc::new(Plugin::new(spec))),
            None => Auth::None,
        },
        (None, None, None) => Auth::None,
    };
    Ok((auth, client_cert))
}

fn plugin(user: &Entry<'_>, cluster: &Entry<'_>) -> Result<Option<PluginSpec>, ConfigError> {
    let fields = match user.fields.get("exec") {
        None | Some(Value::Null) => return Ok(None),
        Some(fields) if fields.is_object() => fields,
        Some(_) => return Err(user.error("exec", "must be a mapping", "it requires apiVersion and command")),
    };
    let exec = Entry { file: user.file, label: format!("{}exec.", user.label), fields };
    let api_version = exec.text("apiVersion")?.unwrap_or_default();
    let version = api_version.strip_prefix(EXEC_GROUP).unwrap_or_default();
    if !matches!(version, "v1" | "v1beta1") {
        return Err(exec.error(
            "apiVersion",
            "is not a supported version",
            &format!("use {EXEC_GROUP}v1 or v1beta1; newer plugins support them"),
        ));
    }
    check_mode(&exec, version)?;
    let command = exec.text("command")?.ok_or_else(|| exec.error("command", "not set", "set it to the plugin's program"))?;
    // A name without a slash is looked for in PATH.
    let command = if command.contains('/') { exec.resolve(&command).into_os_string() } else { command.into() };
    let mut args = Vec::new();
    for item in exec.list("args")? {
        args.push(item.as_str().ok_or_else(|| exec.error("args", "must contain only strings", "put it in quotes"))?.to_owned());
    }
    let mut env = Vec::new();
    for item in exec.list("env")? {
        let part = |name: &str| match item.get(name) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(exec.error("env", format!("{name} must be a string"), "put it in quotes")),
        };
        let (name, value) = (part("name")?, part("value")?);
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(exec.error("env", "an entry has no valid name", "each entry requires name and value, both strings"));
        }
        env.push((name, value));
    }
    if args.iter().any(|argument| argument.contains('\0')) {
        return Err(exec.error("args", "contains a NUL character", ""));
    }
    let mut info = json!({"apiVersion": api_version, "kind": "ExecCredential", "spec": {"interactive": false}});
    if exec.flag("provideClusterInfo")? {
        info["spec"]["cluster"] = cluster_info(cluster)?;
    }
    Ok(Some(PluginSpec {
        command,
        args,
        env,
        api_version,
        info: info.to_string(),
        install_hint: exec.text("installHint")?.unwrap_or_default(),
        place: user.file.display().to_string(),
        field: format!("{}exec", user.label),
    }))
}

/// A plugin gets no terminal.
fn check_mode(exec: &Entry<'_>, version: &str) -> Result<(), ConfigError> {
    let refuse = |reason: &str, hint: &str| Err(exec.error("interactiveMode", reason, hint));
    match (exec.text("interactiveMode")?.as_deref(), version) {
        (Some("Never" | "IfAvailable"), _) | (None, "v1beta1") => Ok(()),
        (None, _) => refuse("not set", "set it to Never or IfAvailable"),
        (Some("Always"), _) => refuse("Always requires a terminal, which is not available here", "log in first, or use IfAvailable"),
        (Some(_), _) => refuse("is not a valid mode", "set it to Never or IfAvailable"),
    }
}

/// What a plugin gets to know about the cluster: its fields, with the authority as data.
fn cluster_info(cluster: &Entry<'_>) -> Result<Value, ConfigError> {
    let mut info = json!({});
    for field in ["server", "proxy-url", "tls-server-name", "insecure-skip-tls-verify", "disable-compression"] {
        if let Some(value) = cluster.fields.get(field).filter(|value| !value.is_null()) {
            info[field] = value.clone();
        }
    }
    if let Some(pem) = cluster.pem("certificate-authority")? {
        info["certificate-authority-data"] = STANDARD.encode(cluster.content("certificate-authority", &pem)?).into();
    }
    let extension = cluster.list("extensions")?.iter().find(|extension| extension.get("name").is_some_and(|name| name == EXEC_EXTENSION));
    if let Some(config) = extension.and_then(|extension| extension.get("extension")) {
        info["config"] = config.clone();
    }
    Ok(info)
}

/// Fields, and where they stand: for messages and relative paths.
struct Entry<'a> {
    file: &'a Path,
    /// Before a field's name: kind and name of the entry.
    label: String,
    /// A map, or null.
    fields: &'a Value,
}

impl<'a> Entry<'a> {
    fn error(&self, field: &str, reason: impl fmt::Display, hint: &str) -> ConfigError {
        ConfigError::new(self.file.display(), &format!("{}{field}", self.label), reason, hint)
    }

    /// kubectl takes an empty text for absent.
    fn text(&self, field: &str) -> Result<Option<String>, ConfigError> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(_) => Err(self.error(field, "must be a string", "put it in quotes")),
        }
    }

    fn flag(&self, field: &str) -> Result<bool, ConfigError> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(_) => Err(self.error(field, "must be true or false", "")),
        }
    }

    fn list(&self, field: &str) -> Result<&'a [Value], ConfigError> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(_) => Err(self.error(field, "must be a list", "")),
        }
    }

    /// Relative paths start at the file's folder.
    fn resolve(&self, path: &str) -> PathBuf {
        self.file.parent().map_or_else(|| PathBuf::from(path), |folder| folder.join(path))
    }

    fn decode(&self, field: &str, data: &str) -> Result<Vec<u8>, ConfigError> {
        let compact: String = data.split_whitespace().collect();
        STANDARD.decode(compact).map_err(|_| self.error(field, "not valid base64", "it must be base64-encoded PEM"))
    }

    /// Data in the file counts before a path.
    fn pem(&self, field: &str) -> Result<Option<Pem>, ConfigError> {
        let data = format!("{field}-data");
        match (self.text(&data)?, self.text(field)?) {
            (Some(text), _) => self.decode(&data, &text).map(|pem| Some(Pem::Data(pem))),
            (None, Some(path)) => Ok(Some(Pem::File(self.resolve(&path)))),
            (None, None) => Ok(None),
        }
    }

    fn content<'p>(&self, field: &str, pem: &'p Pem) -> Result<Cow<'p, [u8]>, ConfigError> {
        pem.read().map_err(|error| self.error(field, format!("{}: {error}", pem.place("")), "check the path"))
    }
}

#[cfg(test)]
#[path = "kubeconfig_tests.rs"]
mod tests;
