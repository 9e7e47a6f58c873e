use super::*;
use crate::kube::ClientOptions;
use crate::kube::config::Auth;
use crate::kube::scripted::{Reply, Script, wait_until};
use crate::kube::transport::TransportErrorKind;
use serde_json::json;

/// So long that no test reaches the end of one, or short enough to wait for it.
fn timing(renew_millis: u64) -> Timing {
    let renew = Duration::from_millis(renew_millis);
    Timing { lease: renew * 2, renew, retry: renew / 20 }
}

struct Run {
    script: Script,
    election: Election,
    fence: Until,
}

impl Run {
    fn new(timing: Timing, replies: impl IntoIterator<Item = Reply>) -> Self {
        let script = Script::new(replies);
        let client = Client::with_transport(Arc::new(script.clone()), &Auth::None, ClientOptions::default());
        let candidacy = Candidacy { lease: ObjectKey::new("ns", "quarks-job"), identity: "me".to_owned(), timing };
        let fence = Until::default();
        let (panics, _) = bounded(1);
        let election = start(client, candidacy, fence.clone(), &panics).expect("a thread");
        Self { script, election, fence }
    }

    fn body(&self, at: usize) -> Value {
        serde_json::from_slice(self.script.seen()[at].body.as_deref().expect("a body")).expect("JSON")
    }

    /// Methods and paths of the first requests.
    fn paths(&self, count: usize) -> Vec<String> {
        self.script.wait_for(count);
        self.script.seen().iter().take(count).map(|seen| format!("{} {}", seen.method.as_str(), seen.path_and_query)).collect()
    }
}

const COLLECTION: &str = "/apis/coordination.k8s.io/v1/namespaces/ns/leases";

fn lease(version: &str, holder: &str, renewed: &str) -> Reply {
    Reply::json(
        200,
        &json!({
            "metadata": {"name": "quarks-job", "namespace": "ns", "resourceVersion": version, "annotations": {"kept": "yes"}},
            "spec": {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 3600, "leaseTransitions": 1},
        }),
    )
}

/// More than are asked for; the answer to a release may say what it wants.
fn renewals() -> impl Iterator<Item = Reply> {
    std::iter::repeat_with(|| lease("2", "me", "b")).take(100)
}

fn status(code: u16, reason: &str) -> Reply {
    Reply::json(code, &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}))
}

#[test]
fn a_lease_is_made_renewed_and_given_back() {
    let run = Run::new(timing(20_000), [status(404, "NotFound"), lease("1", "me", "a")].into_iter().chain(renewals()));
    let object = format!("{COLLECTION}/quarks-job");
    assert_eq!(run.paths(3), [format!("GET {object}"), format!("POST {COLLECTION}"), format!("PUT {object}")]);
    run.election.turns().recv_timeout(Duration::from_secs(20)).expect("its turn");
    let leadership = run.election.leadership().clone();
    assert!(leadership.is_leader() && leadership.is_alive() && leadership.is_ready() && leadership.lost().is_none());
    let created = run.body(1);
    assert_eq!(created["metadata"], json!({"name": "quarks-job"}));
    assert_eq!(
        (&created["spec"]["holderIdentity"], &created["spec"]["leaseDurationSeconds"], &created["spec"]["leaseTransitions"]),
        (&json!("me"), &json!(40), &json!(0))
    );
    let renewed = run.body(2);
    assert_eq!((&renewed["metadata"]["resourceVersion"], &renewed["metadata"]["annotations"]["kept"]), (&json!("1"), &json!("yes")));
    let Run { script, election, fence } = run;
    election.stop(Duration::from_secs(20));
    let last = script.seen().pop().expect("a request");
    let body: Value = serde_json::from_slice(last.body.as_deref().expect("a body")).expect("JSON");
    assert_eq!(
        (last.method.as_str(), &body["spec"]["holderIdentity"], &body["spec"]["leaseDurationSeconds"]),
        ("PUT", &json!(""), &json!(1))
    );
    assert!(!fence.holds() && !leadership.is_leader());
}

#[test]
fn anothers_lease_is_only_read_and_a_released_one_is_taken() {
    let run = Run::new(timing(200), [lease("1", "other", "a"), lease("2", "other", "b"), lease("3", "", "c")]);
    assert!(run.paths(3).iter().all(|path| path.starts_with("GET ")));
    run.script.wait_for(4);
    let taken = run.body(3);
    assert_eq!(
        (&taken["metadata"]["resourceVersion"], &taken["spec"]["holderIdentity"], &taken["spec"]["leaseTransitions"]),
        (&json!("3"), &json!("me"), &json!(2))
    );
    assert!(!run.fence.holds(), "not before the answer");
    run.script.extend([status(409, "Conflict"), lease("4", "third", "d")]);
    run.script.wait_for(6);
    assert!(!run.election.leadership().is_leader());
    assert!(run.election.turns().is_empty());
}

#[test]
fn a_leader_that_cannot_renew_closes_its_fence_and_says_why() {
    let failing = std::iter::repeat_with(|| Reply::Fail(TransportErrorKind::TimedOut)).take(200);
    let run = Run::new(timing(2_000), [status(404, "NotFound"), lease("1", "me", "a")].into_iter().chain(failing));
    let leadership = run.election.leadership();
    wait_until("it is lost", || leadership.lost().is_some());
    assert!(leadership.lost().is_some_and(|why| why.contains("not renewed")), "{:?}", leadership.lost());
    assert!(!run.fence.holds());
    let count = run.script.seen().len();
    assert!(count > 3, "it tried: {count}");
    run.election.stop(Duration::from_secs(20));
    assert_eq!(run.script.seen().len(), count, "what is lost is not given back");
}

#[test]
fn a_leader_whose_lease_was_taken_says_who_has_it() {
    let run = Run::new(timing(20_000), [status(404, "NotFound"), lease("1", "me", "a"), status(409, "Conflict"), lease("3", "other", "b")]);
    let leadership = run.election.leadership();
    wait_until("it is lost", || leadership.lost().is_some());
    assert_eq!(leadership.lost(), Some("held by \"other\""));
    assert!(!run.fence.holds());
}

#[test]
fn without_the_right_it_waits_and_is_not_ready() {
    let run = Run::new(timing(200), [status(403, "Forbidden"), status(403, "Forbidden"), Reply::text(200, "[]")]);
    run.script.wait_for(4);
    let leadership = run.election.leadership();
    assert!(leadership.is_alive() && !leadership.is_ready() && !leadership.is_leader());
    assert!(run.script.seen().iter().all(|seen| !seen.method.is_write()));
}

#[test]
fn a_release_after_a_lost_answer_reads_first() {
    let run = Run::new(
        timing(20_000),
        [status(404, "NotFound"), lease("1", "me", "a"), Reply::Fail(TransportErrorKind::Other)].into_iter().chain(renewals()),
    );
    run.script.wait_for(3);
    let Run { script, election, .. } = run;
    election.stop(Duration::from_secs(20));
    let last = script.seen().pop().expect("a request");
    let body: Value = serde_json::from_slice(last.body.as_deref().expect("a body")).expect("JSON");
    assert_eq!((&body["metadata"]["resourceVersion"], &body["spec"]["holderIdentity"]), (&json!("2"), &json!("")));
}
