use std::sync::Mutex;

use serde_json::{Value, json};

use crate::api::{Job, ObjectKey};
use crate::kube::scripted::{Chunk, Reply, Script, TempDir};
use crate::kube::{Answer, DeleteOptions, Propagation};

use super::*;

fn client(script: &Script, auth: &Auth) -> Client {
    Client::with_transport(Arc::new(script.clone()), auth, ClientOptions { max_body: 1000, ..ClientOptions::default() })
}

fn key() -> ObjectKey {
    ObjectKey::new("ns", "a")
}

fn get() -> Request {
    Request::get(Resource::JOBS, &key())
}

fn create() -> Request {
    Request::create(Resource::JOBS, "ns", &json!({"spec": {}}))
}

fn delete() -> Request {
    Request::delete(Resource::JOBS, &key(), &DeleteOptions { uid: None, resource_version: None, propagation: Propagation::Background })
}

fn status(code: u16, reason: &str) -> Reply {
    Reply::json(code, &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": "m", "code": code}))
}

#[test]
fn an_answer_is_decoded_with_its_warnings() {
    let answer =
        Reply::json(201, &json!({"metadata": {"name": "a"}})).warning(r#"299 - "unknown field \"x\"""#).warning(r#"299 - "b", 299 - "c""#);
    let script = Script::new([answer]);
    let (job, warnings) = client(&script, &Auth::Token("t".to_owned())).call_with_warnings::<Job>(&create()).expect("a job");
    assert_eq!(job.metadata.name, "a");
    assert_eq!(warnings, [r#"unknown field "x""#, "b", "c"]);
    let seen = &script.seen()[0];
    assert_eq!((seen.method.as_str(), seen.path_and_query.as_str()), ("POST", "/apis/batch/v1/namespaces/ns/jobs"));
    assert_eq!(seen.authorization.as_deref(), Some("Bearer t"));
    assert_eq!(seen.body.as_deref(), Some(br#"{"spec":{}}"#.as_slice()));
    assert_eq!((seen.accept, seen.limit), ("application/json", Limit::Call));
}

#[test]
fn credentials() {
    let dir = TempDir::new();
    let cases = [
        (Auth::None, None),
        (Auth::Basic { username: "u".to_owned(), password: "p".to_owned() }, Some("Basic dTpw")),
        (Auth::TokenFile(dir.write("token", "filed\n")), Some("Bearer filed")),
    ];
    for (auth, expected) in cases {
        let script = Script::new([Reply::json(200, &json!({}))]);
        client(&script, &auth).ping().expect("an answer");
        assert_eq!(script.seen()[0].authorization.as_deref(), expected);
        assert_eq!(script.seen()[0].path_and_query, "/version");
    }
    let script = Script::default();
    let error = client(&script, &Auth::TokenFile(dir.path().join("absent"))).ping().expect_err("no token");
    assert!(error.is_transient() && !error.maybe_applied(), "{error}");
    assert!(script.seen().is_empty(), "nothing may be sent without the credential");
}

#[test]
fn errors_keep_the_servers_status() {
    let html = "<html>bad gateway</html>";
    let cases = [
        (status(409, "AlreadyExists"), "create jobs: 409 AlreadyExists: m"),
        (Reply::text(503, "upstream\nis away"), "create jobs: 503: upstream is away"),
        (Reply::text(502, html), "create jobs: 502"),
        (Reply::text(404, "default backend - 404"), "create jobs: 404: default backend - 404"),
        (Reply::text(404, r#"{"kind":"Error","reason":"NotFound","code":404}"#), "create jobs: 404"),
        (Reply::text(404, "{}"), "create jobs: 404"),
        (Reply::text(302, ""), "create jobs: 302"),
        (Reply::text(500, &"x".repeat(ERROR_BODY_MAX + 1)), "create jobs: 500"),
        (Reply::chunks(500, vec![Chunk::Fail(io::ErrorKind::UnexpectedEof)]), "create jobs: 500"),
    ];
    for (reply, expected) in cases {
        let script = Script::new([reply]);
        let error = client(&script, &Auth::None).call::<Value>(&create()).expect_err("an error");
        assert_eq!(error.to_string(), expected);
        assert_eq!(script.seen().len(), 1, "{expected}");
    }
}

#[test]
fn retry_after_comes_from_the_header_or_the_body() {
    let cases = [
        (status(429, "TooManyRequests").retry_after("7"), Some(7)),
        (status(429, "TooManyRequests").retry_after("0"), Some(1)),
        (Reply::json(429, &json!({"reason": "TooManyRequests", "details": {"retryAfterSeconds": 3}})), Some(3)),
        (Reply::json(429, &json!({"reason": "TooManyRequests", "details": {"retryAfterSeconds": 3}})).retry_after("5"), Some(5)),
        (Reply::json(500, &json!({"reason": "InternalError", "details": {"retryAfterSeconds": 86_400}})), Some(600)),
        (status(503, "ServiceUnavailable"), None),
    ];
    for (reply, seconds) in cases {
        let error = client(&Script::new([reply]), &Auth::None).call_unit(&get()).expect_err("an error");
        assert_eq!(error.retry_after(), seconds.map(Duration::from_secs));
    }
}

#[test]
fn a_refused_token_is_read_again_and_the_call_repeated_once() {
    let dir = TempDir::new();
    let path = dir.write("token", "one");
    let script = Script::new([Reply::json(200, &json!({})), status(401, "Unauthorized"), Reply::json(201, &json!({}))]);
    let client = client(&script, &Auth::TokenFile(path));
    client.call_unit(&get()).expect("an answer");
    dir.write("token", "two");
    client.call_unit(&create()).expect("the second token is accepted");
    script.extend([status(401, "Unauthorized")]);
    let error = client.call_unit(&create()).expect_err("the token is the same");
    assert_eq!(error.answer(), Answer::Unauthorized);
    dir.write("token", "three");
    script.extend([status(401, "Unauthorized"), status(401, "Unauthorized")]);
    assert_eq!(client.call_unit(&create()).expect_err("refused twice").answer(), Answer::Unauthorized);
    let used: Vec<_> = script.seen().iter().filter_map(|seen| seen.authorization.clone()).collect();
    assert_eq!(used, ["Bearer one", "Bearer one", "Bearer two", "Bearer two", "Bearer two", "Bearer three"]);
}

#[test]
fn only_reads_are_repeated_and_only_once() {
    use TransportErrorKind::{Closed, Connect, TimedOut};
    let ok = || Reply::json(200, &json!({}));
    // (request, replies, exchanges, works, maybe applied)
    let cases = [
        (get(), vec![Reply::Fail(Closed), ok()], 2, true, false),
        (get(), vec![Reply::Fail(Closed), Reply::Fail(Closed), ok()], 2, false, true),
        (get(), vec![Reply::Fail(TimedOut), ok()], 1, false, true),
        (get(), vec![Reply::Fail(Connect), ok()], 1, false, false),
        (create(), vec![Reply::Fail(Closed), ok()], 1, false, true),
        (create(), vec![Reply::Fail(Connect), ok()], 1, false, false),
        (delete(), vec![Reply::Fail(Closed), ok()], 1, false, true),
    ];
    for (request, replies, exchanges, works, maybe_applied) in cases {
        let script = Script::new(replies.clone());
        let result = client(&script, &Auth::None).call_unit(&request);
        assert_eq!(script.seen().len(), exchanges, "{replies:?}");
        match result {
            Ok(()) => assert!(works, "{replies:?}"),
            Err(error) => {
                assert!(!works && error.is_transient(), "{replies:?}: {error}");
                assert_eq!(error.maybe_applied(), maybe_applied, "{replies:?}");
            }
        }
    }
}

#[test]
fn bodies_are_limited_and_cuts_are_transient() {
    let cases: [(Vec<Chunk>, &str, bool); 5] = [
        (vec![Chunk::Bytes(vec![b' '; 1001])], "get jobs: answer is larger than 1000 bytes", false),
        (
            vec![Chunk::Bytes(br#"{"metadata": {"na"#.to_vec())],
            "get jobs: unexpected answer: EOF while parsing a string at line 1 column 17",
            true,
        ),
        (vec![Chunk::Bytes(b"<html>".to_vec())], "get jobs: unexpected answer: expected value at line 1 column 1", true),
        (
            vec![Chunk::Bytes(br#"{"metadata": "canary"}"#.to_vec())],
            "get jobs: unexpected answer: invalid type: string (hidden), expected struct LeanMeta at line 1 column 21",
            false,
        ),
        (
            vec![Chunk::Bytes(b"{".to_vec()), Chunk::Fail(io::ErrorKind::UnexpectedEof)],
            "get jobs: answer truncated: unexpected end of file",
            true,
        ),
    ];
    for (chunks, expected, transient) in cases {
        let error = client(&Script::new([Reply::chunks(200, chunks)]), &Auth::None).call::<Job>(&get()).expect_err(expected);
        assert_eq!((error.to_string().as_str(), error.is_transient()), (expected, transient));
        assert!(error.maybe_applied());
    }
}

#[test]
fn texts_and_bodies_that_do_not_matter() {
    let log = Request::pod_log(&key(), "main");
    let script = Script::new([Reply::text(200, "12345"), Reply::text(200, "123456"), Reply::text(200, "no json")]);
    let client = client(&script, &Auth::None);
    assert_eq!(client.call_text(&log, 5).expect("a log"), b"12345");
    assert!(matches!(client.call_text(&log, 5), Err(Error::TooLarge { limit: 5, .. })));
    client.call_unit(&delete()).expect("deleted");
}

#[test]
fn shutdown_ends_a_blocked_call_and_refuses_others_but_not_forks() {
    let script = Script::new([Reply::chunks(200, vec![Chunk::Hang])]);
    let client = client(&script, &Auth::None);
    let fork = client.fork();
    let blocked = std::thread::spawn({
        let client = client.clone();
        move || client.call_unit(&get())
    });
    script.wait_for(1);
    client.shutdown();
    blocked.join().expect("no panic").expect("the body did not matter");
    assert!(client.call_unit(&get()).expect_err("refused").is_shutdown());
    assert_eq!(script.seen().len(), 1);
    script.extend([Reply::json(200, &json!({}))]);
    fork.call_unit(&get()).expect("its own connections");
}

#[test]
fn the_observer_sees_each_exchange() {
    let codes = Arc::new(Mutex::new(Vec::new()));
    let observer: Observer = Arc::new({
        let codes = Arc::clone(&codes);
        move |request: &Request, code| codes.lock().expect("no panic").push((request.verb, request.resource.plural, code))
    });
    let script = Script::new([Reply::Fail(TransportErrorKind::Closed), status(404, "NotFound")]);
    let options = ClientOptions { observer: Some(observer), ..ClientOptions::default() };
    let client = Client::with_transport(Arc::new(script), &Auth::None, options);
    assert!(client.call_unit(&get()).expect_err("not found").is_not_found());
    assert_eq!(*codes.lock().expect("no panic"), [("get", "jobs", 0), ("get", "jobs", 404)]);
}

#[test]
fn behind_a_fence_only_reads_leave() {
    let ok = || Reply::json(200, &json!({}));
    let script = Script::new([ok(), ok(), ok()]);
    let fence = Until::default();
    let options = ClientOptions { fence: Some(fence.clone()), ..ClientOptions::default() };
    let client = Client::with_transport(Arc::new(script.clone()), &Auth::None, options);
    for client in [&client, &client.fork()] {
        let error = client.call_unit(&create()).expect_err("refused");
        assert!(error.is_shutdown() && !error.maybe_applied() && !error.is_transient(), "{error}");
    }
    assert!(client.call_unit(&delete()).is_err() && script.seen().is_empty(), "nothing was sent");
    client.call_unit(&get()).expect("a read");
    fence.set(crate::moment::Moment::now() + Duration::from_secs(3600));
    client.call_unit(&create()).expect("a write");
    fence.end();
    assert!(client.call_unit(&create()).is_err());
    assert_eq!(script.seen().len(), 2);
}

#[test]
fn a_write_is_not_repeated_with_a_new_token_after_the_fence_has_come_down() {
    let dir = TempDir::new();
    let path = dir.write("token", "one");
    let script = Script::new([Reply::json(200, &json!({}))]);
    let fence = Until::default();
    fence.set(crate::moment::Moment::now() + Duration::from_secs(3600));
    let observer: Observer = Arc::new({
        let (fence, path) = (fence.clone(), path.clone());
        // While the write is on its way.
        move |request: &Request, _| {
            if request.method.is_write() {
                std::fs::write(&path, "two").expect("written");
                fence.end();
            }
        }
    });
    let options = ClientOptions { fence: Some(fence), observer: Some(observer), ..ClientOptions::default() };
    let client = Client::with_transport(Arc::new(script.clone()), &Auth::TokenFile(path), options);
    client.call_unit(&get()).expect("a read");
    script.extend([status(401, "Unauthorized"), Reply::json(201, &json!({}))]);
    assert!(matches!(client.call_unit(&create()), Err(Error::Fenced)));
    assert_eq!(script.seen().len(), 2);
}

/// What comes of a request to a server that is busy, by a client that waits so many seconds; and how often it was sent.
fn busy(seconds: u64, replies: impl IntoIterator<Item = Reply>, request: &Request) -> (Result<()>, usize) {
    let script = Script::new(replies);
    let options = ClientOptions { busy_wait: Duration::from_secs(seconds), ..ClientOptions::default() };
    let client = Client::with_transport(Arc::new(script.clone()), &Auth::None, options);
    (client.call_unit(request), script.seen().len())
}

#[test]
fn a_request_that_a_busy_server_did_not_take_is_sent_again_after_the_pause_that_it_asks_for() {
    let ok = || Reply::json(200, &json!({}));
    let too_many = |seconds: &str| status(429, "TooManyRequests").retry_after(seconds);
    let event = Request::create(Resource::EVENTS, "ns", &json!({}));
    for (what, wait, reply, request, is_ok, sent) in [
        ("a write", 60, too_many("0"), create(), true, 2),
        ("a read", 60, too_many("0"), get(), true, 2),
        ("a pause that is longer than the call may wait", 5, too_many("600"), get(), false, 1),
        ("a client that does not wait", 0, too_many("0"), get(), false, 1),
        ("no pause asked for", 60, status(429, "TooManyRequests"), create(), false, 1),
        ("nobody knows whether it was done", 60, status(503, "ServiceUnavailable").retry_after("0"), create(), false, 1),
        ("an Event, of which a namespace may have too many", 60, too_many("0"), event, false, 1),
    ] {
        let (result, seen) = busy(wait, [reply, ok()], &request);
        assert_eq!((result.is_ok(), seen), (is_ok, sent), "{what}: {result:?}");
    }
}
