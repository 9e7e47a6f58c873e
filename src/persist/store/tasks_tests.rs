//! The store against a scripted API server: what is asked, what is written, what comes of it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs;
use std::rc::Rc;

use serde_json::{Value, json};

use crate::api::{ANNOTATION_WRITTEN_BY, LABEL_CONTAINER_NAME, LABEL_SECRET_KIND, LABEL_SECRET_VERSION, QuarksJobHead, Resource, Status};
use crate::kube::Result;
use crate::moment::Moment;
use crate::persist::secret::bodies::{ChangedSecret, LiveSecret, NewSecret};
use crate::persist::secret::versions::note;

use super::*;

#[cfg(test)]
#[path = "tasks_writers_tests.rs"]
mod writers;

const CANARY: &str = "CANARY-s3cr3t";

/// What happens to the next call of a verb, instead of success.
#[derive(Clone, Copy)]
enum Trouble {
    Answer(u16, &'static str),
    /// With this sentence.
    Says(u16, &'static str),
    /// Not by the API server.
    OnTheWay(u16),
    Unsent,
    ReplyLost,
    TooLarge,
}

#[derive(Default)]
struct Server {
    owner: Option<Value>,
    status: Value,
    secrets: BTreeMap<String, Value>,
    calls: Vec<String>,
    trouble: VecDeque<(&'static str, Trouble)>,
    always: Option<(&'static str, Trouble)>,
    version: u64,
    /// Answers of `log`, one after the other.
    logs: VecDeque<String>,
    clock: Duration,
    /// Until when writes are allowed.
    allowed: Duration,
    /// What each create takes.
    slow: Duration,
    is_pod_gone: bool,
    /// Comes into being right after a list.
    late: Option<(String, Value)>,
}

#[derive(Clone)]
struct Fake(Rc<RefCell<Server>>);

fn error(verb: &'static str, trouble: Trouble) -> Error {
    let resource = Resource::SECRETS;
    let answer = |code, status| Error::Status { verb, resource, code, status: Box::new(status), retry_after: None };
    match trouble {
        Trouble::Answer(code, reason) => answer(code, Status::genuine(code, reason, &format!("quotes {CANARY}"))),
        Trouble::Says(code, sentence) => answer(code, Status::genuine(code, "Forbidden", sentence)),
        Trouble::OnTheWay(code) => answer(code, Status { code, message: "default backend".into(), ..Status::default() }),
        Trouble::TooLarge => Error::TooLarge { verb, resource, limit: 1 },
        Trouble::Unsent => Error::Transport { verb, resource, sent: false, timed_out: false, message: "refused".into() },
        Trouble::ReplyLost => Error::Transport { verb, resource, sent: true, timed_out: false, message: "reset".into() },
    }
}

impl Fake {
    fn fence(&self) -> Result<()> {
        let server = self.0.borrow();
        if server.clock < server.allowed { Ok(()) } else { Err(Error::Fenced) }
    }

    /// Notes the call, does it unless trouble forbids, and tells of the trouble.
    fn call<T>(&self, verb: &'static str, name: &str, act: impl FnOnce(&mut Server) -> Result<T>) -> Result<T> {
        let mut server = self.0.borrow_mut();
        server.calls.push(format!("{verb} {name}"));
        let mut trouble = server.always.filter(|(at, _)| *at == verb).map(|(_, trouble)| trouble);
        if trouble.is_none() && server.trouble.front().is_some_and(|(at, _)| *at == verb) {
            trouble = server.trouble.pop_front().map(|(_, trouble)| trouble);
        }
        match trouble {
            Some(Trouble::ReplyLost) => act(&mut server).and(Err(error(verb, Trouble::ReplyLost))),
            Some(trouble) => Err(error(verb, trouble)),
            None => act(&mut server),
        }
    }
}

impl Api for Fake {
    fn now(&self) -> Moment {
        Moment::after_boot(self.0.borrow().clock)
    }

    fn allow_writes(&self, until: Moment) {
        self.0.borrow_mut().allowed = until.since_boot();
    }

    fn is_pod_kept(&self) -> Result<bool> {
        self.call("watch", "pod", |server| Ok(!server.is_pod_gone))
    }

    fn owner(&self) -> Result<QuarksJobHead> {
        self.call("get", "quarksjob", |server| match &server.owner {
            Some(value) => Ok(serde_json::from_value(json!({"metadata": value, "status": server.status})).unwrap()),
            None => Err(error("get", Trouble::Answer(404, "NotFound"))),
        })
    }

    fn log(&self, container: &str) -> Result<Vec<u8>> {
        self.call("log", container, |server| Ok(server.logs.pop_front().unwrap_or_default().into_bytes()))
    }

    fn read(&self, name: &str) -> Result<LiveSecret> {
        self.call("get", name, |server| match server.secrets.get(name) {
            Some(value) => Ok(serde_json::from_value(value.clone()).unwrap()),
            None => Err(error("get", Trouble::Answer(404, "NotFound"))),
        })
    }

    fn create(&self, secret: &NewSecret<'_>) -> Result<()> {
        self.fence()?;
        self.call("create", &secret.metadata.name, |server| {
            server.clock += server.slow;
            if server.secrets.contains_key(&*secret.metadata.name) {
                return Err(error("create", Trouble::Answer(409, "AlreadyExists")));
            }
            server.put(secret.metadata.name.to_string(), serde_json::to_value(secret).unwrap());
            Ok(())
        })
    }

    fn update(&self, secret: &ChangedSecret<'_>) -> Result<()> {
        self.fence()?;
        self.call("update", &secret.metadata.name, |server| {
            let live = server.secrets.get(&secret.metadata.name).ok_or(error("update", Trouble::Answer(404, "NotFound")))?;
            if live["metadata"]["resourceVersion"] != json!(secret.metadata.resource_version) {
                return Err(error("update", Trouble::Answer(409, "Conflict")));
            }
            server.put(secret.metadata.name.clone(), serde_json::to_value(secret).unwrap());
            Ok(())
        })
    }

    fn find_versions(&self, found: &mut Found<'_>, all: bool) -> Result<()> {
        let names = found.keys().copied().collect::<Vec<_>>().join("+");
        self.call("list", &if all { format!("all {names}") } else { names }, |server| {
            let is_listed = |metadata: &&Value| all || metadata["labels"].get(LABEL_SECRET_KIND).is_some();
            let metadata = server.secrets.values().map(|value| &value["metadata"]).filter(is_listed);
            metadata.for_each(|metadata| note(found, &serde_json::from_value(metadata.clone()).unwrap()));
            if let Some((name, value)) = server.late.take() {
                server.put(name, value);
            }
            Ok(())
        })
    }
}

impl Server {
    fn put(&mut self, name: String, mut value: Value) {
        self.version += 1;
        value["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.secrets.insert(name, value);
    }
}

struct Bench {
    server: Rc<RefCell<Server>>,
    store: Store<Fake>,
    root: PathBuf,
    now: Instant,
}

impl Bench {
    /// `files` of the container `main`: name, plan, content if it is there.
    fn new(name: &str, files: &[(&str, Value, Option<&str>)]) -> Self {
        let root = std::env::temp_dir().join(format!("quarks-store-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("main")).unwrap();
        for (file, _, content) in files {
            if let Some(content) = content {
                fs::write(root.join("main").join(file), content).unwrap();
            }
        }
        let files: BTreeMap<_, _> = files.iter().map(|(file, plan, _)| (*file, plan.clone())).collect();
        let plan = json!({"quarksJob": "q", "uid": "u", "run": 1, "containers": {"main": {"files": files}}});
        let owner = Some(json!({"name": "q", "uid": "u"}));
        let server = Rc::new(RefCell::new(Server { owner, ..Server::default() }));
        let store = Store::new(Fake(Rc::clone(&server)), &Environment::for_tests(plan, &root), 7);
        Self { server, store, root, now: Instant::now() }
    }

    fn one(name: &str) -> Self {
        Self::new(name, &[("f", json!({"name": "s"}), Some(r#"{"k":"CANARY-s3cr3t"}"#))])
    }

    fn versioned(name: &str) -> Self {
        Self::new(name, &[("f", json!({"name": "s", "versioned": true}), Some(r#"{"k":"CANARY-s3cr3t"}"#))])
    }

    /// The container's log is its only output; `logs` are what it is each time that it is read.
    fn log(name: &str, logs: &[&str]) -> Self {
        let mut bench = Self::new(name, &[]);
        let plan = json!({"quarksJob": "q", "uid": "u", "run": 1, "containers": {"main": {"log": {"name": "p-main"}}}});
        bench.store = Store::new(Fake(Rc::clone(&bench.server)), &Environment::for_tests(plan, &bench.root), 7);
        bench.server.borrow_mut().logs = logs.iter().map(|log| (*log).to_owned()).collect();
        bench
    }

    fn trouble(self, verb: &'static str, trouble: Trouble) -> Self {
        self.server.borrow_mut().trouble.push_back((verb, trouble));
        self
    }

    fn secret(self, name: &str, value: Value) -> Self {
        self.server.borrow_mut().put(name.to_owned(), value);
        self
    }

    /// Runs until nothing is left or the time is over; time passes as the store waits.
    fn run_for(&mut self, lenient: bool, limit: Duration) -> Vec<StoreEvent> {
        let mut events = self.store.accept(EndedContainer { container: "main".into(), lenient, documents: 1 }, self.now);
        events.extend(self.go_on(limit));
        events
    }

    fn go_on(&mut self, limit: Duration) -> Vec<StoreEvent> {
        let (end, mut events) = (self.now + limit, Vec::new());
        while let Some(due) = self.store.next_due().filter(|due| *due <= end) {
            let waited = due.saturating_duration_since(self.now);
            self.now += waited;
            self.server.borrow_mut().clock += waited;
            events.extend(self.store.step(self.now));
        }
        events
    }

    fn run(&mut self) -> Vec<StoreEvent> {
        let events = self.run_for(false, Duration::from_secs(3600));
        let shown = format!("{events:?}");
        assert!(!shown.contains("CANARY") && !shown.contains("s3cr3t"), "{shown}");
        events
    }

    fn calls(&self) -> String {
        self.server.borrow().calls.join(", ")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn stored(name: &str, version: Option<u64>, file: &str) -> StoreEvent {
    StoreEvent::Stored(StoredSecret { name: name.into(), version, container: "main".into(), file: file.into() })
}

fn finished() -> StoreEvent {
    StoreEvent::Finished("main".into())
}

/// Reason and message of the only error.
fn failure(events: &[StoreEvent]) -> (OutputErrorReason, String) {
    match events {
        [StoreEvent::Failed(error), StoreEvent::Finished(_)] => (error.reason, error.message.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_secret_costs_one_read_and_one_write() {
    let mut bench = Bench::one("new");
    assert_eq!(bench.run(), [stored("s", None, "f"), finished()]);
    assert_eq!(bench.calls(), "get quarksjob, create s");
    let secret = bench.server.borrow().secrets["s"].clone();
    assert_eq!(secret["metadata"]["annotations"][ANNOTATION_WRITTEN_BY], "q");
    assert_eq!(secret["metadata"].get("ownerReferences"), None);
}

#[test]
fn nothing_is_written_for_an_owner_that_is_gone() {
    for (owner, text) in [
        (None, "no longer exists"),
        (Some(json!({"uid": "other"})), "re-created"),
        (Some(json!({"uid": "u", "deletionTimestamp": "t"})), "being deleted"),
    ] {
        let mut bench = Bench::new("owner", &[("f", json!({"name": "s"}), Some("{}")), ("g", json!({"name": "t"}), Some("{}"))]);
        bench.server.borrow_mut().owner = owner;
        let events = bench.run();
        assert_eq!(events.len(), 3, "{events:?}");
        for event in &events[..2] {
            let StoreEvent::Failed(error) = event else { panic!("{event:?}") };
            assert!(error.reason == OutputErrorReason::OwnerGone && error.message.contains(text), "{error:?}");
        }
        assert_eq!(bench.calls(), "get quarksjob");
    }
}

#[test]
fn a_secret_of_ours_is_updated_and_a_foreign_one_is_left() {
    let ours = json!({"metadata": {"name": "s", "annotations": {ANNOTATION_WRITTEN_BY: "q"}}, "data": {"k": "eA=="}});
    let mut bench = Bench::one("ours").secret("s", ours);
    assert_eq!(bench.run(), [stored("s", None, "f"), finished()]);
    assert_eq!(bench.calls(), "get quarksjob, create s, get s, update s");
    let foreign = json!({"metadata": {"name": "s", "annotations": {ANNOTATION_WRITTEN_BY: "p"}}, "data": {"k": "eA=="}});
    let mut bench = Bench::one("foreign").secret("s", foreign);
    let before = bench.server.borrow().secrets.clone();
    assert_eq!(failure(&bench.run()).0, OutputErrorReason::OutputConflict);
    assert_eq!(bench.server.borrow().secrets, before);
    assert_eq!(bench.calls(), "get quarksjob, create s, get s");
}

#[test]
fn a_lost_reply_is_followed_by_a_read() {
    let mut bench = Bench::one("lost-create").trouble("create", Trouble::ReplyLost);
    assert_eq!(bench.run(), [stored("s", None, "f"), finished()]);
    assert_eq!(bench.calls(), "get quarksjob, create s, get s");
    let mut bench = Bench::one("unsent").trouble("create", Trouble::Unsent);
    assert_eq!(bench.run(), [stored("s", None, "f"), finished()]);
    assert_eq!(bench.calls(), "get quarksjob, create s, create s");
    let ours = || json!({"metadata": {"name": "s", "annotations": {ANNOTATION_WRITTEN_BY: "q"}}});
    let mut bench = Bench::one("lost-update").secret("s", ours()).trouble("update", Trouble::ReplyLost);
    assert_eq!(bench.run(), [stored("s", None, "f"), finished()]);
    assert_eq!(bench.calls(), "get quarksjob, create s, get s, update s, get s");
    let mut bench = Bench::one("conflict").secret("s", ours()).trouble("update", Trouble::Answer(409, "Conflict"));
    assert_eq!(bench.run(), [stored("s", None, "f"), finished()]);
    assert_eq!(bench.calls(), "get quarksjob, create s, get s, update s, get s, update s");
    let mut bench = Bench::one("gone").trouble("create", Trouble::Answer(500, "InternalError"));
    assert_eq!(bench.run(), [stored("s", None, "f"), finished()]);
    assert_eq!(bench.calls(), "get quarksjob, create s, get s, create s");
}

#[test]
fn final_answers_are_retried_for_a_minute() {
    for (verb, code, reason, text) in [
        ("create", 403, "Forbidden", "Secret s: create secrets: 403 Forbidden"),
        ("create", 422, "Invalid", "Secret s: create secrets: 422 Invalid"),
        ("get", 403, "Forbidden", "Secret s: get secrets: 403 Forbidden"),
    ] {
        let mut bench = Bench::one("refused");
        bench.server.borrow_mut().always = Some((verb, Trouble::Answer(code, reason)));
        let start = bench.now;
        assert_eq!(failure(&bench.run()), (OutputErrorReason::OutputNotStored, text.to_owned()));
        let took = bench.now - start;
        assert!(took >= Duration::from_secs(60) && took <= Duration::from_secs(90), "{took:?}");
    }
}

#[test]
fn what_a_load_balancer_says_ends_nothing() {
    for code in [302, 400, 403, 404, 410, 422, 502] {
        let mut bench = Bench::one("balancer-owner").trouble("get", Trouble::OnTheWay(code));
        assert_eq!(bench.run(), [stored("s", None, "f"), finished()], "{code}");
        assert_eq!(bench.calls(), "get quarksjob, get quarksjob, create s", "{code}");
        let mut bench = Bench::one("balancer-create").trouble("create", Trouble::OnTheWay(code));
        assert_eq!(bench.run(), [stored("s", None, "f"), finished()], "{code}");
        assert_eq!(bench.calls(), "get quarksjob, create s, get s, create s", "{code}");
    }
    // The Secret is there: a 404 on the way must not lead to a create.
    let ours = || json!({"metadata": {"name": "s", "annotations": {ANNOTATION_WRITTEN_BY: "q"}}});
    let mut bench = Bench::one("balancer-read").secret("s", ours());
    bench.server.borrow_mut().trouble.extend([("get", Trouble::OnTheWay(404)); 2]);
    assert_eq!(bench.run(), [stored("s", None, "f"), finished()]);
    assert_eq!(bench.calls(), "get quarksjob, get quarksjob, get quarksjob, create s, get s, update s");
    let mut bench = Bench::one("balancer-update").secret("s", ours()).trouble("update", Trouble::OnTheWay(404));
    assert_eq!(bench.run(), [stored("s", None, "f"), finished()]);
    assert_eq!(bench.calls(), "get quarksjob, create s, get s, update s, get s, update s");
    let mut bench = Bench::log("balancer-log", &["{}"]).trouble("log", Trouble::OnTheWay(404));
    assert_eq!(bench.run(), [stored("p-main", None, ""), finished()]);
}

#[test]
fn who_refuses_is_named_and_nothing_of_the_content() {
    for (code, sentence, text) in [
        (
            403,
            "secrets \"s\" is forbidden: exceeded quota: few, requested: count/secrets=1, used: count/secrets=9, limited: count/secrets=9",
            "403 Forbidden: exceeded quota: few, requested: count/secrets=1, used: count/secrets=9, limited: count/secrets=9",
        ),
        (
            422,
            "secrets \"s\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: CANARY-s3cr3t is no value",
            "422 Forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request",
        ),
        (
            400,
            "admission webhook \"w.x.io\" denied the request: CANARY-s3cr3t: User \"u\" cannot create resource \"secrets\"",
            "400 Forbidden: admission webhook \"w.x.io\" denied the request",
        ),
        (
            403,
            "secrets is forbidden: User \"u\" cannot create resource \"secrets\" in API group \"\" in the namespace \"n\"",
            "403 Forbidden: cannot create resource \"secrets\"",
        ),
    ] {
        let mut bench = Bench::one("named");
        bench.server.borrow_mut().always = Some(("create", Trouble::Says(code, sentence)));
        let expected = format!("Secret s: create secrets: {text}");
        assert_eq!(failure(&bench.run()), (OutputErrorReason::OutputNotStored, expected));
    }
}

#[test]
fn a_version_of_the_original_is_adopted() {
    let original = |content: &str| {
        json!({"metadata": {"name": "s-v4", "labels": {
            LABEL_SECRET_KIND: "versionedSecret", LABEL_SECRET_VERSION: "4", LABEL_CONTAINER_NAME: "main"}}, "data": {"k": content}})
    };
    let mut bench = Bench::versioned("original").secret("s-v4", original("Q0FOQVJZLXMzY3IzdA=="));
    assert_eq!(bench.run(), [stored("s-v4", Some(4), "f"), finished()]);
    assert_eq!(bench.calls(), "get quarksjob, list s, get s-v4");
    let mut bench = Bench::versioned("original-other").secret("s-v4", original("eA=="));
    assert_eq!(bench.run(), [stored("s-v5", Some(5), "f"), finished()]);
}

#[test]
fn a_right_granted_in_time_helps() {
    let mut bench =
        Bench::one("granted").trouble("create", Trouble::Answer(403, "Forbidden")).trouble("create", Trouble::Answer(401, "Unauthorized"));
    assert_eq!(bench.run(), [stored("s", None, "f"), finished()]);
}

#[test]
fn trouble_that_may_pass_is_retried_until_the_pod_stops() {
    let mut bench = Bench::one("down");
    bench.server.borrow_mut().always = Some(("create", Trouble::Unsent));
    assert_eq!(bench.run(), []);
    assert!(bench.store.next_due().is_some());
    bench.store.hurry(bench.now);
    let events = bench.store.step(bench.now);
    assert_eq!(failure(&events), (OutputErrorReason::OutputNotStored, "Secret s: create secrets: refused".to_owned()));
    assert_eq!(bench.store.next_due(), None);
}

#[test]
fn one_secrets_trouble_holds_up_no_other() {
    let files = [("f", json!({"name": "s"}), Some("{}")), ("g", json!({"name": "t"}), Some("{}"))];
    let mut bench = Bench::new("two", &files).trouble("create", Trouble::Answer(503, "ServiceUnavailable"));
    assert_eq!(bench.run(), [stored("t", None, "g"), stored("s", None, "f"), finished()]);
}

#[test]
fn a_bad_file_is_an_error_and_the_others_are_stored() {
    let bad = r#"{"k":["CANARY-s3cr3t"]}"#;
    let files = || {
        [
            ("a", json!({"name": "s-a"}), None),
            ("b", json!({"name": "s-b"}), Some(bad)),
            ("c", json!({"name": "s-c"}), Some(r#"{"k":"v"}"#)),
            ("d", json!({"name": "s_d"}), Some("{}")),
        ]
    };
    let mut bench = Bench::new("bad", &files());
    let invalid = |file: &str, message: &str| {
        let (container, file, message) = ("main".into(), file.into(), message.into());
        StoreEvent::Failed(OutputError { reason: OutputErrorReason::OutputInvalid, container, file, message })
    };
    let events = bench.run();
    assert_eq!(
        events[..3],
        [
            invalid("a", "the container exited without writing it"),
            invalid("b", "key \"k\" must be a string, not an array"),
            stored("s-c", None, "c"),
        ]
    );
    assert!(matches!(&events[3], StoreEvent::Failed(error) if error.message.contains("not a valid Secret name")));
    assert_eq!(events[4..], [finished()]);
    // Of a failed container, what is there and valid, without errors.
    let mut bench = Bench::new("lenient", &files());
    assert_eq!(bench.run_for(true, Duration::from_secs(1)), [stored("s-c", None, "c"), finished()]);
}

#[test]
fn fan_out_makes_one_secret_an_entry() {
    let files = [
        ("f", json!({"name": "s", "fanOut": true}), Some(r#"{"a":{"k":"1"},"b":"{\"k\":\"2\"}"}"#)),
        ("g", json!({"name": "s-a"}), Some("{}")),
        ("h", json!({"name": "t", "fanOut": true}), Some(r#"{"a":{},"B":{}}"#)),
        ("i", json!({"name": "e", "fanOut": true}), Some("{}")),
    ];
    let mut bench = Bench::new("fan-out", &files);
    let events = bench.run();
    assert_eq!(events[..2], [stored("s-a", None, "f"), stored("s-b", None, "f")]);
    assert!(
        matches!(&events[2], StoreEvent::Failed(error) if error.reason == OutputErrorReason::OutputConflict && error.message.contains("container main, file f"))
    );
    // One entry's name is wrong: nothing of the file is written.
    assert!(matches!(&events[3], StoreEvent::Failed(error) if error.message.contains("t-B")));
    assert_eq!(events[4..], [finished()]);
    assert_eq!(bench.server.borrow().secrets.len(), 2);
}

#[test]
fn versions_count_up_and_equal_content_makes_none() {
    let mut bench = Bench::versioned("versions");
    assert_eq!(bench.run(), [stored("s-v1", Some(1), "f"), finished()]);
    assert_eq!(bench.calls(), "get quarksjob, list s, create s-v1");
    // The same again, as after a crash.
    bench.store.claimed.clear();
    assert_eq!(bench.run(), [stored("s-v1", Some(1), "f"), finished()]);
    fs::write(bench.root.join("main/f"), r#"{"k":"other"}"#).unwrap();
    bench.store.claimed.clear();
    assert_eq!(bench.run(), [stored("s-v2", Some(2), "f"), finished()]);
    let secret = bench.server.borrow().secrets["s-v2"].clone();
    assert_eq!((&secret["immutable"], &secret["metadata"]["ownerReferences"][0]["uid"]), (&json!(true), &json!("u")));
}

#[test]
fn a_version_is_never_changed_and_taken_names_are_skipped() {
    let version = |name: &str, number: &str| json!({"metadata": {"name": name, "labels": {LABEL_SECRET_KIND: "versionedSecret", LABEL_SECRET_VERSION: number}}});
    let mut bench = Bench::versioned("taken")
        .secret("s-v9", version("s-v9", "9"))
        .secret("s-v10", version("s-v10", "ten"))
        .secret("s-v11", json!({"metadata": {"name": "s-v11"}}));
    let before = bench.server.borrow().secrets.clone();
    assert_eq!(bench.run(), [stored("s-v12", Some(12), "f"), finished()]);
    let after = &bench.server.borrow().secrets;
    assert!(before.iter().all(|(name, value)| after[name] == *value));
}

#[test]
fn numbers_of_other_secrets_are_skipped_all_at_once() {
    let mut bench = Bench::versioned("occupied");
    for number in 1..=698 {
        bench = bench.secret(&format!("s-v{number}"), json!({"metadata": {"name": format!("s-v{number}")}}));
    }
    assert_eq!(bench.run(), [stored("s-v699", Some(699), "f"), finished()]);
    assert_eq!(bench.calls(), "get quarksjob, list s, create s-v1, get s-v1, list all s, create s-v699");
    // The next one is above it, without any of that.
    fs::write(bench.root.join("main/f"), r#"{"k":"other"}"#).unwrap();
    bench.store.claimed.clear();
    bench.server.borrow_mut().calls.clear();
    assert_eq!(bench.run(), [stored("s-v700", Some(700), "f"), finished()]);
    assert_eq!(bench.calls(), "list s, get s-v699, create s-v700");
}

#[test]
fn numbers_of_other_secrets_cost_one_list_a_file() {
    let plan = json!({"name": "s", "fanOut": true, "versioned": true});
    let mut bench = Bench::new("occupied-fan-out", &[("f", plan, Some(r#"{"a":{},"b":{},"c":{}}"#))]);
    for name in ["s-a-v1", "s-a-v2", "s-b-v1", "s-b-v3", "s-c-v2"] {
        bench = bench.secret(name, json!({"metadata": {"name": name}}));
    }
    assert_eq!(bench.run(), [stored("s-a-v3", Some(3), "f"), stored("s-b-v2", Some(2), "f"), stored("s-c-v1", Some(1), "f"), finished()]);
    assert_eq!(
        bench.calls(),
        "get quarksjob, list s-a+s-b+s-c, create s-a-v1, get s-a-v1, list all s-a+s-b+s-c, create s-a-v3, create s-b-v2, create s-c-v1"
    );
}

#[test]
fn a_number_that_is_taken_after_the_list_of_all_is_skipped() {
    let taken = |name: &str| json!({"metadata": {"name": name}});
    let bench = Bench::versioned("occupied-late").secret("s-v1", taken("s-v1")).secret("s-v2", taken("s-v2"));
    let Store { api, plan, .. } = &bench.store;
    api.allow_writes(Moment::after_boot(Duration::from_secs(9)));
    let desired = read_file(&bench.root, plan, None, "main", "f", 1).expect("valid").remove(0);
    let mut state = WriteState::Listed(ListedVersions { highest: 0, next: Some(1), all: true });
    let tried = attempt(api, plan, "main", &desired, &mut state);
    assert!(matches!(tried, Attempt::Stored { version: Some(3), .. }), "{tried:?}");
    assert_eq!(state, WriteState::Create);
}

#[test]
fn where_another_secret_has_the_last_number_there_is_none_left() {
    let [last, before] = [u64::MAX, u64::MAX - 1].map(|number| format!("s-v{number}"));
    let labels = json!({LABEL_SECRET_KIND: "versionedSecret", LABEL_SECRET_VERSION: (u64::MAX - 1).to_string()});
    let mut bench = Bench::versioned("occupied-last")
        .secret(&before, json!({"metadata": {"name": before, "labels": labels}}))
        .secret(&last, json!({"metadata": {"name": last}}));
    assert_eq!(failure(&bench.run()), (OutputErrorReason::OutputConflict, "Secret s has no version numbers left".into()));
}

#[test]
fn a_lost_reply_makes_no_second_version() {
    let mut bench = Bench::versioned("lost-version").trouble("create", Trouble::ReplyLost);
    assert_eq!(bench.run(), [stored("s-v1", Some(1), "f"), finished()]);
    assert_eq!(bench.server.borrow().secrets.len(), 1);
}

#[test]
fn no_further_number_is_a_conflict() {
    let last = u64::MAX.to_string();
    let name = format!("s-v{last}");
    let labels = json!({LABEL_SECRET_KIND: "versionedSecret", LABEL_SECRET_VERSION: last});
    let mut bench = Bench::versioned("overflow").secret(&name, json!({"metadata": {"name": name, "labels": labels}}));
    assert_eq!(failure(&bench.run()).0, OutputErrorReason::OutputConflict);
}

#[test]
fn a_log_is_one_document() {
    let mut bench = Bench::log("log", &["{\"k\":\"CANARY-s3cr3t\"}\n"]);
    assert_eq!(bench.run(), [stored("p-main", None, ""), finished()]);
    assert_eq!(bench.calls(), "log main, get quarksjob, create p-main");
    let two = r#"{"k":"CANARY-s3cr3t"} {"k":"CANARY-s3cr3t"}"#;
    for (log, expected) in [
        ("starting CANARY-s3cr3t", "log: not valid JSON: expected value at line 1 column 1; with namePrefix"),
        (two, "log: trailing data at line 1 column 23; with namePrefix"),
        (r#"{"k":["CANARY-s3cr3t"]}"#, r#"log: key "k" must be a string, not an array"#),
    ] {
        let mut bench = Bench::log("log-invalid", &[log]);
        let (reason, message) = failure(&bench.run());
        assert!(reason == OutputErrorReason::OutputInvalid && message.starts_with(expected), "{message}");
        assert_eq!(bench.calls(), "log main");
    }
}

#[test]
fn a_log_that_ends_too_early_is_read_again_and_not_for_ever() {
    let whole = r#"{"k":"CANARY-s3cr3t"}"#;
    let mut bench = Bench::log("log-late", &["", r#"{"k":"CANARY"#, whole]);
    assert_eq!(bench.run(), [stored("p-main", None, ""), finished()]);
    for (logs, expected) in [(vec!["", "", "", whole], "log: empty"), (vec![r#"{"k"#; 4], "log: not valid JSON: EOF")] {
        let mut bench = Bench::log("log-cut", &logs);
        let start = bench.now;
        let (reason, message) = failure(&bench.run());
        assert!(reason == OutputErrorReason::OutputInvalid && message.starts_with(expected), "{message}");
        assert!(bench.now - start < Duration::from_secs(2), "{:?}", bench.now - start);
        // Of a container that failed it is no error.
        let mut bench = Bench::log("log-cut-lenient", &logs);
        assert_eq!(bench.run_for(true, Duration::from_secs(60)), [finished()]);
    }
}

#[test]
fn trouble_with_a_log_is_retried_like_any_other() {
    let mut bench = Bench::log("log-away", &["{}"])
        .trouble("log", Trouble::Answer(503, "ServiceUnavailable"))
        .trouble("log", Trouble::Answer(403, "Forbidden"))
        .trouble("log", Trouble::Unsent);
    assert_eq!(bench.run(), [stored("p-main", None, ""), finished()]);
    let mut bench = Bench::log("log-refused", &[]);
    bench.server.borrow_mut().always = Some(("log", Trouble::Answer(403, "Forbidden")));
    let (reason, message) = failure(&bench.run());
    assert_eq!((reason, message.as_str()), (OutputErrorReason::OutputNotStored, "log: log secrets: 403 Forbidden"));
    let mut bench = Bench::log("log-large", &[]);
    bench.server.borrow_mut().always = Some(("log", Trouble::TooLarge));
    assert_eq!(failure(&bench.run()), (OutputErrorReason::OutputInvalid, "log: larger than 4 MiB".to_owned()));
}
