//! Several real operators with `--leader-elect` against the scripted API server: one works, the others wait; a leader that is
//! stopped, cut off or robbed of its Lease writes nothing more and ends; one that is asked to end gives the Lease back.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::operator::{LIMIT, binary};
use crate::support::play::{self, path};
use crate::support::scene::{Scene, program};
use crate::support::server::Entry;
use crate::support::{Fault, Gate, Operator, Request, When, tls};

/// Lease duration, renew deadline and retry period in seconds. Short enough to wait for the end of a Lease, and long enough for a slow
/// machine to renew it.
const SHORT: [u32; 3] = [10, 7, 1];
/// Nobody waits for the end of this one.
const LONG: [u32; 3] = [120, 80, 2];

const LOST: &str = "lost the Lease";

/// An operator that stands for the Lease, with a user of its own.
fn candidate(scene: &Scene, name: &str, [lease, renew, retry]: [u32; 3]) -> Operator {
    let token = format!("token-{name}");
    let kubeconfig = scene.folder.path().join(name);
    tls::write_kubeconfig(&kubeconfig, &scene.server.url(), scene.server.ca_pem(), &token, "default");
    scene.server.api().settings(|settings| {
        settings.tokens.insert(token, name.to_owned());
    });
    Operator::new(binary())
        .kubeconfig(&kubeconfig)
        .arg("--log-level=debug")
        .arg("--image=quarks-job:test")
        .arg("--leader-elect")
        .arg(format!("--leader-elect-lease-duration={lease}"))
        .arg(format!("--leader-elect-renew-deadline={renew}s"))
        .arg(format!("--leader-elect-retry-period={retry}"))
        .env("POD_NAME", name)
}

fn lease(scene: &Scene) -> Value {
    scene.server.api().get(&path("leases", "default", "quarks-job")).unwrap_or_default()
}

/// Name of the candidate that holds the Lease; empty if there is none.
fn holder(scene: &Scene) -> String {
    let lease = lease(scene);
    let identity = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    identity.rsplit_once('_').map_or(identity, |(name, _)| name).to_owned()
}

fn wait_holder(scene: &Scene, operator: &Operator, name: &str) {
    operator.wait_for(&format!("{name} to hold the Lease"), || (holder(scene) == name).then_some(()));
}

fn wait_caches(operator: &Operator) {
    operator.wait_for("its caches", || operator.log().contains("caches synced").then_some(()));
}

fn requests_of(scene: &Scene, user: &str) -> Vec<Entry> {
    scene.server.requests().into_iter().filter(|entry| entry.user == user).collect()
}

fn writes_of(scene: &Scene, user: &str) -> Vec<String> {
    let writes = requests_of(scene, user).into_iter().filter(|entry| entry.request.is_mutation());
    writes.map(|entry| format!("{} {}", entry.request.method, entry.request.path)).collect()
}

fn settled(scene: &Scene, by: &Operator, name: &str) {
    by.wait_for(&format!("the run of {name} in status"), || (scene.quarks_job(name)["status"]["lastRun"]["run"] == 1).then_some(()));
}

/// Status code of a probe; 0 if nobody answers.
fn probe(address: &str, target: &str) -> u16 {
    let answer = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        write!(stream, "GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    answer().ok().and_then(|text| text.split(' ').nth(1)?.parse().ok()).unwrap_or(0)
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").to_string()
}

#[test]
fn one_works_and_the_other_only_looks_at_the_lease() {
    let scene = Scene::new("one-works");
    let address = free_address();
    let first = candidate(&scene, "first", LONG).arg("--apply-crd");
    let second = candidate(&scene, "second", LONG).arg("--apply-crd").arg(format!("--http-listen={address}"));
    let _jobs = play::auto_complete(scene.server.api());
    first.start();
    wait_holder(&scene, &first, "first");
    second.start();
    second.wait_for("the other seen", || second.log().contains("waiting for the Lease").then_some(()));
    scene.create("q", "now", |_| {});
    settled(&scene, &first, "q");
    // Renewed, and looked at, since then.
    let renewals = || writes_of(&scene, "first").iter().filter(|write| write.starts_with("PUT ")).count();
    let (renewed, looks) = (renewals(), requests_of(&scene, "second").len());
    first.wait_for("a renewal", || (renewals() > renewed).then_some(()));
    second.wait_for("two looks", || (requests_of(&scene, "second").len() > looks + 1).then_some(()));
    for target in ["/healthz", "/readyz"] {
        assert_eq!(probe(&address, target), 200, "{target} of one that waits\n{}", second.log());
    }
    let others: Vec<_> = requests_of(&scene, "second").into_iter().filter(|entry| !entry.is("GET", "/leases/quarks-job")).collect();
    assert!(others.is_empty(), "one that waits watches nothing and writes nothing: {others:?}");
    assert!(
        writes_of(&scene, "first").iter().any(|write| write.contains("/customresourcedefinitions")),
        "{:?}",
        writes_of(&scene, "first")
    );
    assert_eq!(scene.created().len(), 1);
    let transitions = lease(&scene)["spec"]["leaseTransitions"].clone();
    assert_eq!((holder(&scene).as_str(), &transitions), ("first", &json!(0)));
    // One that waits has nothing to give back.
    second.sigterm();
    assert_eq!(second.wait_exit(LIMIT).and_then(|status| status.code()), Some(0), "{}", second.log());
    assert_eq!(holder(&scene), "first");
}

/// So many triggers are about to be served when the leader is stopped. One namespace has half of the workers.
const RUNS: usize = 16;

#[test]
fn a_leader_stopped_past_its_lease_writes_nothing_when_it_goes_on() {
    let scene = Scene::new("stopped");
    // Its calls outlast the stop: what it has read before is good enough to act on.
    let first = candidate(&scene, "first", SHORT).arg("--ctx-timeout=600").arg(format!("--max-workers={}", 2 * RUNS));
    let second = candidate(&scene, "second", SHORT);
    let gate = Gate::default();
    let is_read = |request: &Request| {
        let is_first = request.header("authorization").ends_with("token-first");
        is_first && request.method == "GET" && request.path.contains("/quarksjobs/q")
    };
    scene.server.fault(When::matching(is_read).every(), Fault::HoldReply(gate.clone()));
    first.start();
    wait_caches(&first);
    second.start();
    second.wait_for("the other seen", || second.log().contains("waiting for the Lease").then_some(()));
    let names: Vec<String> = (0..RUNS).map(|number| format!("q{number}")).collect();
    names.iter().for_each(|name| scene.create(name, "now", |_| {}));
    first.wait_for("the reads before the starts", || (gate.arrived() == RUNS).then_some(()));
    first.freeze();
    // The answers that say "start" wait in the sockets of the stopped process.
    gate.open();
    let _jobs = play::auto_complete(scene.server.api());
    wait_holder(&scene, &second, "second");
    names.iter().for_each(|name| settled(&scene, &second, name));
    scene.wait_jobs(0);
    let before = writes_of(&scene, "first");
    first.signal("CONT");
    let status = first.wait_exit(LIMIT).expect("it ends");
    assert_eq!(status.code(), Some(1), "{}", first.log());
    assert_eq!(first.log().matches(LOST).count(), 1, "{}", first.log());
    // What it had sent would be there: its connections are closed.
    scene.create("later", "now", |_| {});
    settled(&scene, &second, "later");
    assert_eq!(writes_of(&scene, "first"), before, "{}", first.log());
    assert_eq!(scene.created().len(), RUNS + 1, "one Job a trigger");
    assert_eq!(lease(&scene)["spec"]["leaseTransitions"], 1);
}

#[test]
fn a_leader_asked_to_end_gives_the_lease_back() {
    let scene = Scene::new("given-back");
    let first = candidate(&scene, "first", LONG);
    let second = candidate(&scene, "second", LONG);
    let _jobs = play::auto_complete(scene.server.api());
    first.start();
    wait_caches(&first);
    second.start();
    second.wait_for("the other seen", || second.log().contains("waiting for the Lease").then_some(()));
    scene.create("q", "now", |_| {});
    let start = Instant::now();
    first.sigterm();
    assert_eq!(first.wait_exit(LIMIT).expect("it ends").code(), Some(0), "{}", first.log());
    wait_holder(&scene, &second, "second");
    settled(&scene, &second, "q");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(u64::from(LONG[0])) / 2, "took {took:?}: it waited for the end of the Lease");
    assert_eq!(scene.created().len(), 1);
    let released = requests_of(&scene, "first").into_iter().rfind(|entry| entry.request.is_mutation()).expect("a write");
    let body: Value = serde_json::from_slice(&released.request.body).expect("JSON");
    assert!(released.is("PUT", "/leases/quarks-job"), "giving back is the last write: {released:?}");
    assert_eq!((&body["spec"]["holderIdentity"], &body["spec"]["leaseDurationSeconds"]), (&json!(""), &json!(1)));
}

#[test]
fn a_leader_that_cannot_renew_ends_and_writes_nothing_more() {
    let server_error = || Fault::status(500, "InternalError", "try again", None);
    let robbed: fn(&Scene) = |scene| {
        let other = json!({"spec": {"holderIdentity": "other_1", "renewTime": "2026-01-01T00:00:00.000000Z"}});
        scene.server.api().patch(&path("leases", "default", "quarks-job"), &other);
    };
    let cut_off: fn(&Scene) = |_| {};
    for (name, fault, then) in
        [("errors", Some(server_error()), cut_off), ("black-hole", Some(Fault::BlackHole), cut_off), ("robbed", None, robbed)]
    {
        let scene = Scene::new(&format!("cannot-renew-{name}"));
        let operator = candidate(&scene, "first", SHORT);
        operator.start();
        wait_caches(&operator);
        let runs = play::auto_complete(scene.server.api());
        if let Some(fault) = fault {
            scene.server.fault(When::matching(|request| request.path.contains("/leases/")).every(), fault);
        }
        // Until its deadline it works.
        scene.create("q", "now", |_| {});
        settled(&scene, &operator, "q");
        scene.wait_jobs(0);
        then(&scene);
        let status = operator.wait_exit(LIMIT).expect("it ends");
        let log = operator.log();
        assert_eq!(status.code(), Some(1), "{name}: {log}");
        assert_eq!(log.matches(LOST).count(), 1, "{name}: {log}");
        assert!(!log.contains("panicked"), "{name}: {log}");
        let given_back = requests_of(&scene, "first").iter().filter(|entry| entry.is("PUT", "/leases/")).any(|entry| {
            let body: Value = serde_json::from_slice(&entry.request.body).expect("JSON");
            body["spec"]["holderIdentity"] == ""
        });
        assert!(!given_back, "{name}: what is lost is not ours to give back");
        drop(runs);
    }
}

#[test]
fn without_the_right_one_line_says_what_to_apply() {
    let scene = Scene::new("no-right");
    let address = free_address();
    let operator = candidate(&scene, "first", LONG).arg(format!("--http-listen={address}")).env("POD_NAMESPACE", "operators");
    scene.server.fault(When::request("GET", "/leases").every(), Fault::status(403, "Forbidden", "no", None));
    operator.start();
    let looks = || requests_of(&scene, "first").iter().filter(|entry| entry.is("GET", "/namespaces/operators/leases/quarks-job")).count();
    operator.wait_for("three looks", || (looks() > 2).then_some(()));
    let log = operator.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("leader-election.yaml")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    for part in ["verb=get", "resource=leases.coordination.k8s.io", "namespace=operators", "manifests/leader-election.yaml"] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
    assert_eq!((probe(&address, "/healthz"), probe(&address, "/readyz")), (200, 503));
    assert!(writes_of(&scene, "first").is_empty(), "{:?}", writes_of(&scene, "first"));
}

#[test]
fn without_the_flag_no_lease_is_asked_for() {
    let scene = Scene::new("no-election");
    let operator = program(&scene.server, &scene.folder);
    let _jobs = play::auto_complete(scene.server.api());
    operator.start();
    scene.create("q", "now", |_| {});
    settled(&scene, &operator, "q");
    assert!(scene.server.requests().iter().all(|entry| !entry.request.path.contains("leases")), "it asked for a Lease");
}
