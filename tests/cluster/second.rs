//! One more operator: the same program as a process beside the cluster, with an account and rights of its own.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use crate::case::{Case, cluster, until};
use crate::files::{Folder, kubeconfig_with};
use crate::granted::{Right, binding, role_without};

/// Ends with the test.
pub struct Second {
    child: Child,
    folder: Folder,
    /// Its account is here, and its ClusterRole has this name.
    home: String,
}

impl Second {
    /// For namespaces with this monitored id; `home` is a namespace for its account.
    pub fn start(home: &Case, id: &str, rights: &[Right], missing: Option<&Right>) -> Self {
        let name = &home.namespace;
        home.kubectl(&["create", "serviceaccount", "operator"]);
        home.apply(&role_without("ClusterRole", name, rights, missing));
        home.apply(&binding("ClusterRoleBinding", "ClusterRole", name, name, (name, "operator")));
        let token = home.kubectl(&["create", "token", "operator", "--duration=1h"]);
        let folder = Folder::new(name);
        let kubeconfig = folder.write("kubeconfig", kubeconfig_with(&token).to_string());
        let log = File::create(folder.file("log")).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_quarks-job"))
            .args(["--monitored-id", id, "--log-level", "debug", "--kubeconfig"])
            .arg(&kubeconfig)
            .env("IMAGE", std::env::var("QUARKS_TEST_IMAGE").expect("these tests need a cluster: run them with scripts/test"))
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the operator starts");
        Self { child, folder, home: name.clone() }
    }

    /// The user that the audit log shows.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:operator", self.home)
    }

    /// Its rights in a namespace, as the RoleBinding of the manifest gives them to the first operator.
    pub fn bind(&self, case: &Case) {
        case.apply(&binding("RoleBinding", "ClusterRole", "second", "quarks-job-namespace", (&self.home, "operator")));
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.file("log")).expect("a log")
    }

    /// Until a line of its log has all these parts.
    #[track_caller]
    pub fn wait_line(&self, parts: &[&str]) -> String {
        let is_it = |line: &&str| parts.iter().all(|part| line.replace('\\', "").contains(part));
        until(&format!("a line with {parts:?} in the log of the second operator"), || self.log().lines().find(is_it).map(ToOwned::to_owned))
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- log of the second operator\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        for kind in ["clusterrolebinding", "clusterrole"] {
            cluster(&["delete", kind, &self.home, "--ignore-not-found"]);
        }
    }
}
