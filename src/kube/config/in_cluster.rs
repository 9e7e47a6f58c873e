//! The service account of the pod that this program runs in.

use std::path::Path;

use super::access::{Auth, Config};
use super::parts::{ConfigError, Pem, Server};

pub(super) fn load(env: &dyn Fn(&str) -> Option<String>, account_dir: &Path) -> Result<Config, ConfigError> {
    let hint = "set only in a pod; elsewhere use --kubeconfig FILE";
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
        // A proxy that was meant for the pod's other traffic would break the operator: the API server is inside.
        proxy: None,
        ca: Some(Pem::File(ca)),
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

    fn env(pairs: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
        move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn in_cluster_reads_the_mounted_account() {
        let dir = TempDir::new();
        let v6 = env(&[("KUBERNETES_SERVICE_HOST", "fd00::1"), ("KUBERNETES_SERVICE_PORT", "443")]);
        let missing = load(&v6, dir.path()).expect_err("no token");
        assert!(missing.to_string().contains("token: no such file"), "{missing}");
        dir.write("token", "t");
        dir.write("ca.crt", "c");
        let config = load(&v6, dir.path()).expect("a config");
        assert_eq!(config.server, server(true, "fd00::1", 443, ""));
        assert_eq!(config.namespace, "default");
        dir.write("namespace", "operators\n");
        let v4 = env(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("KUBERNETES_SERVICE_PORT", "6443")]);
        let config = load(&v4, dir.path()).expect("a config");
        assert_eq!((config.server, config.namespace.as_str()), (server(true, "10.0.0.1", 6443, ""), "operators"));
        assert_eq!(config.auth, Auth::TokenFile(dir.path().join("token")));
        assert_eq!(config.ca, Some(Pem::File(dir.path().join("ca.crt"))));
        let unset = load(&env(&[]), dir.path()).expect_err("no host");
        assert_eq!(unset.to_string(), "KUBERNETES_SERVICE_HOST: not set (set only in a pod; elsewhere use --kubeconfig FILE)");
    }
}
