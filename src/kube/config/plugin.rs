//! Credential plugins of a kubeconfig (`users[].user.exec`): a program that prints a token or a client certificate.
//!
//! Promises: a credential is kept until it expires; the plugin runs under a time limit, one run at a time, without a terminal;
//! nothing that it prints is repeated except the short end of its error output, without long words.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use serde_json::Value;

use crate::clock;
use crate::text::{describe_decode, one_line};
use crate::threads::Thread;

use super::parts::{ClientCertPem, ConfigError};

/// Variable with the plugin's input.
const INFO_VARIABLE: &str = "KUBERNETES_EXEC_INFO";
/// Largest answer in bytes; a token or a certificate with its key is a few KB.
const ANSWER_MAX: usize = 1024 * 1024;
/// Bytes of the error output that are read.
const COMPLAINT_MAX: usize = 4096;
/// Words longer than this are left out of a complaint: tokens are longer.
const WORD_MAX: usize = 40;
/// Between two looks at a plugin that has not ended.
const LOOK: Duration = Duration::from_millis(5);

/// What the kubeconfig says of a plugin.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PluginSpec {
    /// Program: a path, or a name to look for in `PATH`.
    pub command: OsString,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables set for it besides our own.
    pub env: Vec<(String, String)>,
    /// `client.authentication.k8s.io/v1` or `/v1beta1`.
    pub api_version: String,
    /// Content of `KUBERNETES_EXEC_INFO`.
    pub info: String,
    /// Shown when the program is missing.
    pub install_hint: String,
    /// The kubeconfig file, for messages.
    pub place: String,
    /// The user, for messages.
    pub field: String,
}

/// A credential that a plugin has printed.
pub struct Issued {
    /// Bearer token.
    pub token: Option<String>,
    /// Client certificate.
    pub identity: Option<ClientCertPem>,
    /// When it ends; `None` if the plugin does not say.
    ends: Option<Instant>,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("ends", &self.ends).finish_non_exhaustive()
    }
}

/// A plugin, and what it has printed last.
pub struct Plugin {
    spec: PluginSpec,
    issued: Mutex<Option<Arc<Issued>>>,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("command", &self.spec.command).finish_non_exhaustive()
    }
}

impl PartialEq for Plugin {
    fn eq(&self, other: &Self) -> bool {
        self.spec == other.spec
    }
}

impl Eq for Plugin {}

impl Plugin {
    /// Nothing runs yet.
    pub fn new(spec: PluginSpec) -> Self {
        Self { spec, issued: Mutex::new(None) }
    }

    /// The credential to use; the plugin runs if there is none, or it has ended.
    pub fn current(&self, limit: Duration) -> Result<Arc<Issued>, ConfigError> {
        let mut issued = self.lock();
        match &*issued {
            Some(known) if known.ends.is_none_or(|ends| Instant::now() < ends) => Ok(Arc::clone(known)),
            _ => self.renew(&mut issued, limit),
        }
    }

    /// The server refused `used`: another credential, if there is one.
    pub fn after_rejection(&self, used: &Arc<Issued>, limit: Duration) -> Option<Arc<Issued>> {
        let mut issued = self.lock();
        match &*issued {
            // Another thread has renewed it since.
            Some(known) if !Arc::ptr_eq(known, used) => Some(Arc::clone(known)),
            _ => self.renew(&mut issued, limit).map_err(|error| log::warn!(error:%; "credential not renewed")).ok(),
        }
    }

    fn renew(&self, issued: &mut Option<Arc<Issued>>, limit: Duration) -> Result<Arc<Issued>, ConfigError> {
        let new = Arc::new(self.spec.run(limit)?);
        *issued = Some(Arc::clone(&new));
        Ok(new)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Issued>>> {
        // Replaced whole, so a panic elsewhere does not spoil it.
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PluginSpec {
    fn error(&self, reason: impl fmt::Display, hint: &str) -> ConfigError {
        let program = one_line(&self.command.to_string_lossy(), 100);
        ConfigError::new(&self.place, &self.field, format!("{program}: {reason}"), hint)
    }

    fn run(&self, limit: Duration) -> Result<Issued, ConfigError> {
        let deadline = Instant::now() + limit;
        let mut command = Command::new(&self.command);
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value))).env(INFO_VARIABLE, &self.info);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if !self.install_hint.is_empty() => self.error("not found", &one_line(&self.install_hint, 300)),
            io::ErrorKind::NotFound => self.error("not found", "install the credential plugin or add it to PATH"),
            _ => self.error(error, "it must be an executable program"),
        })?;
        let (status, answer, complaint) = wait(&mut child, deadline).map_err(|error| {
            let _ = child.kill();
            let _ = child.wait();
            match error.kind() {
                io::ErrorKind::TimedOut => {
                    self.error(format!("no answer in {} s", limit.as_secs()), "run it by hand to see what it is waiting for")
                }
                _ => self.error(error, ""),
            }
        })?;
        if answer.len() > ANSWER_MAX {
            return Err(self.error(format!("printed more than {ANSWER_MAX} bytes"), "it must print an ExecCredential"));
        }
        if !status.success() {
            let complaint = tail(&complaint);
            let colon = if complaint.is_empty() { "" } else { ": " };
            return Err(self.error(format!("failed, {status}{colon}{complaint}"), "run it by hand to see why"));
        }
        self.read(&answer).map_err(|reason| self.error(reason, "it must print an ExecCredential"))
    }

    /// The credential in what the plugin printed. The error quotes nothing of it.
    fn read(&self, answer: &[u8]) -> Result<Issued, String> {
        let credential: Value =
            serde_json::from_slice(answer).map_err(|error| format!("did not print valid JSON: {}", describe_decode(&error)))?;
        let text = |path: &str| match credential.pointer(path) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(_) => Err(format!("{} must be a string", path[1..].replace('/', "."))),
        };
        if text("/kind")?.as_deref() != Some("ExecCredential") || text("/apiVersion")?.as_ref() != Some(&self.api_version) {
            return Err(format!("printed something other than an ExecCredential of {}", self.api_version));
        }
        let token = text("/status/token")?;
        if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err("status.token contains characters that are not valid in a token".to_owned());
        }
        let identity = match (text("/status/clientCertificateData")?, text("/status/clientKeyData")?) {
            (Some(certificate), Some(key)) => Some(ClientCertPem { certificate: certificate.into_bytes(), key: key.into_bytes() }),
            (None, None) => None,
            _ => return Err("status has only one of clientCertificateData and clientKeyData".to_owned()),
        };
        if token.is_none() && identity.is_none() {
            return Err("status has neither a token nor a certificate".to_owned());
        }
        let ends = match text("/status/expirationTimestamp")? {
            None => None,
            Some(time) => {
                let seconds = clock::seconds_until(&time).ok_or("status.expirationTimestamp is not a valid time")?;
                Some(Instant::now() + Duration::from_secs(u64::try_from(seconds).unwrap_or(0).min(u64::from(u32::MAX))))
            }
        };
        Ok(Issued { token, identity, ends })
    }
}

/// Reads a pipe in a thread of its own, so that the plugin never waits for us; what there is to keep is in the mutex.
struct Reader {
    thread: Thread,
    kept: Arc<Mutex<Vec<u8>>>,
}

impl Reader {
    /// Keeps `max` bytes: the first ones of an answer, then the pipe is closed; the last ones of a complaint.
    fn start(name: &'static str, pipe: Option<OwnedFd>, max: usize, is_answer: bool) -> io::Result<Self> {
        let mut pipe = File::from(pipe.ok_or(io::ErrorKind::NotConnected)?);
        let kept = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&kept);
        // A panicked reader has read what it has read.
        let (panics, _) = bounded(1);
        let thread = Thread::spawn(name, &panics, move || {
            let mut buffer = [0; 4096];
            while let Ok(amount @ 1..) = pipe.read(&mut buffer) {
                let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(&buffer[..amount]);
                if kept.len() > max {
                    if is_answer {
                        break;
                    }
                    let surplus = kept.len() - max;
                    kept.drain(..surplus);
                }
            }
        })?;
        Ok(Self { thread, kept })
    }

    fn take(self) -> Vec<u8> {
        std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How the plugin ended, its output and its error output.
fn wait(child: &mut Child, deadline: Instant) -> io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let answer = Reader::start("exec-output", child.stdout.take().map(OwnedFd::from), ANSWER_MAX, true)?;
    let complaint = Reader::start("exec-errors", child.stderr.take().map(OwnedFd::from), COMPLAINT_MAX, false)?;
    loop {
        if answer.thread.is_finished()
            && complaint.thread.is_finished()
            && let Some(status) = child.try_wait()?
        {
            return Ok((status, answer.take(), complaint.take()));
        }
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(LOOK);
    }
}

/// The last line that says something.
fn tail(complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaint);
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let words: Vec<&str> = last.split_whitespace().map(|word| if word.len() > WORD_MAX { "(hidden)" } else { word }).collect();
    one_line(&words.join(" "), 160)
}

#[cfg(test)]
#[path = "plugin_tests.rs"]
mod tests;
