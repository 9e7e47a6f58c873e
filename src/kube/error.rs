//! How a call can fail, and what callers can ask about it. Callers use the predicates, not the text.

use std::fmt;
use std::time::Duration;

use crate::api::{Resource, Status};
use crate::text::one_line;

use super::answer::{self, Answer};

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
        /// The answer; not genuine if the body held none.
        status: Box<Status>,
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The answer could not be decoded as what was requested.
    Decode {
        /// Verb of the request.
        verb: &'static str,
        /// Resource of the request.
        resource: Resource,
        /// Where and why; holds no value of the answer.
        message: String,
        /// True if it is not valid JSON at all, as when a connection was cut: a retry may help.
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
    /// A write that was not sent: this process does not hold the Lease, or no longer holds it.
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

    /// The resource that it is about, if a request was made.
    pub fn resource(&self) -> Option<Resource> {
        match self {
            Self::Transport { resource, .. }
            | Self::Status { resource, .. }
            | Self::Decode { resource, .. }
            | Self::TooLarge { resource, .. } => Some(*resource),
            Self::Shutdown | Self::Fenced => None,
        }
    }

    /// A write that reached the server, or what is on the way to it, and was not done.
    pub fn is_answered_write(&self) -> bool {
        matches!(self, Self::Status { verb, .. } if !matches!(*verb, "get" | "list" | "watch"))
    }

    /// The server's own sentence in one line; all of the error if it sent none, or if it may quote a Secret: see
    /// [`Error::refusal_words`].
    pub fn message(&self) -> String {
        match self {
            Self::Status { resource, status, .. } if !resource.is_secret() && !status.message.is_empty() => {
                one_line(&status.message, MESSAGE_MAX)
            }
            _ => self.to_string(),
        }
    }

    /// What the answer, or its absence, means: the row of the table.
    pub fn answer(&self) -> Answer {
        match self {
            Self::Transport { timed_out: true, .. } => Answer::TimedOut,
            Self::Transport { timed_out: false, .. } => Answer::Unavailable,
            Self::Status { code, status, .. } => answer::answer_of(*code, status, self.retry_after().is_some()),
            Self::Decode { garbled: true, .. } => Answer::OnTheWay,
            Self::Decode { garbled: false, .. } | Self::TooLarge { .. } => Answer::Unreadable,
            Self::Shutdown | Self::Fenced => Answer::Shutdown,
        }
    }

    /// What may be repeated of a refusal that concerns a Secret: who refuses, and nothing that could come from the Secret.
    pub fn refusal_words(&self) -> Option<String> {
        self.status().and_then(answer::refusal_words)
    }

    /// The missing right, where the API server's sentence speaks of something else.
    pub fn unnamed_right(&self) -> Option<&'static str> {
        self.status().and_then(answer::unnamed_right)
    }

    fn is(&self, answer: Answer) -> bool {
        self.answer() == answer
    }

    fn has_code(&self, code: u16) -> bool {
        self.code() == Some(code)
    }

    /// The object, its namespace or its kind does not exist, according to the API server itself.
    pub fn is_not_found(&self) -> bool {
        self.is(Answer::Gone)
    }

    /// A create whose name is taken.
    pub fn is_already_exists(&self) -> bool {
        self.is(Answer::Exists)
    }

    /// 409: the object was changed since it was read, or a precondition does not hold.
    pub fn is_conflict(&self) -> bool {
        self.has_code(409) && matches!(self.answer(), Answer::Conflict | Answer::OtherObject)
    }

    /// 410: the resourceVersion or page token is too old.
    pub fn is_gone(&self) -> bool {
        self.is(Answer::Expired)
    }

    /// 403 of the API server: the right is missing, the namespace is being deleted, or a policy or quota refuses.
    pub fn is_forbidden(&self) -> bool {
        self.has_code(403) && matches!(self.answer(), Answer::MissingRight | Answer::Terminating | Answer::Refused)
    }

    /// 403 because a right is missing, and not because a policy or quota refuses.
    pub fn is_missing_right(&self) -> bool {
        self.is(Answer::MissingRight)
    }

    /// 422 of the API server: the content is refused, by validation or by an admission policy, or is for another object.
    pub fn is_invalid(&self) -> bool {
        self.has_code(422) && matches!(self.answer(), Answer::FieldError | Answer::OtherObject | Answer::Refused)
    }

    /// A list or watch that names a version the server has not seen yet (a 504 with that cause).
    pub fn is_too_large_resource_version(&self) -> bool {
        self.status().is_some_and(answer::is_too_large_resource_version)
    }

    /// The client was shut down, or may no longer write: the process is about to end.
    pub fn is_shutdown(&self) -> bool {
        self.is(Answer::Shutdown)
    }

    /// The same request may succeed later without any change.
    pub fn is_transient(&self) -> bool {
        match self.answer() {
            Answer::WebhookFailed | Answer::TimedOut | Answer::Busy | Answer::OnTheWay | Answer::Unavailable => true,
            Answer::Gone
            | Answer::Exists
            | Answer::Conflict
            | Answer::OtherObject
            | Answer::Expired
            | Answer::FieldError
            | Answer::MissingRight
            | Answer::Terminating
            | Answer::Refused
            | Answer::Unreadable
            | Answer::Unauthorized
            | Answer::Shutdown => false,
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
            // What answers on the way may have passed the request on.
            Self::Status { code, .. } => *code >= 500 || self.is(Answer::OnTheWay),
            // A good status came before the answer that cannot be read.
            Self::Decode { .. } | Self::TooLarge { .. } => true,
            Self::Shutdown => true,
            Self::Fenced => false,
        }
    }
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
                let said = if resource.is_secret() { self.refusal_words() } else { Some(one_line(&status.message, MESSAGE_MAX)) };
                said.filter(|said| !said.is_empty()).map_or(Ok(()), |said| write!(f, ": {said}"))
            }
            Self::Decode { verb, resource, message, garbled: _ } => {
                write!(f, "{verb} {}: unexpected answer: {message}", resource.plural)
            }
            Self::TooLarge { verb, resource, limit } => write!(f, "{verb} {}: answer is larger than {limit} bytes", resource.plural),
            Self::Shutdown => f.write_str("client is shut down"),
            Self::Fenced => f.write_str("not sent: the Lease is not held"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{StatusCause, StatusDetails};

    fn status(code: u16, reason: &str, field: Option<&str>) -> Error {
        let causes = field.map(|field| StatusCause { field: field.to_owned(), ..StatusCause::default() }).into_iter().collect();
        let details = StatusDetails { causes, ..StatusDetails::default() };
        let status = Box::new(Status { details, ..Status::genuine(code, reason, "no\nway") });
        Error::Status { verb: "create", resource: Resource::JOBS, code, status, retry_after: None }
    }

    /// With a sentence, and the reason of a cause.
    fn said(code: u16, message: &str, cause: &str) -> Error {
        let causes = vec![StatusCause { reason: cause.to_owned(), ..StatusCause::default() }];
        let details = StatusDetails { causes, ..StatusDetails::default() };
        let status = Box::new(Status { details, ..Status::genuine(code, "", message) });
        Error::Status { verb: "create", resource: Resource::JOBS, code, status, retry_after: None }
    }

    /// Not by the API server.
    fn on_the_way(code: u16) -> Error {
        let status = Box::new(Status { message: "no backend".to_owned(), code, ..Status::default() });
        Error::Status { verb: "create", resource: Resource::JOBS, code, status, retry_after: None }
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
                ("unauthorized", error.is(Answer::Unauthorized)),
                ("forbidden", error.is_forbidden()),
                ("invalid", error.is_invalid()),
                ("field", error.is(Answer::FieldError)),
                ("transient", error.is_transient()),
                ("maybe", error.maybe_applied()),
                ("missing", error.is_missing_right()),
                ("terminating", error.is(Answer::Terminating)),
                ("future", error.is_too_large_resource_version()),
                ("shutdown", error.is_shutdown()),
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
            (said(403, r#"jobs.batch is forbidden: User "u" cannot create resource "jobs""#, ""), "forbidden missing"),
            (said(403, "no", "NamespaceTerminating"), "forbidden terminating"),
            (said(504, "Timeout: Too large resource version: 2, current: 1", "ResourceVersionTooLarge"), "transient maybe future"),
            (status(403, "Forbidden", None), "forbidden"),
            (status(422, "Invalid", None), "invalid"),
            (status(422, "Invalid", Some("")), "invalid"),
            (status(422, "Invalid", Some("spec.template")), "invalid field"),
            (status(400, "BadRequest", None), ""),
            (status(422, "Invalid", Some("metadata.uid")), "invalid"),
            (on_the_way(404), "transient maybe"),
            (on_the_way(403), "transient maybe"),
            (on_the_way(409), "transient maybe"),
            (on_the_way(422), "transient maybe"),
            (on_the_way(302), "transient maybe"),
            (status(429, "TooManyRequests", None), "transient"),
            (status(504, "Timeout", None), "transient maybe"),
            (status(500, "InternalError", None), "transient maybe"),
            (transport(true), "transient maybe"),
            (transport(false), "transient"),
            (Error::Shutdown, "maybe shutdown"),
            (Error::Fenced, "shutdown"),
        ];
        for (error, expected) in cases {
            assert_eq!(asked(&error), expected, "{error}");
        }
    }

    #[test]
    fn display_is_one_line_and_silent_about_secrets() {
        assert_eq!(status(403, "Forbidden", None).to_string(), "create jobs: 403 Forbidden: no way");
        let Error::Status { status, .. } = status(422, "Invalid", None) else { unreachable!() };
        let error = Error::Status { verb: "update", resource: Resource::SECRETS, code: 422, status, retry_after: None };
        assert_eq!((error.to_string().as_str(), error.message().as_str()), ("update secrets: 422 Invalid", "update secrets: 422 Invalid"));
        let quota = "exceeded quota: q, requested: count/secrets=1, used: count/secrets=5, limited: count/secrets=5";
        let status = Box::new(Status::genuine(403, "Forbidden", &format!("secrets \"s\" is forbidden: {quota}")));
        let error = Error::Status { verb: "create", resource: Resource::SECRETS, code: 403, status, retry_after: None };
        assert_eq!(error.message(), format!("create secrets: 403 Forbidden: {quota}"));
        assert_eq!(on_the_way(404).to_string(), "create jobs: 404: no backend");
        assert_eq!(
            (self::status(403, "Forbidden", None).message().as_str(), said(403, "", "").message().as_str()),
            ("no way", "create jobs: 403")
        );
    }
}
