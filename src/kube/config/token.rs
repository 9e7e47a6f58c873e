//! The token file of a service account: read again as it rotates, the last good one kept.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Age at which the file is read again. Tokens are renewed long before they end, so a minute is soon enough.
const REREAD_AFTER: Duration = Duration::from_secs(60);
/// The same while the file is unusable: a rewrite in progress ends within moments.
const REREAD_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// No token has ever been read from the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it; never its content.
    pub reason: String,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token file {}: {}", self.path.display(), self.reason)
    }
}

impl std::error::Error for TokenError {}

/// A file that holds a bearer token.
pub struct TokenFile {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last token that looked whole.
    token: Option<Arc<str>>,
    /// When the file is to be read again; `None` before the first time.
    due: Option<Instant>,
}

impl TokenFile {
    /// Nothing is read yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, state: Mutex::new(State::default()) }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The token to use at `now`.
    pub fn current(&self, now: Instant) -> Result<Arc<str>, TokenError> {
        let mut state = self.lock();
        if state.due.is_none_or(|due| now >= due) {
            self.reread(&mut state, now)?;
        }
        state.token.clone().ok_or_else(|| self.error("no token read yet"))
    }

    /// The server refused `used`: another token, if the file holds one.
    pub fn after_rejection(&self, used: &str, now: Instant) -> Option<Arc<str>> {
        let mut state = self.lock();
        // Another thread may have read it since.
        if state.token.as_deref().is_some_and(|token| token != used) {
            return state.token.clone();
        }
        self.reread(&mut state, now).ok()?;
        state.token.clone().filter(|token| **token != *used)
    }

    /// Reads the file. An unusable file is an error only if there is no earlier token to keep.
    fn reread(&self, state: &mut State, now: Instant) -> Result<(), TokenError> {
        let result = match std::fs::read(&self.path) {
            Ok(bytes) => whole_token(&bytes, state.token.as_deref()),
            Err(error) => Err(error.to_string()),
        };
        match result {
            Ok(token) => {
                state.token = Some(token);
                state.due = Some(now + REREAD_AFTER);
                Ok(())
            }
            Err(reason) if state.token.is_some() => {
                log::warn!(file:% = self.path.display(), reason:%; "token file not usable; keeping the last token");
                state.due = Some(now + REREAD_AFTER_FAILURE);
                Ok(())
            }
            Err(reason) => Err(self.error(&reason)),
        }
    }

    fn error(&self, reason: &str) -> TokenError {
        TokenError { path: self.path.clone(), reason: reason.to_owned() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after each statement, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The token, if the file looks whole. A file caught while it is written is empty or cut.
fn whole_token(bytes: &[u8], last: Option<&str>) -> Result<Arc<str>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "not valid UTF-8".to_owned())?.trim();
    if text.is_empty() {
        return Err("empty".to_owned());
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("contains characters that are not valid in a token".to_owned());
    }
    let expects_jwt = text.starts_with("eyJ") || last.is_some_and(is_jwt);
    if expects_jwt && !is_jwt(text) {
        return Err("truncated".to_owned());
    }
    Ok(text.into())
}

/// Three parts in base64url; no such text has a length of 4n + 1.
fn is_jwt(text: &str) -> bool {
    let mut parts = 0;
    let whole = text.split('.').all(|part| {
        parts += 1;
        !part.is_empty() && part.len() % 4 != 1
    });
    whole && parts == 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_tokens_are_taken() {
        let cases = [
            ("abc\n", None, Some("abc")),
            ("", None, None),
            (" \n", None, None),
            ("a b", None, None),
            ("eyJh.eyJh.sig_", None, Some("eyJh.eyJh.sig_")),
            ("eyJh.eyJh", None, None),
            ("eyJh.eyJh.", None, None),
            ("eyJh.eyJh.sig_x", None, None),
            ("abc", Some("eyJh.eyJh.sig_"), None),
            ("abd", Some("abc"), Some("abd")),
        ];
        for (text, last, expected) in cases {
            assert_eq!(whole_token(text.as_bytes(), last).ok().as_deref(), expected, "{text:?} after {last:?}");
        }
        assert!(whole_token(&[0xff], None).is_err());
    }

    #[test]
    fn the_file_is_read_again_when_due_and_the_last_good_token_kept() {
        let dir = crate::kube::scripted::TempDir::new();
        let path = dir.write("token", "one");
        let file = TokenFile::new(path.clone());
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let steps: [(Option<&str>, u64, &str); 7] = [
            (None, 0, "one"),
            (Some("two"), 59, "one"),
            (None, 60, "two"),
            (Some(""), 120, "two"),
            (Some("three"), 124, "two"),
            (None, 125, "three"),
            (None, 126, "three"),
        ];
        for (content, seconds, expected) in steps {
            if let Some(content) = content {
                dir.write("token", content);
            }
            assert_eq!(&*file.current(at(seconds)).expect("a token"), expected, "after {seconds} s");
        }
        std::fs::remove_file(path).expect("remove");
        assert_eq!(&*file.current(at(1000)).expect("a token"), "three");
    }

    #[test]
    fn a_refused_token_is_read_again_at_once() {
        let dir = crate::kube::scripted::TempDir::new();
        let file = TokenFile::new(dir.write("token", "one"));
        let now = Instant::now();
        let used = file.current(now).expect("a token");
        assert_eq!(file.after_rejection(&used, now), None);
        dir.write("token", "two");
        assert_eq!(file.after_rejection(&used, now).as_deref(), Some("two"));
        // A second thread with the old token is given the new one without reading.
        dir.write("token", "");
        assert_eq!(file.after_rejection(&used, now).as_deref(), Some("two"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = TokenFile::new("/nonexistent/token".into()).current(Instant::now()).expect_err("an error");
        assert!(error.to_string().starts_with("token file /nonexistent/token: "), "{error}");
    }
}
