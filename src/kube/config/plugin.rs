//! Credential plugins of a kubeconfig (`users[].user.exec`): a program that prints a token or a client certificate.
//!
//! Promises: a credential is kept until it expires; the plugin runs under a time limit, one run at a time, without a terminal; what it
//! says on standard error, perhaps where to log in, is passed on line by line, without long words, and without users and passwords of
//! addresses, nor their queries if nobody is there to log in; nothing else that it prints is.

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
use crate::yaml;

use super::parts::{ClientCertPem, ConfigError};

/// Variable with the plugin's input.
const INFO_VARIABLE: &str = "KUBERNETES_EXEC_INFO";
/// Largest answer in bytes; a token or a certificate with its key is a few KB.
const ANSWER_MAX: usize = 1024 * 1024;
/// Most of the error output that is kept in bytes, until it is passed on.
const SAID_MAX: usize = 4096;
/// Words longer than this are left out of what it says: tokens are longer. Of addresses less is: one logs in there.
const WORD_MAX: usize = 40;
/// In the place of what may be secret.
const HIDDEN: &str = "(hidden)";
/// A plugin that has said something and still runs after this is likely waiting for a person.
const PAUSE: Duration = Duration::from_secs(1);
/// For the ends of its pipes after its own end.
const GRACE: Duration = Duration::from_millis(100);
/// Between two looks at a plugin that has not ended.
const LOOK: Duration = Duration::from_millis(5);

/// How long a plugin may take, and where its words go.
#[derive(Clone, Copy, Debug)]
pub struct PluginPatience {
    /// Limit on a run that says nothing.
    pub silent: Duration,
    /// Limit on one that has said something on standard error: it may wait for a person who logs in. Zero: there is no person, and
    /// addresses are passed on without their query.
    pub talking: Duration,
    /// Takes a line of its standard error.
    pub tell: fn(&str),
}

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
    pub fn current(&self, patience: PluginPatience) -> Result<Arc<Issued>, ConfigError> {
        let mut issued = self.lock();
        match &*issued {
            Some(known) if known.ends.is_none_or(|ends| Instant::now() < ends) => Ok(Arc::clone(known)),
            _ => self.renew(&mut issued, patience),
        }
    }

    /// What is wrong with its credential, with its place.
    pub(crate) fn error(&self, reason: impl fmt::Display, hint: &str) -> ConfigError {
        self.spec.error(reason, hint)
    }

    /// The server refused `used`: another credential, if there is one.
    pub fn after_rejection(&self, used: &Arc<Issued>, patience: PluginPatience) -> Option<Arc<Issued>> {
        let mut issued = self.lock();
        match &*issued {
            // Another thread has renewed it since.
            Some(known) if !Arc::ptr_eq(known, used) => Some(Arc::clone(known)),
            _ => self.renew(&mut issued, patience).map_err(|error| log::warn!(error:%; "credential not renewed")).ok(),
        }
    }

    fn renew(&self, issued: &mut Option<Arc<Issued>>, patience: PluginPatience) -> Result<Arc<Issued>, ConfigError> {
        let new = Arc::new(self.spec.run(patience)?);
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

    fn run(&self, patience: PluginPatience) -> Result<Issued, ConfigError> {
        let mut command = Command::new(&self.command);
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value))).env(INFO_VARIABLE, &self.info);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if !self.install_hint.is_empty() => self.error("not found", &one_line(&self.install_hint, 300)),
            io::ErrorKind::NotFound => self.error("not found", "install the credential plugin or add it to PATH"),
            _ => self.error(error, "it must be an executable program"),
        })?;
        let ended = self.wait(&mut child, patience).inspect_err(|_| {
            let _ = child.kill();
            let _ = child.wait();
        });
        let (status, answer, mut said) = ended?;
        if answer.len() > ANSWER_MAX {
            return Err(self.error(format!("printed more than {ANSWER_MAX} bytes"), "it must print an ExecCredential"));
        }
        // Why it failed is part of the error.
        let reason = if status.success() { None } else { said.pop() };
        said.iter().for_each(|line| (patience.tell)(line));
        if !status.success() {
            // It may end in a log, wherever it was met.
            let reason = reason.map_or_else(String::new, |line| format!(": {}", one_line(&fit(&line, false), 160)));
            return Err(self.error(format!("failed, {status}{reason}"), "run it by hand to see why"));
        }
        self.read(&answer).map_err(|reason| self.error(reason, "it must print an ExecCredential"))
    }

    /// How the plugin ended, its output, and what it has said that was not passed on yet.
    fn wait(&self, child: &mut Child, patience: PluginPatience) -> Result<(ExitStatus, Vec<u8>, Vec<String>), ConfigError> {
        let broken = |error: io::Error| self.error(error, "");
        let answer = Reader::start("exec-output", child.stdout.take().map(OwnedFd::from), ANSWER_MAX, true).map_err(broken)?;
        let said = Reader::start("exec-errors", child.stderr.take().map(OwnedFd::from), SAID_MAX, false).map_err(broken)?;
        let is_for_person = patience.talking > Duration::ZERO;
        let tell = || lines(&said.take(), is_for_person).iter().for_each(|line| (patience.tell)(line));
        let (start, mut limit) = (Instant::now(), patience.silent);
        let (mut ended_at, mut said_since) = (None, None);
        loop {
            let now = Instant::now();
            if let Some(status) = child.try_wait().map_err(broken)? {
                let all_is_read = answer.thread.is_finished() && said.thread.is_finished();
                // What it has started may go on and hold the pipes: they are waited for no longer than the credential takes.
                let is_late = now >= *ended_at.get_or_insert(now) + GRACE;
                if all_is_read || is_late && (!status.success() || self.read(&answer.kept()).is_ok()) {
                    return Ok((status, answer.take(), lines(&said.take(), is_for_person)));
                }
            }
            if !said.kept().is_empty() && now >= *said_since.get_or_insert(now) + PAUSE {
                tell();
                (limit, said_since) = (patience.talking.max(patience.silent), None);
            }
            if now >= start + limit {
                tell();
                return Err(self.error(format!("no answer in {} s", limit.as_secs()), "run it by hand to see what it is waiting for"));
            }
            thread::sleep(LOOK);
        }
    }

    /// The credential in what the plugin printed. The error quotes nothing of it.
    fn read(&self, answer: &[u8]) -> Result<Issued, String> {
        let credential: Value = serde_json::from_slice(yaml::without_mark(answer))
            .map_err(|error| format!("did not print valid JSON: {}", describe_decode(&error)))?;
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
                    // Up to the end of a word: a part of a long one would look short.
                    let surplus = kept.len() - max;
                    let word = kept[surplus..].iter().position(u8::is_ascii_whitespace).unwrap_or(max);
                    kept.drain(..surplus + word);
                }
            }
        })?;
        Ok(Self { thread, kept })
    }

    fn kept(&self) -> MutexGuard<'_, Vec<u8>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.kept())
    }
}

/// The lines that say something, fit to be shown.
fn lines(said: &[u8], is_for_person: bool) -> Vec<String> {
    let text = String::from_utf8_lossy(said);
    text.lines().map(|line| fit(line, is_for_person)).filter(|line| !line.is_empty()).collect()
}

fn fit(line: &str, is_for_person: bool) -> String {
    let words: Vec<_> = line.split_whitespace().map(|word| fit_word(word, is_for_person)).collect();
    one_line(&words.join(" "), 1_000)
}

/// A word without what may be secret in it: all of it if it is long; of an address the user and, where nobody is there to log in, what
/// follows its path, and long parts of that.
fn fit_word(word: &str, is_for_person: bool) -> String {
    let short = |text: &str| if text.len() <= WORD_MAX { text.to_owned() } else { HIDDEN.to_owned() };
    let Some((before, address)) = word.split_once("://") else { return short(word) };
    let (before, scheme) = before.split_at(scheme_start(before));
    // In JSON and HTML a quote ends it.
    let (address, after) = cut(address, &['"', '\'', '<', '>', '`']);
    let (address, query) = if is_for_person { (address, "") } else { cut(address, &['?', '#']) };
    // Another one in the same word.
    let next = address.find("://").map_or(address.len(), |at| scheme_start(&address[..at]));
    let (address, next) = address.split_at(next);
    let (host, path) = cut(address, &['/', '?', '#']);
    let host = host.rsplit_once('@').map_or_else(|| host.to_owned(), |(_, host)| format!("{HIDDEN}@{host}"));
    let path = if is_for_person { path.to_owned() } else { path.split('/').map(short).collect::<Vec<_>>().join("/") };
    let query = if query.is_empty() { String::new() } else { format!("?{HIDDEN}") };
    let [next, after] = [next, after].map(|part| fit_word(part, is_for_person));
    format!("{}{scheme}://{host}{path}{next}{query}{after}", short(before))
}

/// Where the scheme of an address starts that ends the text.
fn scheme_start(text: &str) -> usize {
    text.trim_end_matches(|character: char| character.is_ascii_alphanumeric()).len()
}

/// Before the first of these characters, and from there on.
fn cut<'a>(text: &'a str, ends: &[char]) -> (&'a str, &'a str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

#[cfg(test)]
#[path = "plugin_tests.rs"]
mod tests;
