use super::*;
use crate::api::{Job, Resource};
use crate::kube::ClientOptions;
use crate::kube::config::Auth;
use crate::kube::scripted::{Chunk, Reply, Script, WAIT, wait_until};
use crate::kube::transport::{Limit, TransportErrorKind};
use crossbeam_channel::{Receiver, unbounded};
use serde_json::{Value, json};

/// Waits of a millisecond at most; every watch that ends cleanly has lived long enough.
fn quick() -> WatchTimings {
    let tiny = Duration::from_millis(1);
    WatchTimings { backoff_min: tiny, backoff_max: tiny, short: Duration::ZERO, line_max: 1000, ..WatchTimings::default() }
}

struct Rig {
    script: Script,
    handle: WatchHandle,
    /// `list a b`, `+a`, `-a`.
    events: Receiver<String>,
    restarts: Receiver<(&'static str, &'static str)>,
}

impl Rig {
    fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::start_with(replies, quick(), |_| {})
    }

    fn start_with(replies: impl IntoIterator<Item = Reply>, timings: WatchTimings, change: impl FnOnce(&mut WatchSpec)) -> Self {
        let script = Script::new(replies);
        let client = Client::with_transport(Arc::new(script.clone()), &Auth::None, ClientOptions::default());
        let (sender, events) = unbounded();
        let (restart_sender, restarts) = unbounded();
        let mut spec = WatchSpec::new("watch-test", Resource::JOBS);
        spec.page_limit = 2;
        spec.on_restart = Some(Arc::new(move |resource, reason| {
            let _ = restart_sender.send((resource, reason));
        }));
        change(&mut spec);
        let handle = spawn_with(&client, spec, timings, move |event: WatchEvent<Arc<Job>>| {
            let text = match event {
                WatchEvent::Replaced(jobs) => {
                    let names: Vec<_> = jobs.into_iter().map(|job| job.metadata.name.clone()).collect();
                    format!("list {}", names.join(" "))
                }
                WatchEvent::Applied(job) => format!("+{}", job.metadata.name),
                WatchEvent::Deleted(key) => format!("-{}", key.name),
            };
            if sender.send(text).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        Self { script, handle, events, restarts }
    }

    fn expect(&self, expected: &[&str]) {
        for event in expected {
            assert_eq!(self.events.recv_timeout(WAIT).as_deref(), Ok(*event), "requests: {:#?}", self.paths());
        }
    }

    fn paths(&self) -> Vec<String> {
        self.script.seen().into_iter().map(|seen| brief(&seen.path_and_query)).collect()
    }

    /// The requests in short, once there are as many.
    fn expect_requests(&self, expected: &[&str]) {
        let paths: Vec<_> = self.script.wait_for(expected.len()).iter().map(|path| brief(path)).collect();
        assert_eq!(paths, expected);
    }

    fn expect_restarts(&self, expected: &[&str]) {
        for reason in expected {
            assert_eq!(self.restarts.recv_timeout(WAIT), Ok(("jobs", *reason)));
        }
    }

    fn stop(self) {
        self.handle.stop();
        self.handle.join();
    }
}

/// `list limit=2`, `watch 7`.
fn brief(path: &str) -> String {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let version = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
    match version {
        Some(version) => format!("watch {version}"),
        None => format!("list {}", query.replace('&', " ")),
    }
}

fn page(version: &str, token: &str, names: &[&str]) -> Reply {
    let items: Vec<Value> = names.iter().map(|name| json!({"metadata": {"name": name}})).collect();
    Reply::json(200, &json!({"metadata": {"resourceVersion": version, "continue": token}, "items": items}))
}

fn frame(kind: &str, name: &str, version: &str) -> Vec<u8> {
    format!("{}\n", json!({"type": kind, "object": {"metadata": {"name": name, "resourceVersion": version}}})).into_bytes()
}

fn error_frame(code: u16) -> Vec<u8> {
    format!("{}\n", json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "code": code}})).into_bytes()
}

fn stream(chunks: impl IntoIterator<Item = Vec<u8>>, end: Option<Chunk>) -> Reply {
    Reply::chunks(200, chunks.into_iter().map(Chunk::Bytes).chain(end).collect())
}

fn hang() -> Reply {
    stream([], Some(Chunk::Hang))
}

fn status(code: u16) -> Reply {
    Reply::json(code, &json!({"kind": "Status", "apiVersion": "v1", "code": code, "reason": "Scripted"}))
}

#[test]
fn pages_become_one_list_and_the_watch_goes_on_from_its_version() {
    let rig = Rig::start_with(
        [
            page("7", "t1", &["a", "b"]),
            page("7", "", &["c"]),
            stream([frame("ADDED", "d", "8"), frame("MODIFIED", "d", "9"), frame("DELETED", "a", "10"), frame("BOOKMARK", "", "12")], None),
            hang(),
        ],
        quick(),
        |spec| spec.namespace = "ns".to_owned(),
    );
    rig.expect(&["list a b c", "+d", "+d", "-a"]);
    rig.expect_requests(&["list limit=2", "list limit=2 continue=t1", "watch 7", "watch 12"]);
    rig.expect_restarts(&["ended"]);
    let watch = &rig.script.seen()[2];
    assert!(watch.path_and_query.starts_with("/apis/batch/v1/namespaces/ns/jobs?watch=true&allowWatchBookmarks=true&"));
    assert_eq!(watch.limit, Limit::Stream { headers: Duration::from_secs(30), idle: Duration::from_secs(240) });
    let seconds = watch.path_and_query.split("timeoutSeconds=").nth(1).and_then(|text| text.parse::<u32>().ok());
    assert!(seconds.is_some_and(|seconds| (180..=230).contains(&seconds)), "{seconds:?}");
    let health = rig.handle.health();
    assert!(health.synced && health.alive && health.last_progress_age < WAIT);
    assert_eq!((health.restarts, health.failures), (0, 0));
    rig.stop();
}

#[test]
fn an_expired_page_means_a_whole_fresh_list_and_never_half_a_one() {
    let rig = Rig::start([page("7", "t1", &["a", "b"]), status(410), page("9", "", &["a", "c", "d"]), hang()]);
    rig.expect(&["list a c d"]);
    rig.expect_requests(&["list limit=2", "list limit=2 continue=t1", "list ", "watch 9"]);
    rig.expect_restarts(&["gone"]);
    rig.stop();
}

#[test]
fn a_page_that_fails_is_fetched_again_and_the_others_are_kept() {
    let garbled = Reply::text(200, r#"{"items": [{"metadata""#);
    let rig = Rig::start([
        page("7", "t1", &["a", "b"]),
        status(500),
        Reply::Fail(TransportErrorKind::Connect),
        status(429).retry_after("0"),
        page("7", "", &["c"]),
        status(410),
        garbled,
        page("9", "", &["e"]),
        hang(),
    ]);
    rig.expect(&["list a b c", "list e"]);
    let again = "list limit=2 continue=t1";
    rig.expect_requests(&["list limit=2", again, again, again, again, "watch 7", "list limit=2", "list limit=2", "watch 9"]);
    rig.expect_restarts(&["interrupted", "interrupted", "busy", "gone", "garbled"]);
    rig.stop();
}

#[test]
fn gone_means_a_fresh_list_however_it_is_said() {
    let too_large = json!({"kind": "Status", "apiVersion": "v1", "code": 504, "reason": "Timeout",
        "details": {"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]}});
    let rig = Rig::start([
        page("1", "", &["a"]),
        status(410),
        page("2", "", &["b"]),
        stream([frame("ADDED", "c", "3"), error_frame(410), frame("ADDED", "never", "4")], None),
        page("5", "", &["d"]),
        stream([error_frame(500)], None),
        page("6", "", &["e"]),
        Reply::json(504, &too_large),
        page("7", "", &["f"]),
        status(404),
        page("8", "", &[]),
        hang(),
    ]);
    rig.expect(&["list a", "list b", "+c", "list d", "list e", "list f", "list "]);
    rig.expect_restarts(&["gone", "gone", "garbled", "gone", "missing"]);
    rig.stop();
}

#[test]
fn other_failures_keep_the_position() {
    let rig = Rig::start([
        page("1", "", &[]),
        status(429).retry_after("0"),
        status(503),
        status(500),
        status(403),
        Reply::Fail(TransportErrorKind::Connect),
        stream([frame("ADDED", "a", "2")], Some(Chunk::Fail(io::ErrorKind::ConnectionReset))),
        stream([frame("BOOKMARK", "", "3")], Some(Chunk::Fail(io::ErrorKind::TimedOut))),
        stream([error_frame(429)], None),
        hang(),
    ]);
    rig.expect(&["list ", "+a"]);
    rig.expect_requests(&[
        "list limit=2",
        "watch 1",
        "watch 1",
        "watch 1",
        "watch 1",
        "watch 1",
        "watch 1",
        "watch 2",
        "watch 3",
        "watch 3",
    ]);
    rig.expect_restarts(&["busy", "busy", "interrupted", "denied", "interrupted", "interrupted", "idle", "busy"]);
    assert_eq!(rig.handle.health().restarts, 8);
    rig.stop();
}

#[test]
fn the_wait_that_the_server_asks_for_is_kept() {
    let before = Instant::now();
    let rig = Rig::start([page("1", "", &[]), status(429).retry_after("1"), stream([frame("ADDED", "a", "2")], None), hang()]);
    rig.expect(&["list ", "+a"]);
    assert!(before.elapsed() >= Duration::from_secs(1), "{:?}", before.elapsed());
    rig.stop();
}

#[test]
fn a_server_that_closes_each_watch_at_once_is_a_failure() {
    let timings = WatchTimings { short: WAIT, ..quick() };
    let rig = Rig::start_with([page("1", "", &[]), stream([], None), stream([frame("ADDED", "a", "2")], None), hang()], timings, |_| {});
    rig.expect(&["list ", "+a"]);
    rig.expect_requests(&["list limit=2", "watch 1", "watch 1", "watch 2"]);
    rig.expect_restarts(&["closed-early", "closed-early"]);
    assert!(rig.handle.health().failures > 0);
    rig.stop();
}

/// In a quiet cluster nothing may come for a minute.
#[test]
fn a_watch_that_stays_open_makes_up_for_failures_without_an_event() {
    let failures = std::iter::repeat_with(|| status(500)).take(5);
    let rig = Rig::start(failures.chain([page("1", "", &[]), status(500), hang()]));
    rig.expect(&["list "]);
    wait_until("the watch is open and the failures are over", || rig.script.seen().len() == 8 && rig.handle.health().failures == 0);
    rig.stop();
    let timings = WatchTimings { short: WAIT, ..quick() };
    let rig = Rig::start_with([status(500), status(500), page("1", "", &[]), hang()], timings, |_| {});
    rig.script.wait_for(4);
    assert_eq!(rig.handle.health().failures, 2, "it has not lived yet");
    rig.stop();
}

#[test]
fn frames_may_be_split_and_doubled_but_not_cut() {
    let whole = [frame("ADDED", "ä", "2"), frame("ADDED", "ä", "2"), frame("NEWS", "x", "9"), b"\n".to_vec(), frame("DELETED", "b", "3")];
    let bytes = whole.concat().into_iter().map(|byte| vec![byte]);
    let mut cut = frame("ADDED", "never", "4");
    cut.pop();
    let rig = Rig::start([page("1", "", &[]), stream(bytes.chain([cut]), None), hang()]);
    rig.expect(&["list ", "+ä", "+ä", "-b"]);
    rig.expect_requests(&["list limit=2", "watch 1", "watch 3"]);
    assert!(rig.events.is_empty());
    rig.stop();
}

#[test]
fn an_object_that_cannot_be_decoded_is_passed_over() {
    let bad = |version: &str| json!({"metadata": {"name": "bad", "resourceVersion": version}, "status": "canary"});
    let list = json!({"metadata": {"resourceVersion": "1"}, "items": [bad("1"), {"metadata": {"name": "a"}}]});
    let bad_frame = format!("{}\n", json!({"type": "MODIFIED", "object": bad("2")})).into_bytes();
    let rig = Rig::start([Reply::json(200, &list), stream([bad_frame.clone(), frame("ADDED", "b", "3"), bad_frame], None), hang()]);
    rig.expect(&["list a", "+b"]);
    rig.expect_requests(&["list limit=2", "watch 1", "watch 2"]);
    rig.stop();
}

#[test]
fn lines_that_are_no_frames_or_too_long_mean_a_fresh_list() {
    let rig = Rig::start([
        page("1", "", &[]),
        stream([b"<html>\n".to_vec()], None),
        page("2", "", &[]),
        stream([vec![b'x'; 1001]], Some(Chunk::Hang)),
        page("3", "", &["a"]),
        hang(),
    ]);
    rig.expect(&["list ", "list ", "list a"]);
    rig.expect_restarts(&["garbled", "garbled"]);
    rig.stop();
}

#[test]
fn selectors_and_metadata_only_go_with_list_and_watch() {
    let rig = Rig::start_with([page("1", "", &[]), hang()], quick(), |spec| {
        spec.resource = Resource::SECRETS;
        spec.field_selector = Some("metadata.name=a".to_owned());
        spec.label_selector = Some("b".to_owned());
        spec.metadata_only = true;
    });
    rig.script.wait_for(2);
    let seen = rig.script.seen();
    for request in &seen {
        assert!(request.path_and_query.contains("labelSelector=b&fieldSelector=metadata.name%3Da"), "{request:?}");
    }
    assert!(seen[0].accept.contains("PartialObjectMetadataList;") && seen[1].accept.contains("PartialObjectMetadata;"));
    rig.stop();
}

#[test]
fn stopping_ends_every_wait_at_once() {
    let slow = WatchTimings { backoff_min: Duration::from_secs(600), backoff_max: Duration::from_secs(600), ..quick() };
    // Blocked in a list's headers, its body, a watch's headers, its body, and in a backoff.
    let cases: [(Vec<Reply>, usize); 5] =
        [(vec![], 1), (vec![hang()], 1), (vec![page("1", "", &[])], 2), (vec![page("1", "", &[]), hang()], 2), (vec![status(403)], 1)];
    for (replies, requests) in cases {
        let rig = Rig::start_with(replies, slow.clone(), |_| {});
        rig.script.wait_for(requests);
        let start = Instant::now();
        rig.stop();
        assert!(start.elapsed() < WAIT);
    }
}

#[test]
fn a_receiver_that_is_gone_ends_the_watch_and_so_does_dropping_the_handle() {
    let client = Client::with_transport(Arc::new(Script::new([page("1", "", &["a"])])), &Auth::None, ClientOptions::default());
    let spec = WatchSpec::new("watch-test", Resource::JOBS);
    let handle = spawn_with(&client, spec, quick(), |_: WatchEvent<Arc<Job>>| ControlFlow::Break(()));
    wait_until("the thread has ended", || !handle.health().alive);
    assert!(!handle.health().synced);
    handle.join();

    let Rig { script, handle, events, restarts: _ } = Rig::start([page("1", "", &["a"]), hang()]);
    script.wait_for(2);
    assert_eq!(events.recv_timeout(WAIT).as_deref(), Ok("list a"));
    drop(handle);
    assert!(events.recv_timeout(WAIT).is_err(), "the thread drops its end");
}

#[test]
fn health_tells_of_a_panic() {
    let script = Script::new([page("1", "", &[])]);
    let client = Client::with_transport(Arc::new(script), &Auth::None, ClientOptions::default());
    let spec = WatchSpec::new("watch-test", Resource::JOBS);
    let handle = spawn_with(&client, spec, quick(), |_: WatchEvent<Arc<Job>>| panic!("as intended by the test"));
    wait_until("the thread has ended", || !handle.health().alive);
    handle.join();
}

/// A page of which the first bytes come, and then nothing more.
fn stalled() -> Reply {
    stream([br#"{"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "a"}}, "#.to_vec()], Some(Chunk::Hang))
}

#[test]
fn a_list_that_is_asked_for_ends_whatever_the_watch_is_at() {
    // Blocked in a watch's body, in its headers, in a list's body after a page, in its headers.
    let cases: [(Vec<Reply>, usize, &[&str]); 4] = [
        (vec![page("1", "", &["a"]), hang()], 2, &["list limit=2", "watch 1", "list limit=2"]),
        (vec![page("1", "", &["a"])], 2, &["list limit=2", "watch 1", "list limit=2"]),
        (vec![page("1", "t", &["a", "b"]), stalled()], 2, &["list limit=2", "list limit=2 continue=t", "list limit=2"]),
        (vec![], 1, &["list limit=2", "list limit=2"]),
    ];
    for (replies, requests, expected) in cases {
        let slow = WatchTimings { backoff_min: WAIT, backoff_max: WAIT, ..quick() };
        let rig = Rig::start_with(replies, slow, |_| {});
        rig.script.wait_for(requests);
        let has_listed = expected[1] == "watch 1";
        if has_listed {
            rig.expect(&["list a"]);
        }
        rig.handle.relister().list_again();
        rig.script.wait_for(requests + 1);
        rig.script.extend([page("9", "", &["z"]), hang()]);
        rig.expect(&["list z"]);
        let paths = rig.paths();
        assert_eq!(paths[..expected.len()], *expected);
        assert_eq!((rig.handle.health().failures, rig.handle.health().restarts), (0, 0), "no failure, and no wait");
        rig.stop();
    }
}

#[test]
fn requests_while_something_is_under_way_lead_to_exactly_one_more_list() {
    let script = Script::new([page("1", "", &["a"]), page("2", "", &["b"]), hang()]);
    let client = Client::with_transport(Arc::new(script.clone()), &Auth::None, ClientOptions::default());
    // The first delivery lasts until the test says so.
    let (sender, events) = unbounded();
    let (go, gate) = unbounded::<()>();
    let handle = spawn_with(&client, WatchSpec::new("watch-test", Resource::JOBS), quick(), move |event: WatchEvent<Arc<Job>>| {
        let WatchEvent::Replaced(jobs) = event else { panic!("{event:?}") };
        let _ = sender.send(jobs[0].metadata.name.clone());
        let _ = gate.recv_timeout(WAIT);
        ControlFlow::Continue(())
    });
    assert_eq!(events.recv_timeout(WAIT).as_deref(), Ok("a"));
    let relister = handle.relister();
    (0..3).for_each(|_| relister.list_again());
    (0..2).for_each(|_| go.send(()).expect("the watch listens"));
    assert_eq!(events.recv_timeout(WAIT).as_deref(), Ok("b"));
    let paths: Vec<_> = script.wait_for(3).iter().map(|path| brief(path)).collect();
    assert_eq!(paths, ["list limit=500", "list limit=500", "watch 2"]);
    handle.stop();
    handle.join();
}

#[test]
fn a_held_watch_lists_when_it_is_asked_and_says_for_what() {
    let (sender, listed) = unbounded();
    let rig = Rig::start_with([], quick(), move |spec| {
        spec.is_held = true;
        spec.on_listed = Some(Arc::new(move |number| {
            let _ = sender.send(number);
            ControlFlow::Continue(())
        }));
    });
    let relister = rig.handle.relister();
    relister.list_for(0);
    assert!(rig.paths().is_empty() && rig.handle.health().alive && !rig.handle.health().synced);
    rig.script.extend([page("1", "", &["a"]), hang()]);
    relister.list_for(3);
    rig.expect(&["list a"]);
    assert_eq!(listed.recv_timeout(WAIT), Ok(3));
    rig.script.wait_for(2);
    // What was asked for already needs no other list.
    relister.list_for(2);
    relister.list_for(3);
    rig.script.extend([page("2", "", &["b"]), hang()]);
    relister.list_for(4);
    rig.expect(&["list b"]);
    assert_eq!(listed.recv_timeout(WAIT), Ok(4));
    rig.expect_requests(&["list limit=2", "watch 1", "list limit=2", "watch 2"]);
    // A fresh list for another reason counts for the same.
    rig.script.extend([page("3", "", &["c"]), hang()]);
    relister.list_again();
    rig.expect(&["list c"]);
    assert_eq!(listed.recv_timeout(WAIT), Ok(4));
    rig.stop();
    // One that was never asked can be stopped.
    let rig = Rig::start_with([], quick(), |spec| spec.is_held = true);
    rig.stop();
}

#[test]
fn where_only_changes_matter_one_object_is_listed_and_none_is_delivered() {
    let rig = Rig::start_with([page("1", "more", &["a"]), stream([frame("ADDED", "b", "2")], None), hang()], quick(), |spec| {
        spec.changes_only = true;
    });
    rig.expect(&["list ", "+b"]);
    rig.expect_requests(&["list limit=1", "watch 1", "watch 2"]);
    rig.stop();
}

#[test]
fn what_is_not_ours_is_not_delivered_and_counts_as_gone_when_it_changes() {
    let script = Script::new([
        page("1", "", &["a", "foreign"]),
        stream([frame("ADDED", "foreign", "2"), frame("MODIFIED", "a", "3")], None),
        hang(),
    ]);
    let client = Client::with_transport(Arc::new(script), &Auth::None, ClientOptions::default());
    let (sender, events) = unbounded();
    let decode = |json: &[u8]| serde_json::from_slice::<Job>(json).map(|job| (job.metadata.name != "foreign").then_some(job));
    let handle = spawn_filtered(&client, WatchSpec::new("watch-test", Resource::JOBS), decode, move |event: WatchEvent<Arc<Job>>| {
        let _ = sender.send(match event {
            WatchEvent::Replaced(jobs) => format!("list {}", jobs.len()),
            WatchEvent::Applied(job) => format!("+{}", job.metadata.name),
            WatchEvent::Deleted(key) => format!("-{}", key.name),
        });
        ControlFlow::Continue(())
    });
    for event in ["list 1", "-foreign", "+a"] {
        assert_eq!(events.recv_timeout(WAIT).as_deref(), Ok(event));
    }
    handle.stop();
    handle.join();
}

#[test]
fn an_object_over_the_limit_does_not_keep_the_others_away() {
    let long = json!({"metadata": {"name": "x".repeat(1_000)}});
    let list = json!({"metadata": {"resourceVersion": "1"}, "items": [{"metadata": {"name": "a"}}, long, {"metadata": {"name": "b"}}]});
    let rig = Rig::start([Reply::json(200, &list), hang()]);
    rig.expect(&["list a b"]);
    rig.stop();
}

#[test]
fn a_page_that_is_not_over_in_time_is_asked_for_in_a_smaller_one() {
    let slow = stream([br#"{"items": ["#.to_vec()], Some(Chunk::Fail(io::ErrorKind::TimedOut)));
    let silent = Reply::Fail(TransportErrorKind::TimedOut);
    let rig = Rig::start_with([slow, silent, page("1", "", &["a"]), hang()], quick(), |spec| spec.page_limit = 500);
    rig.expect(&["list a"]);
    rig.expect_requests(&["list limit=500", "list limit=125", "list limit=31", "watch 1"]);
    rig.expect_restarts(&["too-large", "too-large"]);
    rig.stop();
}

#[test]
fn no_watch_begins_while_a_list_is_asked_for() {
    let client = Client::with_transport(Arc::new(Script::new([])), &Auth::None, ClientOptions::default());
    let shared = Arc::new(Shared::new(client));
    let handle = WatchHandle { shared: Arc::clone(&shared), thread: None, name: "watch-test", namespace: String::new() };
    let before = shared.client_unless_asked().expect("nobody has asked");
    handle.relister().list_again();
    assert!(before.is_shut_down(), "what has begun ends");
    assert!(shared.client_unless_asked().is_none(), "nothing would end what begins now");
    shared.begin_list();
    assert!(shared.client_unless_asked().is_some_and(|client| !client.is_shut_down()));
}
