//! The address of the API server and the credentials: in-cluster, or from kubeconfig files as kubectl reads them.
//!
//! From the bottom: `parts` (an address, certificates, an error), `proxy`, `plugin` and `token` (credentials that change), `access` (all of
//! it together), `kubeconfig` and `in_cluster` (where it comes from). This module chooses between the last two.

mod access;
mod in_cluster;
mod kubeconfig;
mod parts;
mod plugin;
mod proxy;
mod token;

use std::path::{Path, PathBuf};

pub use access::{Auth, Config};
pub use parts::{ClientCert, ClientCertPem, ConfigError, Pem, Server};
pub use plugin::{Issued, Plugin, PluginPatience, PluginSpec};
pub use proxy::{Proxy, ProxyLogin, ProxyProtocol};
pub use token::{TokenError, TokenFile};

use crate::api::SERVICE_ACCOUNT_DIR;

/// For tests: where the account's files are, in the place of [`SERVICE_ACCOUNT_DIR`].
const SERVICE_ACCOUNT_DIR_VARIABLE: &str = "SERVICE_ACCOUNT_DIR";

impl Config {
    /// The service account of the pod that we run in.
    pub fn in_cluster() -> Result<Self, ConfigError> {
        in_cluster::load(&env_var, &account_dir(&env_var))
    }

    /// Kubeconfig files, merged as kubectl does: for each name the first one counts. Missing files
    /// are skipped as long as there is one.
    pub fn from_kubeconfig(paths: &[PathBuf], context: Option<&str>) -> Result<Self, ConfigError> {
        kubeconfig::load(paths, context, &env_var)
    }

    /// The explicit file, else `$KUBECONFIG`, else in-cluster if there is such a thing and no context was given, else `~/.kube/config`.
    pub fn load(explicit: Option<&Path>, context: Option<&str>) -> Result<Self, ConfigError> {
        load_from(explicit, context, &env_var, &account_dir(&env_var))
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
        return kubeconfig::load(&[path.to_owned()], context, env);
    }
    if let Some(list) = env("KUBECONFIG") {
        let paths: Vec<PathBuf> = std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect();
        if !paths.is_empty() {
            return kubeconfig::load(&paths, context, env);
        }
    }
    if context.is_none() && env("KUBERNETES_SERVICE_HOST").is_some() && account_dir.join("token").exists() {
        return in_cluster::load(env, account_dir);
    }
    let Some(home) = env("HOME") else {
        return Err(ConfigError::new("kubeconfig", "", "none given, not in a cluster, and HOME is not set", "use --kubeconfig FILE"));
    };
    kubeconfig::load(&[Path::new(&home).join(".kube/config")], context, env)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::scripted::TempDir;

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
        // (flag given, KUBECONFIG set, in a cluster, context given) -> host
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
}
