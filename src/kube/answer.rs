//! What an answer of the API server means: one table for operator and sidecar. Pure.
//!
//! Promises: only a genuine `Status` can report that an object does not exist, exists already or has changed; a denial by a webhook or a
//! policy is a refusal, whatever code and words it chooses; of answers about Secrets only [`refusal_words`] are repeated.
//! Not for what follows from an answer: that depends on the call, so callers match on [`Answer`] and leave out no case.

use crate::api::{NAME_MAX, Status};
use crate::text::one_line;

/// Longest text that [`refusal_words`] gives.
const WORDS_MAX: usize = 512;

/// What an answer, or its absence, means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 404 with a `Status` of reason `NotFound`: the object, its namespace or its kind does not exist.
    Gone,
    /// 409 `AlreadyExists`: the name of a create is taken. An ordinary branch: names are deterministic, so a repeated create finds its own
    /// earlier work.
    Exists,
    /// 409: the object was changed since it was read, or a quota is being counted. Read and decide again.
    Conflict,
    /// The name belongs to an object with another UID now. The API server reports it as 422 with cause `metadata.uid`, or as 409 with a
    /// failed precondition.
    OtherObject,
    /// 410: the resourceVersion or page token is too old. List again.
    Expired,
    /// 422 with causes that name fields, or a 400 for an object that cannot be decoded: the object that was sent is invalid, so sending it
    /// again does not help.
    FieldError,
    /// 403 by the authorizer, whichever it is: a right is missing. Also the right to update `quarksjobs/finalizers`, which the admission
    /// plugin OwnerReferencesPermissionEnforcement requires.
    MissingRight,
    /// 403 with cause `NamespaceTerminating`: the namespace is being deleted. Nothing new can be created there, and nothing is wrong.
    Terminating,
    /// Any other 403, or a 400 or 422 without a cause that names a field: a quota, policy or webhook rejects the write. Someone must change
    /// something, but not the object that was sent.
    Refused,
    /// 500 "failed calling webhook": a webhook cannot be reached. It may pass, so it counts as refused only after some tries.
    WebhookFailed,
    /// No answer in time, or 504. A hanging admission webhook looks like this, and so does a network that drops packets. Counts as refused
    /// after some tries.
    TimedOut,
    /// 429, or 503 with Retry-After: the server is overloaded. That is not the fault of one request, so the whole client waits.
    Busy,
    /// Any other 404, HTML or plain text: something between us and the API server answered, or the answer is garbled. It says nothing about
    /// objects.
    OnTheWay,
    /// The server cannot be reached, or fails with 5xx. Like [`Answer::OnTheWay`] it says nothing about objects.
    Unavailable,
    /// A success in valid JSON, but too large or of an unknown shape. A retry helps only if the object changes.
    Unreadable,
    /// 401: the credential is not accepted. A rotated one may be on its way.
    Unauthorized,
    /// Not sent, or interrupted: this process is about to end.
    Shutdown,
}

/// What an answer with an error code means: the row of the table.
pub(super) fn answer_of(code: u16, status: &Status, has_retry_after: bool) -> Answer {
    if status.is_genuine() { genuine_answer(code, status, has_retry_after) } else { answer_on_the_way(code, has_retry_after) }
}

/// What may be repeated of a refusal that concerns a Secret: who refuses, by a known form of sentence, and nothing that could
/// come from the Secret. `None` if the answer has no such form.
pub(super) fn refusal_words(status: &Status) -> Option<String> {
    Some(one_line(&sentence(status)?.words(), WORDS_MAX))
}

/// The missing right, where the API server's sentence speaks of something else.
pub(super) fn unnamed_right(status: &Status) -> Option<&'static str> {
    match sentence(status)? {
        Sentence::OwnerRight(words) if words == OWNER_RIGHTS[0] => Some("cannot update resource \"quarksjobs/finalizers\""),
        Sentence::OwnerRight(_) => Some("cannot delete resource \"pods\""),
        _ => None,
    }
}

/// The cause by which a server says that a version lies in its future.
pub(crate) fn is_too_large_resource_version(status: &Status) -> bool {
    status.details.causes.iter().any(|cause| cause.reason == "ResourceVersionTooLarge" || cause.message == "Too large resource version")
        || status.message.contains("Too large resource version")
}

fn sentence(status: &Status) -> Option<Sentence<'_>> {
    status.is_genuine().then(|| Sentence::parse(&status.message)).flatten()
}

fn genuine_answer(code: u16, status: &Status, has_retry_after: bool) -> Answer {
    let fields = || status.details.causes.iter().map(|cause| cause.field.as_str()).filter(|field| !field.is_empty());
    let has_cause = |reason: &str| status.details.causes.iter().any(|cause| cause.reason == reason);
    match (code, Sentence::parse(&status.message)) {
        // These choose code, reason and causes themselves. What they say of fields is worth telling; that an object is gone,
        // changed or another one is not for them to say.
        (422, Some(Sentence::Denied { .. })) if fields().any(|field| field != UID_FIELD) => Answer::FieldError,
        (_, Some(Sentence::Denied { .. } | Sentence::Policy { .. })) => Answer::Refused,
        (500.., Some(Sentence::WebhookFailed { .. })) => Answer::WebhookFailed,
        (403, Some(Sentence::MissingRight { .. } | Sentence::OwnerRight(_))) => Answer::MissingRight,
        (403, _) if has_cause("NamespaceTerminating") => Answer::Terminating,
        (404, _) if status.reason == "NotFound" => Answer::Gone,
        (409, _) if status.reason == "AlreadyExists" => Answer::Exists,
        (409, _) if UID_CONFLICTS.iter().any(|words| status.message.contains(words)) => Answer::OtherObject,
        (409, _) => Answer::Conflict,
        (410, _) => Answer::Expired,
        (422, _) if fields().any(|field| field == UID_FIELD) => Answer::OtherObject,
        (422, _) if fields().next().is_some() => Answer::FieldError,
        (400, _) if UNDECODABLE.iter().any(|words| status.message.contains(words)) => Answer::FieldError,
        (401, _) => Answer::Unauthorized,
        (429, _) => Answer::Busy,
        (503, _) if has_retry_after => Answer::Busy,
        (504, _) => Answer::TimedOut,
        // No other try will have a better answer to something of this size.
        (500.., _) if TOO_LARGE.iter().any(|words| status.message.contains(words)) => Answer::Refused,
        (500.., _) => Answer::Unavailable,
        // A 404 for another reason, and anything that is not an error code.
        (404, _) | (..400, _) => Answer::OnTheWay,
        (400..500, _) => Answer::Refused,
    }
}

/// The answer of a load balancer, a proxy, or of the API server's filters that speak plain text: its limits on requests do.
fn answer_on_the_way(code: u16, has_retry_after: bool) -> Answer {
    match code {
        401 => Answer::Unauthorized,
        408 | 504 => Answer::TimedOut,
        // What is too large for a proxy stays so.
        413 => Answer::Refused,
        429 => Answer::Busy,
        503 if has_retry_after => Answer::Busy,
        _ => Answer::OnTheWay,
    }
}

/// The field that a write for another UID is wrong in.
const UID_FIELD: &str = "metadata.uid";
/// How a 409 says that a UID precondition does not hold: of an update, of a delete, of a token bound to an object.
const UID_CONFLICTS: [&str; 2] = ["Precondition failed: UID in precondition", "does not match the UID in record"];
/// How a 400 says that the object that was sent cannot be decoded.
const UNDECODABLE: [&str; 2] = [" cannot be handled as a ", "the object provided is unrecognized (must be of type "];
/// How a 500 says that the object does not fit into etcd.
const TOO_LARGE: [&str; 2] = ["etcdserver: request is too large", "trying to send message larger than max"];
/// How the plugin OwnerReferencesPermissionEnforcement says that a right is missing: to `update` the owner's `finalizers`, or to
/// `delete` the object whose owners are set.
const OWNER_RIGHTS: [&str; 2] = [
    "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on",
    "cannot set an ownerRef on a resource you can't delete",
];

/// Forms of sentences by which the API server says who refuses.
#[derive(Debug, PartialEq, Eq)]
enum Sentence<'a> {
    MissingRight { verb: &'a str, target: &'a str, name: &'a str },
    OwnerRight(&'static str),
    Denied { webhook: &'a str },
    WebhookFailed { webhook: &'a str },
    Policy { policy: &'a str, binding: &'a str },
    Quota(&'a str),
    PodSecurity { level: &'a str },
    Terminating,
}

impl<'a> Sentence<'a> {
    /// A form counts only where the API server puts it: at the start, or after `RESOURCE "NAME" is forbidden: `. Free text of
    /// webhooks and policies follows later.
    fn parse(message: &'a str) -> Option<Self> {
        if let Some(rest) = message.strip_prefix("admission webhook \"") {
            // Denied even if the name is none that may be repeated.
            return Some(Self::Denied { webhook: name_before(rest, '"').map_or("", |(webhook, _)| webhook) });
        }
        let failed = message.strip_prefix("Internal error occurred: ").unwrap_or(message);
        if let Some(rest) =
            ["failed calling webhook \"", "failed calling admission webhook \""].iter().find_map(|words| failed.strip_prefix(words))
        {
            return Some(Self::WebhookFailed { webhook: name_before(rest, '"').map_or("", |(webhook, _)| webhook) });
        }
        let said = after_head(message)?;
        if let Some(rest) = said.strip_prefix("ValidatingAdmissionPolicy '") {
            let (policy, rest) = name_before(rest, '\'').unwrap_or_default();
            let binding = rest.strip_prefix(" with binding '").and_then(|rest| name_before(rest, '\'')).map_or("", |(binding, _)| binding);
            return Some(Self::Policy { policy, binding });
        }
        if let Some(words) = OWNER_RIGHTS.iter().find(|words| said.starts_with(**words)) {
            return Some(Self::OwnerRight(words));
        }
        if let Some(rest) = said.strip_prefix("violates PodSecurity \"") {
            return name_before(rest, '"').map(|(level, _)| Self::PodSecurity { level });
        }
        if said.starts_with("unable to create new content in namespace ") {
            return Some(Self::Terminating);
        }
        missing_right(said).or_else(|| quota(said))
    }

    fn words(&self) -> String {
        let quoted = |words: &str, name: &str| if name.is_empty() { String::new() } else { format!(" {words}'{name}'") };
        match self {
            Self::MissingRight { verb, target, name } => format!("cannot {verb} {target} \"{name}\""),
            Self::OwnerRight(words) => (*words).to_owned(),
            Self::Denied { webhook: "" } => "an admission webhook denied the request".to_owned(),
            Self::Denied { webhook } => format!("admission webhook \"{webhook}\" denied the request"),
            Self::WebhookFailed { webhook: "" } => "failed calling a webhook".to_owned(),
            Self::WebhookFailed { webhook } => format!("failed calling webhook \"{webhook}\""),
            Self::Policy { policy, binding } => {
                format!("ValidatingAdmissionPolicy{}{} denied request", quoted("", policy), quoted("with binding ", binding))
            }
            Self::Quota(text) => (*text).to_owned(),
            Self::PodSecurity { level } => format!("violates PodSecurity \"{level}\""),
            Self::Terminating => "the namespace is being terminated".to_owned(),
        }
    }
}

/// What follows `RESOURCE is forbidden: ` or `RESOURCE "NAME" is forbidden: `.
fn after_head(message: &str) -> Option<&str> {
    let resource = message.find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || "./-".contains(c)))?;
    let rest = &message[resource..];
    let rest = match rest.strip_prefix(" \"") {
        Some(named) => name_before(named, '"')?.1,
        None => rest,
    };
    // Paths have no resource before them.
    rest.strip_prefix(" is forbidden: ").or_else(|| message.strip_prefix("forbidden: "))
}

/// A name up to its closing quote, and what follows. Names of API objects have none but these characters.
fn name_before(text: &str, quote: char) -> Option<(&str, &str)> {
    let (name, rest) = text.split_once(quote)?;
    let is_name =
        !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:/".contains(&byte));
    is_name.then_some((name, rest))
}

/// `User "NAME" cannot VERB resource "RESOURCE"`, or `path` instead of `resource`: the words of the API server, whatever authorizes.
fn missing_right(said: &str) -> Option<Sentence<'_>> {
    let quoted = said.strip_prefix("User \"")?;
    let mut is_escaped = false;
    // A user may have any name: the quote that ends it is the first without a backslash.
    let end = quoted.find(|c: char| {
        let is_end = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end
    })?;
    let (verb, rest) = quoted[end + 1..].strip_prefix(" cannot ")?.split_once(' ')?;
    let (target, rest) = rest.split_once(" \"")?;
    let (name, _) = name_before(rest, '"')?;
    let is_verb = !verb.is_empty() && verb.len() <= NAME_MAX && verb.bytes().all(|byte| byte.is_ascii_alphabetic());
    (is_verb && matches!(target, "resource" | "path")).then_some(Sentence::MissingRight { verb, target, name })
}

/// `exceeded quota: NAME, requested: AMOUNTS, used: AMOUNTS, limited: AMOUNTS`, or `status unknown for quota: NAME`.
fn quota(said: &str) -> Option<Sentence<'_>> {
    let mut rest = said;
    let unknown = "status unknown for quota: ";
    if let Some(named) = said.strip_prefix(unknown) {
        let length = named.find(|c| !is_of_amounts(c) || c == ',').unwrap_or(named.len());
        return Some(Sentence::Quota(&said[..unknown.len() + length]));
    }
    for words in ["exceeded quota: ", ", requested: ", ", used: ", ", limited: "] {
        rest = rest.strip_prefix(words)?;
        // Amounts are joined with commas, without blanks.
        let length = rest.find(|c| !is_of_amounts(c)).unwrap_or(rest.len());
        let part = rest[..length].trim_end_matches(',');
        if part.is_empty() {
            return None;
        }
        rest = &rest[part.len()..];
    }
    rest.is_empty().then_some(Sentence::Quota(said))
}

/// Names and amounts of resources, as in `requests.cpu=500m,count/secrets=1`.
fn is_of_amounts(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._/=+,".contains(c)
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
