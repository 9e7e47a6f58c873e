//! How a call can fail, and what callers may ask about it. Callers use the predicates, not the text.

use std::fmt;
use std::time::Duration;

use crate::api::{Resource, Status};

/// Result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// Longest server message that is repeated.
const MESSAGE_MAX: usize = 512;

/// A call to the API server that did not work. `Display` is one line and never holds a body.
#[derive(Clone, Debug)]
pub enum Error {
    /// No usable answer came.
    Transport {
        /// Verb of the request.
        verb: &'static str,
        /// Resource of the request.
        resource: Resource,
        /// False only if certainly nothing reached the server.
        sent: bool,
        /// True if a time limit ended it.
        timed_out: bool,
        /// What the network layer said.
        message: String,
    },
    /// The server answered with an error.
    Status {
        /// Verb of the request.
        verb: &'static str,
        /// Resource of the request.
        resource: Resource,
        /// HTTP status code.
        code: u16,
        /// The answer; made up from the code if the body held none.
        status: Box<Status>,
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The answer could not be read as what was asked for.
    Decode {
        /// Verb of the request.
        verb: &'static str,
        /// Resource of the request.
        resource: Resource,
        /// Where and why; holds no value of the answer.
        message: String,
        /// True if it is no valid JSON at all, as when a connection was cut: trying again may help.
        garbled: bool,
    },
    /// The answer is larger than the limit.
    TooLarge {
        /// Verb of the request.
        verb: &'static str,
        /// Resource of the request.
        resource: Resource,
        /// The limit in bytes.
        limit: usize,
    },
    /// The client was shut down.
    Shutdown,
    /// A write that was not sent: this process does not hold the Lease, or holds it no more.
    Fenced,
}

impl Error {
    /// HTTP status code, if the server answered with an error.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Status { code, .. } => Some(*code),
            Self::Transport { .. } | Self::Decode { .. } | Self::TooLarge { .. } | Self::Shutdown | Self::Fenced => None,
        }
    }

    /// The server's `Status`, if it answered with an error.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Status { status, .. } => Some(status),
            Self::Transport { .. } | Self::Decode { .. } | Self::TooLarge { .. } | Self::Shutdown | Self::Fenced => None,
        }
    }

    /// The server's own sentence in one line; all of the error if it sent none, or if it may quote a Secret.
    pub fn message(&self) -> String {
        match self {
            Self::Status { resource, status, .. } if !resource.is_secret() && !status.message.is_empty() => {
                one_line(&status.message, MESSAGE_MAX)
            }
            _ => self.to_string(),
        }
    }

    fn has_code(&self, code: u16) -> bool {
        self.code() == Some(code)
    }

    fn has_reason(&self, reason: &str) -> bool {
        self.status().is_some_and(|status| status.reason == reason)
    }

    /// 404: the object, its namespace or its kind is not there.
    pub fn is_not_found(&self) -> bool {
        self.has_code(404)
    }

    /// A create whose name is taken.
    pub fn is_already_exists(&self) -> bool {
        self.has_code(409) && self.has_reason("AlreadyExists")
    }

    /// The object was changed since it was read, or a precondition does not hold.
    pub fn is_conflict(&self) -> bool {
        self.has_code(409) && !self.is_already_exists()
    }

    /// 410: the resourceVersion or page token is too old.
    pub fn is_gone(&self) -> bool {
        self.has_code(410)
    }

    /// 401: the credential is not accepted.
    pub fn is_unauthorized(&self) -> bool {
        self.has_code(401)
    }

    /// 403: the right is missing, or a policy or quota refuses.
    pub fn is_forbidden(&self) -> bool {
        self.has_code(403)
    }

    /// 403 because a right is missing, and not because a policy or quota refuses: the API server's words, whatever authorizes.
    pub fn is_missing_right(&self) -> bool {
        match self {
            Self::Status { verb, code: 403, status, .. } => status.message.contains(&format!(" cannot {verb} resource \"")),
            _ => false,
        }
    }

    /// 403 because the namespace is being deleted.
    pub fn is_namespace_terminating(&self) -> bool {
        self.status().is_some_and(|status| status.details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"))
    }

    /// 422: the content is refused, by validation or by an admission policy.
    pub fn is_invalid(&self) -> bool {
        self.has_code(422)
    }

    /// The content itself is wrong: 400, or 422 with a cause that names a field. An admission policy's 422 names none.
    pub fn has_field_causes(&self) -> bool {
        match self.code() {
            Some(400) => true,
            Some(422) => self.status().is_some_and(|status| status.details.causes.iter().any(|cause| !cause.field.is_empty())),
            _ => false,
        }
    }

    /// 429: asked too often.
    pub fn is_too_many_requests(&self) -> bool {
        self.has_code(429)
    }

    /// 503: the server, or the way to it, is not there now.
    pub fn is_unavailable(&self) -> bool {
        self.has_code(503)
    }

    /// A list or watch that names a version the server has not seen yet (a 504 with that cause).
    pub fn is_too_large_resource_version(&self) -> bool {
        self.status().is_some_and(is_too_large_resource_version)
    }

    /// The client was shut down, or may not write any more: the process is about to end.
    pub fn is_shutdown(&self) -> bool {
        matches!(self, Self::Shutdown | Self::Fenced)
    }

    /// The same request may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport { .. } => true,
            Self::Status { code, .. } => *code == 429 || *code >= 500,
            Self::Decode { garbled, .. } => *garbled,
            Self::TooLarge { .. } | Self::Shutdown | Self::Fenced => false,
        }
    }

    /// When the server wants to be asked again; at most 10 minutes.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Transport { .. } | Self::Decode { .. } | Self::TooLarge { .. } | Self::Shutdown | Self::Fenced => None,
        }
    }

    /// The write may have been done all the same: read before sending it again. Says yes when in doubt.
    pub fn maybe_applied(&self) -> bool {
        match self {
            Self::Transport { sent, .. } => *sent,
            Self::Status { code, .. } => *code >= 500,
            // A good status came before the answer that cannot be read.
            Self::Decode { .. } | Self::TooLarge { .. } => true,
            Self::Shutdown => true,
            Self::Fenced => false,
        }
    }
}

/// The cause by which a server says that a version lies in its future.
pub(crate) fn is_too_large_resource_version(status: &Status) -> bool {
    status.details.causes.iter().any(|cause| cause.reason == "ResourceVersionTooLarge" || cause.message == "Too large resource version")
        || status.message.contains("Too large resource version")
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport { verb, resource, message, sent: _, timed_out: _ } => write!(f, "{verb} {}: {message}", resource.plural),
            Self::Status { verb, resource, code, status, retry_after: _ } => {
                write!(f, "{verb} {}: {code}", resource.plural)?;
                if !status.reason.is_empty() {
                    write!(f, " {}", status.reason)?;
                }
                // What the server says about a Secret or a log may quote it.
                if resource.is_secret() || status.message.is_empty() {
                    return Ok(());
                }
                write!(f, ": {}", one_line(&status.message, MESSAGE_MAX))
            }
            Self::Decode { verb, resource, message, garbled: _ } => {
                write!(f, "{verb} {}: answer not understood: {message}", resource.plural)
            }
            Self::TooLarge { verb, resource, limit } => write!(f, "{verb} {}: answer is larger than {limit} bytes", resource.plural),
            Self::Shutdown => f.write_str("client is shut down"),
            Self::Fenced => f.write_str("not sent: the Lease is not held"),
        }
    }
}

impl std::error::Error for Error {}

/// Text made fit for one line of a log: no control characters, at most `max` bytes.
pub(crate) fn one_line(text: &str, max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(max));
    for character in text.trim().chars() {
        let character = if character.is_control() { ' ' } else { character };
        if line.len() + character.len_utf8() > max {
            line.push_str("...");
            break;
        }
        line.push(character);
    }
    line
}

/// Where and why decoding failed, without the values that serde_json quotes.
pub(crate) fn describe_decode(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if error.is_data() { hide_values(&text) } else { text }
}

/// Removes what serde quotes from its input: `string "…"`, and numbers and booleans in back quotes.
/// Names of fields and types stay.
pub(crate) fn hide_values(text: &str) -> String {
    let mut hidden = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find(['"', '`']) {
        let quote = rest[open..].chars().next().unwrap_or('"');
        let before = &rest[..open];
        // A quoted string may hold quotes itself, so it reaches to the last one.
        let close = if quote == '"' { rest.rfind('"') } else { rest[open + 1..].find('`').map(|at| open + 1 + at) };
        let Some(close) = close.filter(|close| *close > open) else {
            hidden.push_str(before);
            return hidden;
        };
        let is_value =
            quote == '"' || ["integer ", "floating point ", "boolean ", "character ", "variant "].iter().any(|kind| before.ends_with(kind));
        hidden.push_str(before);
        if is_value {
            hidden.push_str("(hidden)");
        } else {
            hidden.push_str(&rest[open..=close]);
        }
        rest = &rest[close + 1..];
    }
    hidden.push_str(rest);
    hidden
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{StatusCause, StatusDetails};

    fn status(code: u16, reason: &str, field: Option<&str>) -> Error {
        let causes = field.map(|field| StatusCause { field: field.to_owned(), ..StatusCause::default() }).into_iter().collect();
        let status = Status {
            code,
            reason: reason.to_owned(),
            message: "no\nway".to_owned(),
            details: StatusDetails { causes, ..StatusDetails::default() },
            ..Status::default()
        };
        Error::Status { verb: "create", resource: Resource::JOBS, code, status: Box::new(status), retry_after: None }
    }

    fn transport(sent: bool) -> Error {
        Error::Transport { verb: "create", resource: Resource::JOBS, sent, timed_out: false, message: "reset".to_owned() }
    }

    #[test]
    fn predicates() {
        let asked = |error: &Error| {
            [
                ("not found", error.is_not_found()),
                ("exists", error.is_already_exists()),
                ("conflict", error.is_conflict()),
                ("gone", error.is_gone()),
                ("unauthorized", error.is_unauthorized()),
                ("forbidden", error.is_forbidden()),
                ("invalid", error.is_invalid()),
                ("field", error.has_field_causes()),
                ("transient", error.is_transient()),
                ("maybe", error.maybe_applied()),
            ]
            .iter()
            .filter(|(_, yes)| *yes)
            .map(|(name, _)| *name)
            .collect::<Vec<_>>()
            .join(" ")
        };
        let cases = [
            (status(404, "NotFound", None), "not found"),
            (status(409, "AlreadyExists", None), "exists"),
            (status(409, "Conflict", None), "conflict"),
            (status(410, "Expired", None), "gone"),
            (status(401, "Unauthorized", None), "unauthorized"),
            (status(403, "Forbidden", None), "forbidden"),
            (status(422, "Invalid", None), "invalid"),
            (status(422, "Invalid", Some("")), "invalid"),
            (status(422, "Invalid", Some("spec.template")), "invalid field"),
            (status(400, "BadRequest", None), "field"),
            (status(429, "TooManyRequests", None), "transient"),
            (status(504, "Timeout", None), "transient maybe"),
            (status(500, "InternalError", None), "transient maybe"),
            (transport(true), "transient maybe"),
            (transport(false), "transient"),
            (Error::Shutdown, "maybe"),
            (Error::Fenced, ""),
        ];
        for (error, expected) in cases {
            assert_eq!(asked(&error), expected, "{error}");
        }
    }

    #[test]
    fn a_missing_right_is_told_from_a_refusal() {
        let is_missing = |code: u16, message: &str| {
            let status = Box::new(Status { message: message.to_owned(), ..Status::default() });
            Error::Status { verb: "create", resource: Resource::JOBS, code, status, retry_after: None }.is_missing_right()
        };
        let rbac = r#"jobs.batch is forbidden: User "u" cannot create resource "jobs" in API group "batch" in the namespace "n""#;
        assert!(is_missing(403, rbac) && !is_missing(422, rbac));
        assert!(!is_missing(403, "jobs.batch \"j\" is forbidden: exceeded quota: q"));
        assert!(!is_missing(403, "admission webhook \"w\" denied the request: you cannot create a resource here"));
    }

    #[test]
    fn display_is_one_line_and_silent_about_secrets() {
        assert_eq!(status(403, "Forbidden", None).to_string(), "create jobs: 403 Forbidden: no way");
        let Error::Status { status, .. } = status(422, "Invalid", None) else { unreachable!() };
        let error = Error::Status { verb: "update", resource: Resource::SECRETS, code: 422, status, retry_after: None };
        assert_eq!(error.to_string(), "update secrets: 422 Invalid");
        assert_eq!(one_line(&"é".repeat(300), 512).len(), 512 + 3);
    }

    #[test]
    fn decode_messages_hide_values() {
        let cases = [
            (serde_json::from_str::<u8>(r#""canary""#).map(|_| ()), "invalid type: string (hidden), expected u8 at line 1 column 8"),
            (serde_json::from_str::<u8>(r#""can\"ary""#).map(|_| ()), "invalid type: string (hidden), expected u8 at line 1 column 10"),
            (serde_json::from_str::<String>("4711").map(|_| ()), "invalid type: integer (hidden), expected a string at line 1 column 4"),
            (serde_json::from_str::<Vec<u8>>("[").map(|_| ()), "EOF while parsing a list at line 1 column 1"),
        ];
        for (result, expected) in cases {
            assert_eq!(describe_decode(&result.expect_err("an error")), expected);
        }
        let missing = serde_json::from_str::<crate::api::Event>("{}").expect_err("an error");
        assert_eq!(describe_decode(&missing), "missing field `metadata` at line 1 column 2");
    }
}
