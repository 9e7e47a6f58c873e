//! Files beside a case: a folder that goes away, and kubeconfigs in it.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::case::cluster;

/// A folder that goes away with the value.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("quarks-job-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where a file of this name is, or will be.
    pub fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").to_owned()
    }

    /// Writes a file that nobody else can read, and says where it is.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.file(name);
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path).expect("a file");
        file.write_all(content.as_ref()).expect("written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The cluster's own kubeconfig, with everything in it.
pub fn kubeconfig() -> Value {
    serde_json::from_str(&cluster(&["config", "view", "--raw", "--minify", "--flatten", "-o", "json"])).expect("JSON")
}

/// The same with a token in place of the user.
pub fn kubeconfig_with(token: &str) -> Value {
    let mut config = kubeconfig();
    config["users"][0]["user"] = json!({"token": token.trim()});
    config
}
