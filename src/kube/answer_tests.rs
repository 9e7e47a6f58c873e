use crate::api::{Resource, StatusCause, StatusDetails};
use crate::kube::Error;

use super::*;

/// A genuine answer; `causes` are reasons and fields.
fn genuine(code: u16, reason: &str, message: &str, causes: &[(&str, &str)]) -> Error {
    let cause =
        |(reason, field): &(&str, &str)| StatusCause { reason: (*reason).to_owned(), field: (*field).to_owned(), ..StatusCause::default() };
    let details = StatusDetails { causes: causes.iter().map(cause).collect(), ..StatusDetails::default() };
    with(code, Status { details, ..Status::genuine(code, reason, message) }, None)
}

fn with(code: u16, status: Status, retry_after: Option<u64>) -> Error {
    let retry_after = retry_after.map(std::time::Duration::from_secs);
    Error::Status { verb: "create", resource: Resource::SECRETS, code, status: Box::new(status), retry_after }
}

const RBAC: &str = r#"jobs.batch is forbidden: User "system:serviceaccount:qj:op" cannot create resource "jobs" in API group "batch" in the namespace "n""#;
const QUOTA: &str = r#"secrets "s" is forbidden: exceeded quota: q, requested: count/secrets=1,requests.cpu=500m, used: count/secrets=5,requests.cpu=2, limited: count/secrets=5,requests.cpu=2"#;
const POLICY: &str = r#"secrets "s" is forbidden: ValidatingAdmissionPolicy 'no-jobs.example.com' with binding 'b' denied request: failed expression: object.data.k == 'CANARY'"#;
const WEBHOOK: &str = r#"admission webhook "w.example.com" denied the request: CANARY"#;
const FAILED: &str = r#"Internal error occurred: failed calling webhook "w.example.com": failed to call webhook: Post "https://w.n.svc:443/?timeout=10s": context deadline exceeded"#;
const FINALIZERS: &str = "jobs.batch \"j\" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>";
const OWNER: &str = "pods \"p\" is forbidden: cannot set an ownerRef on a resource you can't delete: , <nil>";
const GOING: &str = r#"jobs.batch "j" is forbidden: unable to create new content in namespace n because it is being terminated"#;
const LEVEL: &str = r#"pods "p" is forbidden: violates PodSecurity "restricted:latest": CANARY (container "main" must set it)"#;

/// Code, reason, message, reasons and fields of causes; and what it means.
type Said<'a> = (u16, &'a str, &'a str, &'a [(&'a str, &'a str)], Answer);

fn mean(cases: &[Said<'_>]) {
    for (code, reason, message, causes, expected) in cases {
        assert_eq!(genuine(*code, reason, message, causes).answer(), *expected, "{code} {message}");
    }
}

#[test]
fn what_the_api_server_says_of_objects() {
    let changed = "the object has been modified; please apply your changes to the latest version and try again";
    let (j, q) = (r#"Operation cannot be fulfilled on jobs.batch "j": "#, r#"Operation cannot be fulfilled on resourcequotas "q": "#);
    let bound = r#"Operation cannot be fulfilled on Secret "t": the UID in the bound object reference (u) does not match the UID in record. The object might have been deleted and then recreated"#;
    let invalid = r#"Job.batch "j" is invalid: spec.template.spec.containers[0].image: Required value"#;
    let decode = r#"Job in version "v1" cannot be handled as a Job: json: cannot unmarshal number into Go struct field ObjectMeta.metadata.name of type string"#;
    let unrecognized = "the object provided is unrecognized (must be of type Job): couldn't get version/kind; json parse error (7b5d)";
    mean(&[
        (404, "NotFound", r#"jobs.batch "j" not found"#, &[], Answer::Gone),
        (404, "NotFound", r#"namespaces "n" not found"#, &[], Answer::Gone),
        (404, "", "not found", &[], Answer::OnTheWay),
        (409, "AlreadyExists", r#"jobs.batch "j" already exists"#, &[], Answer::Exists),
        (409, "AlreadyExists", r#"object is being deleted: secrets "s" already exists"#, &[], Answer::Exists),
        (409, "Conflict", &format!("{j}{changed}"), &[], Answer::Conflict),
        (409, "Conflict", &format!("{q}{changed}"), &[], Answer::Conflict),
        (409, "Conflict", &format!("{j}Precondition failed: UID in precondition: a, UID in object meta: b"), &[], Answer::OtherObject),
        (
            409,
            "Conflict",
            &format!("{j}the UID in the precondition (a) does not match the UID in record (b). The object …"),
            &[],
            Answer::OtherObject,
        ),
        (
            409,
            "Conflict",
            &format!("{j}the ResourceVersion in the precondition (1) does not match the ResourceVersion in record (2)."),
            &[],
            Answer::Conflict,
        ),
        (409, "Conflict", bound, &[], Answer::OtherObject),
        (410, "Expired", "The provided continue parameter is too old to display a consistent list result.", &[], Answer::Expired),
        (410, "Gone", "too old resource version: 1 (2)", &[], Answer::Expired),
        (422, "Invalid", invalid, &[("FieldValueRequired", "spec.template.spec.containers[0].image")], Answer::FieldError),
        (
            422,
            "Invalid",
            "metadata.uid: Invalid value: \"a\": field is immutable",
            &[("FieldValueInvalid", "metadata.uid")],
            Answer::OtherObject,
        ),
        (422, "Invalid", "two", &[("", "spec"), ("FieldValueInvalid", "metadata.uid")], Answer::OtherObject),
        (422, "Invalid", POLICY, &[("", "")], Answer::Refused),
        (422, "Invalid", "no cause", &[], Answer::Refused),
        (400, "BadRequest", decode, &[], Answer::FieldError),
        (400, "BadRequest", unrecognized, &[], Answer::FieldError),
        (400, "BadRequest", "the name of the object (a) does not match the name on the URL (b)", &[], Answer::Refused),
    ]);
}

#[test]
fn what_the_api_server_says_of_rights_and_of_itself() {
    let timeout = "Timeout: request did not complete within requested timeout - context deadline exceeded";
    mean(&[
        (403, "Forbidden", RBAC, &[], Answer::MissingRight),
        (403, "Forbidden", r#"forbidden: User "u" cannot get path "/version""#, &[], Answer::MissingRight),
        (
            403,
            "Forbidden",
            r#"pods "p" is forbidden: User "u" cannot get resource "pods/log" in API group "" in the namespace "n""#,
            &[],
            Answer::MissingRight,
        ),
        (
            403,
            "Forbidden",
            r#"secrets is forbidden: User "a\"b\\" cannot list resource "secrets" in API group "" at the cluster scope: no"#,
            &[],
            Answer::MissingRight,
        ),
        (403, "Forbidden", FINALIZERS, &[], Answer::MissingRight),
        (403, "Forbidden", OWNER, &[], Answer::MissingRight),
        (403, "Forbidden", GOING, &[("NamespaceTerminating", "metadata.namespace")], Answer::Terminating),
        (403, "Forbidden", QUOTA, &[], Answer::Refused),
        (403, "Forbidden", POLICY, &[("", "")], Answer::Refused),
        (403, "Forbidden", LEVEL, &[], Answer::Refused),
        (401, "Unauthorized", "Unauthorized", &[], Answer::Unauthorized),
        (405, "MethodNotAllowed", "the server does not allow this method on the requested resource", &[], Answer::Refused),
        (413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728", &[], Answer::Refused),
        (429, "TooManyRequests", "storage is (re)initializing", &[], Answer::Busy),
        (500, "InternalError", FAILED, &[], Answer::WebhookFailed),
        (500, "InternalError", r#"Internal error occurred: failed calling admission webhook "w": x"#, &[], Answer::WebhookFailed),
        (500, "InternalError", "Internal error occurred: resource quota evaluation timed out", &[], Answer::Unavailable),
        (500, "InternalError", "etcdserver: request is too large", &[], Answer::Refused),
        (500, "", "rpc error: code = ResourceExhausted desc = trying to send message larger than max (3 vs. 2)", &[], Answer::Refused),
        (500, "ServerTimeout", "The POST operation against Jobs.batch could not be completed at this time", &[], Answer::Unavailable),
        (503, "ServiceUnavailable", "etcd leader changed", &[], Answer::Unavailable),
        (504, "Timeout", timeout, &[], Answer::TimedOut),
        (302, "", "elsewhere", &[], Answer::OnTheWay),
        (399, "", "", &[], Answer::OnTheWay),
        (499, "", "", &[], Answer::Refused),
    ]);
    let status = || Status::genuine(503, "ServiceUnavailable", "not yet");
    assert_eq!([None, Some(1)].map(|after| with(503, status(), after).answer()), [Answer::Unavailable, Answer::Busy]);
}

#[test]
fn whatever_a_webhook_or_policy_chooses_to_say_it_refuses() {
    let words = r#"User "u" cannot create resource "secrets" in API group "" in the namespace "n""#;
    let denials = [
        WEBHOOK.to_owned(),
        format!(r#"admission webhook "w.example.com" denied the request: secrets is forbidden: {words}"#),
        format!("{WEBHOOK} etcdserver: request is too large, Precondition failed: UID in precondition: it cannot be handled as a Job"),
        r#"admission webhook "not a name" denied the request: x"#.to_owned(),
        r#"admission webhook "w.example.com" denied the request without explanation"#.to_owned(),
        POLICY.to_owned(),
        format!("secrets \"s\" is forbidden: ValidatingAdmissionPolicy 'p' denied request: {words}"),
    ];
    let causes = [("NamespaceTerminating", "metadata.uid")];
    for message in &denials {
        for (code, reason) in [
            (400, ""),
            (401, "Unauthorized"),
            (403, "Forbidden"),
            (404, "NotFound"),
            (409, "AlreadyExists"),
            (409, "Conflict"),
            (410, "Expired"),
            (413, "RequestEntityTooLarge"),
            (422, "Invalid"),
            (429, "TooManyRequests"),
            (500, "InternalError"),
            (503, "ServiceUnavailable"),
            (504, "Timeout"),
        ] {
            assert_eq!(genuine(code, reason, message, &causes).answer(), Answer::Refused, "{code} {message}");
        }
    }
    let field = [("FieldValueInvalid", "spec.suspend")];
    assert_eq!(genuine(422, "Invalid", WEBHOOK, &field).answer(), Answer::FieldError, "it names what is wrong");
    assert_eq!(genuine(403, "Forbidden", WEBHOOK, &field).answer(), Answer::Refused);
    assert_eq!(genuine(422, "Invalid", POLICY, &field).answer(), Answer::Refused, "policies name no fields");
}

#[test]
fn what_only_looks_like_a_missing_right_is_refused() {
    for message in [
        r#"jobs.batch "j" is forbidden: you cannot create resource "jobs" here"#,
        r#"jobs.batch "j" is forbidden: x: User "u" cannot create resource "jobs""#,
        r#"User "u" cannot create resource "jobs" in API group "batch""#,
        r#"jobs.batch "j" is forbidden: User "u" may not create resource "jobs""#,
        r#"jobs.batch "j" is forbidden: User "u" cannot create the resource "jobs""#,
        r#"jobs.batch "j" is forbidden: User "u" cannot c-c resource "jobs""#,
        r#"jobs.batch "j" is forbidden: User "u cannot create resource"#,
        r#"jobs.batch "j" is forbidden: User "u" cannot create resource "a b""#,
        r#"jobs.batch "j" is forbidden: User "u\" cannot create resource "jobs""#,
        "x: cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on",
        "",
    ] {
        assert_eq!(genuine(403, "Forbidden", message, &[]).answer(), Answer::Refused, "{message}");
    }
    assert_eq!(genuine(422, "Invalid", RBAC, &[]).answer(), Answer::Refused);
    assert_eq!(genuine(400, "BadRequest", FAILED, &[]).answer(), Answer::Refused, "a webhook that cannot be called is a 500");
}

#[test]
fn what_is_not_by_the_api_server_says_nothing_about_objects() {
    let made_up =
        |code: u16, retry_after| with(code, Status { reason: "NotFound".into(), message: RBAC.into(), ..Status::default() }, retry_after);
    for code in [302, 400, 403, 404, 409, 410, 418, 422, 500, 502, 503] {
        assert_eq!(made_up(code, None).answer(), Answer::OnTheWay, "{code}");
    }
    let cases = [
        (401, None, Answer::Unauthorized),
        (408, None, Answer::TimedOut),
        (413, None, Answer::Refused),
        (429, None, Answer::Busy),
        (500, Some(1), Answer::OnTheWay),
        (503, Some(1), Answer::Busy),
        (504, Some(1), Answer::TimedOut),
    ];
    for (code, retry_after, expected) in cases {
        assert_eq!(made_up(code, retry_after).answer(), expected, "{code}");
    }
    assert_eq!(made_up(403, None).refusal_words(), None);
}

#[test]
fn without_an_answer() {
    let (verb, resource, message) = ("get", Resource::JOBS, String::new());
    let transport = |timed_out| Error::Transport { verb, resource, sent: true, timed_out, message: message.clone() };
    let decode = |garbled| Error::Decode { verb, resource, message: message.clone(), garbled };
    let cases = [
        (transport(true), Answer::TimedOut),
        (transport(false), Answer::Unavailable),
        (decode(true), Answer::OnTheWay),
        (decode(false), Answer::Unreadable),
        (Error::TooLarge { verb, resource, limit: 1 }, Answer::Unreadable),
        (Error::Shutdown, Answer::Shutdown),
        (Error::Fenced, Answer::Shutdown),
    ];
    for (error, expected) in cases {
        assert_eq!((error.answer(), error.refusal_words()), (expected, None), "{error}");
    }
}

#[test]
fn of_a_secret_only_known_forms_are_repeated() {
    let limited = QUOTA.split_once("forbidden: ").map(|(_, said)| said);
    let cases = [
        (QUOTA, limited),
        (r#"secrets "s" is forbidden: status unknown for quota: q, resources: count/secrets"#, Some("status unknown for quota: q")),
        (r#"secrets "s" is forbidden: status unknown for quota: q"#, Some("status unknown for quota: q")),
        (POLICY, Some("ValidatingAdmissionPolicy 'no-jobs.example.com' with binding 'b' denied request")),
        (
            r#"secrets "s" is forbidden: ValidatingAdmissionPolicy 'p' denied request: CANARY"#,
            Some("ValidatingAdmissionPolicy 'p' denied request"),
        ),
        (r#"secrets "s" is forbidden: ValidatingAdmissionPolicy 'CAN ARY' with x"#, Some("ValidatingAdmissionPolicy denied request")),
        (WEBHOOK, Some(r#"admission webhook "w.example.com" denied the request"#)),
        (r#"admission webhook "CAN ARY" denied the request"#, Some("an admission webhook denied the request")),
        (FAILED, Some(r#"failed calling webhook "w.example.com""#)),
        (r#"failed calling webhook "CAN ARY": CANARY"#, Some("failed calling a webhook")),
        (LEVEL, Some(r#"violates PodSecurity "restricted:latest""#)),
        (RBAC, Some(r#"cannot create resource "jobs""#)),
        (r#"forbidden: User "u" cannot get path "/version""#, Some(r#"cannot get path "/version""#)),
        (FINALIZERS, Some("cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on")),
        (GOING, Some("the namespace is being terminated")),
        (r#"Secret "s" is invalid: data[k]: Invalid value: "CANARY""#, None),
        (r#"secrets "s" is forbidden: CANARY"#, None),
        (r#"secrets "s" is forbidden: exceeded quota: CAN ARY, requested: a=1, used: a=1, limited: a=1"#, None),
        (r#"secrets "s" is forbidden: exceeded quota: q, requested: , used: a=1, limited: a=1"#, None),
        (r#"secrets "s" is forbidden: exceeded quota: q, requested: a=1, used: a=1, limited: a=1 CANARY"#, None),
        (r#"secrets "s" is forbidden: exceeded quota: q, requested: a=1"#, None),
        (r#"secrets "CAN ARY" is forbidden: exceeded quota: q, requested: a=1, used: a=1, limited: a=1"#, None),
        (r#"exceeded quota: q, requested: a=1, used: a=1, limited: a=1"#, None),
    ];
    for (message, expected) in cases {
        let words = genuine(403, "Forbidden", message, &[]).refusal_words();
        assert_eq!(words.as_deref(), expected, "{message}");
        assert!(!words.unwrap_or_default().contains("CANARY"), "{message}");
    }
    let long = format!("{},b=2", vec!["count/secrets=1"; 100].join(","));
    let message = format!(r#"secrets "s" is forbidden: exceeded quota: q, requested: {long}, used: {long}, limited: {long}"#);
    assert_eq!(genuine(403, "Forbidden", &message, &[]).refusal_words().map(|words| words.len()), Some(WORDS_MAX + "...".len()));
    let name = "a".repeat(NAME_MAX + 1);
    let denied = |name: &str| genuine(403, "Forbidden", &format!("admission webhook \"{name}\" denied"), &[]).refusal_words();
    assert!(denied(&name[1..]).is_some_and(|words| words.contains(&name[1..])));
    assert_eq!(denied(&name).as_deref(), Some("an admission webhook denied the request"));
}

#[test]
fn a_right_that_the_sentence_does_not_name_is_named() {
    let right = |message: &str| genuine(403, "Forbidden", message, &[]).unnamed_right();
    assert_eq!(right(FINALIZERS), Some("cannot update resource \"quarksjobs/finalizers\""));
    assert_eq!(right(OWNER), Some("cannot delete resource \"pods\""));
    assert_eq!(right("jobs.batch is forbidden: User \"u\" cannot create resource \"jobs\" in the namespace \"n\""), None);
}
