//! Checks the test support itself, with a plain HTTP client where the operator will be, so that a red test
//! elsewhere speaks of the operator. Says nothing about quarks-job.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::thread;

use serde_json::{Value, json};

use crate::support::play::{self, End, path};
use crate::support::proxy::Upstream;
use crate::support::scene::Folder;
use crate::support::server::OPERATOR_TOKEN;
use crate::support::{Command, Expired, Fault, FrameFault, Gate, Operator, Server, When, wait_for};

#[derive(Clone)]
struct Client {
    agent: ureq::Agent,
    url: String,
    token: String,
}

type Lines = std::io::Lines<BufReader<Box<dyn Read + Send>>>;

impl Client {
    fn new(server: &Server) -> Client {
        let agent = ureq::Agent::config_builder()
            .tls_config(crate::support::tls::client(server.ca_pem(), None))
            .http_status_as_error(false)
            .timeout_global(Some(crate::support::operator::LIMIT))
            .build()
            .new_agent();
        Client { agent, url: server.url(), token: OPERATOR_TOKEN.to_owned() }
    }

    fn send(&self, method: &str, path: &str, header: (&str, &str), body: &Value) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {}", self.token))
            .header(header.0, header.1);
        if body.is_null() {
            self.agent.run(request.body(()).expect("request"))
        } else {
            let body = body.to_string();
            self.agent.run(request.body(body).expect("request"))
        }
    }

    fn try_call(&self, method: &str, path: &str, body: &Value) -> Result<(u16, Value), ureq::Error> {
        let kind = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let mut response = self.send(method, path, ("content-type", kind), body)?;
        let text = response.body_mut().read_to_string()?;
        let value = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok((response.status().as_u16(), value))
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.try_call(method, path, body).expect("a reply")
    }

    fn get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, &Value::Null)
    }

    fn watch(&self, path: &str) -> Lines {
        let response = self.send("GET", path, ("accept", "application/json"), &Value::Null).expect("a stream");
        let reader: Box<dyn Read + Send> = Box::new(response.into_body().into_reader());
        BufReader::new(reader).lines()
    }
}

fn frame(lines: &mut Lines) -> (String, String, Value) {
    let line = lines.next().expect("a frame").expect("readable");
    let frame: Value = serde_json::from_str(&line).expect("JSON");
    let name = frame["object"]["metadata"]["name"].as_str().unwrap_or("");
    let kind = frame["type"].as_str().expect("a type").to_owned();
    (kind, name.to_owned(), frame["object"].clone())
}

fn kind_and_name(lines: &mut Lines) -> (String, String) {
    let (kind, name, _) = frame(lines);
    (kind, name)
}

fn pair(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

fn start() -> (Server, Client) {
    let server = Server::start();
    let client = Client::new(&server);
    (server, client)
}

fn maps() -> String {
    path("configmaps", "default", "")
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

#[test]
fn creates_once_and_answers_typed_statuses() {
    let (server, client) = start();
    let (code, created) = client.call("POST", &maps(), &map("a"));
    assert_eq!(code, 201);
    assert_eq!(created["metadata"]["generation"], 1);
    assert_ne!(created["metadata"]["uid"], Value::Null);
    let (code, again) = client.call("POST", &maps(), &map("a"));
    assert_eq!((code, &again["reason"]), (409, &json!("AlreadyExists")));
    assert_eq!(again["details"], json!({"name": "a", "group": "", "kind": "configmaps"}));
    let (code, missing) = client.get(&path("jobs", "default", "x"));
    assert_eq!((code, &missing["message"]), (404, &json!("jobs.batch \"x\" not found")));
    let (code, invalid) = client.call("POST", &maps(), &map("Not_A_Name"));
    assert_eq!((code, &invalid["details"]["causes"][0]["field"]), (422, &json!("metadata.name")));
    assert_eq!(client.call("POST", &path("configmaps", "nowhere", ""), &map("a")).0, 404);
    let generated = json!({"metadata": {"generateName": "gen-"}});
    let (_, generated) = client.call("POST", &maps(), &generated);
    assert!(generated["metadata"]["name"].as_str().expect("a name").len() > 4);
    let stranger = Client { token: "wrong".to_owned(), ..client };
    assert_eq!(stranger.get(&maps()).0, 401);
    let users: Vec<String> = server.requests().into_iter().map(|entry| entry.user).collect();
    assert_eq!((users[0].as_str(), users.last().expect("some").as_str()), ("operator", ""));
}

#[test]
fn status_and_spec_writes_keep_out_of_each_other() {
    let (server, client) = start();
    let jobs = path("quarksjobs", "default", "");
    let one = path("quarksjobs", "default", "q");
    let mut job = play::quarks_job("q", "manual");
    job["status"] = json!({"runs": 9});
    let (_, job) = client.call("POST", &jobs, &job);
    assert_eq!(job["status"], Value::Null);
    let both = json!({"metadata": {"labels": {"l": "v"}}, "spec": {"suspend": true}, "status": {"runs": 1}});
    let (_, main) = client.call("PATCH", &one, &both);
    assert_eq!(main["status"], Value::Null);
    assert_eq!((&main["spec"]["suspend"], &main["metadata"]["generation"]), (&json!(true), &json!(2)));
    let other = json!({"metadata": {"labels": {"l": "w"}}, "spec": {"suspend": false}, "status": {"runs": 1}});
    let (_, status) = client.call("PATCH", &(one.clone() + "/status"), &other);
    assert_eq!((&status["status"]["runs"], &status["spec"]["suspend"]), (&json!(1), &json!(true)));
    assert_eq!((&status["metadata"]["labels"]["l"], &status["metadata"]["generation"]), (&json!("v"), &json!(2)));
    let before = server.api().version();
    let (_, same) = client.call("PATCH", &one, &json!({"spec": {"suspend": true, "absent": null}}));
    assert_eq!((server.api().version(), &same["spec"]["suspend"]), (before, &json!(true)));
}

#[test]
fn stale_versions_and_foreign_uids_are_refused() {
    let (_server, client) = start();
    let (_, first) = client.call("POST", &maps(), &map("a"));
    let one = path("configmaps", "default", "a");
    let mut next = first.clone();
    next["data"] = json!({"k": "1"});
    assert_eq!(client.call("PUT", &one, &next).0, 200);
    let (code, stale) = client.call("PUT", &one, &next);
    assert_eq!((code, &stale["reason"]), (409, &json!("Conflict")));
    let version = &first["metadata"]["resourceVersion"];
    let patch = json!({"metadata": {"resourceVersion": version}, "data": {"k": "2"}});
    assert_eq!(client.call("PATCH", &one, &patch).0, 409);
    assert_eq!(client.call("PATCH", &one, &json!({"metadata": {"uid": "other"}})).0, 422);
    assert_eq!(client.call("PUT", &one, &json!({"metadata": {"name": "a", "uid": "other"}})).0, 409);
    for precondition in [json!({"uid": "other"}), json!({"resourceVersion": version})] {
        let options = json!({"preconditions": precondition});
        assert_eq!(client.call("DELETE", &one, &options).0, 409, "{precondition}");
    }
    assert_eq!(client.get(&one).1["data"]["k"], "1");
    let options = json!({"preconditions": {"uid": first["metadata"]["uid"]}});
    assert_eq!(client.call("DELETE", &one, &options).0, 200);
    assert_eq!(client.get(&one).0, 404);
    assert_eq!(client.call("PUT", &one, &first).0, 409);
    assert_eq!(client.call("PUT", &one, &map("a")).0, 404);
}

#[test]
fn an_immutable_secret_keeps_its_data() {
    let (_server, client) = start();
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"a": "x"}, "immutable": true});
    let (_, stored) = client.call("POST", &path("secrets", "default", ""), &secret);
    assert_eq!((&stored["data"]["a"], &stored["stringData"]), (&json!("eA=="), &Value::Null));
    let one = path("secrets", "default", "s");
    assert_eq!(client.call("PATCH", &one, &json!({"data": {"a": "eQ=="}})).0, 422);
    assert_eq!(client.call("PATCH", &one, &json!({"metadata": {"labels": {"a": "b"}}})).0, 200);
}

/// A QuarksJob, its Job, and that Job's pod.
fn family(server: &Server) -> Vec<String> {
    let api = server.api();
    let owner = api.create(&path("quarksjobs", "default", ""), play::quarks_job("q", "once"));
    let reference = json!([{"uid": owner["metadata"]["uid"], "name": "q", "controller": true}]);
    let job = json!({"metadata": {"name": "j", "ownerReferences": reference},
        "spec": {"template": {"spec": {"containers": [{"name": "main"}]}}}});
    api.create(&path("jobs", "default", ""), job);
    let pod = play::create_pod_for_job(api, "default", "j", &[("main", 3, "the end")]);
    let name = pod["metadata"]["name"].as_str().expect("a name");
    let paths = [("quarksjobs", "q"), ("jobs", "j"), ("pods", name)];
    paths.map(|(plural, name)| path(plural, "default", name)).to_vec()
}

#[test]
fn dependents_follow_or_are_orphaned_as_the_policy_says() {
    for (index, policy, left) in [
        (0, "", [false, false, false]),
        (1, "", [true, false, true]),
        (1, "Orphan", [true, false, true]),
        (1, "Background", [true, false, false]),
        (1, "Foreground", [true, false, false]),
    ] {
        let (server, client) = start();
        let paths = family(&server);
        let options = match policy {
            "" => json!({}),
            policy => json!({"propagationPolicy": policy}),
        };
        assert_eq!(client.call("DELETE", &paths[index], &options).0, 200);
        let found: Vec<bool> = paths.iter().map(|p| server.api().get(p).is_some()).collect();
        assert_eq!(found, left, "{policy} on {}", paths[index]);
        if let Some(pod) = server.api().get(&paths[2]) {
            assert_eq!(pod["metadata"]["ownerReferences"], Value::Null);
        }
    }
}

#[test]
fn finalizers_hold_an_object_that_is_being_deleted() {
    let (server, client) = start();
    let paths = family(&server);
    let hold = json!({"metadata": {"finalizers": ["test/hold"]}});
    server.api().patch(&paths[1], &hold);
    let (_, marked) = client.call("DELETE", &paths[1], &json!({"propagationPolicy": "Background"}));
    assert_ne!(marked["metadata"]["deletionTimestamp"], Value::Null);
    assert_eq!(client.get(&paths[1]).0, 200);
    server.api().patch(&paths[1], &json!({"metadata": {"finalizers": null}}));
    assert_eq!(client.get(&paths[1]).0, 404);
}

#[test]
fn the_job_controller_and_kubelet_can_be_played() {
    let (server, client) = start();
    let paths = family(&server);
    play::finish_job(server.api(), "default", "j", End::Failed { reason: "BackoffLimitExceeded" });
    let (_, job) = client.get(&paths[1]);
    assert_eq!(job["status"]["conditions"][1]["type"], "Failed");
    let uid = job["metadata"]["uid"].as_str().expect("a uid");
    let selector = format!("?labelSelector=batch.kubernetes.io%2Fcontroller-uid%3D{uid}");
    let (_, pods) = client.get(&(path("pods", "default", "") + &selector));
    let state = &pods["items"][0]["status"]["containerStatuses"][0]["state"];
    assert_eq!(state["terminated"]["message"], "the end");
    let _auto = play::auto_complete(server.api());
    let job = json!({"metadata": {"name": "j2"}, "spec": {"template": {"spec": {}}}});
    client.call("POST", &path("jobs", "default", ""), &job);
    wait_for("the second Job to complete", || {
        let job = server.api().get(&path("jobs", "default", "j2"))?;
        (job["status"]["conditions"][1]["type"] == "Complete").then_some(())
    });
    server.api().delete(&paths[0], "Orphan");
    server.api().patch(&paths[1], &json!({"metadata": {"ownerReferences": [{"uid": "gone"}]}}));
    play::collect_garbage(server.api(), &["jobs"], "default");
    assert_eq!(client.get(&paths[1]).0, 404);
}

#[test]
fn lists_select_and_page_over_one_snapshot() {
    let (server, client) = start();
    for (name, labels) in [("a", json!({"x": "1"})), ("b", json!({"x": "2"})), ("c", json!({}))] {
        let object = json!({"metadata": {"name": name, "labels": labels}});
        server.api().create(&maps(), object);
    }
    let names = |query: &str| -> String {
        let (_, list) = client.get(&(maps() + query));
        let items = list["items"].as_array().expect("items").iter();
        items.map(|item| item["metadata"]["name"].as_str().expect("a name")).collect()
    };
    for (query, expected) in [
        ("", "abc"),
        ("?labelSelector=x%3D1", "a"),
        ("?labelSelector=x!%3D1", "bc"),
        ("?labelSelector=x", "ab"),
        ("?labelSelector=!x", "c"),
        ("?labelSelector=x+in+(1,2),x!=2", "a"),
        ("?fieldSelector=metadata.name%3Db", "b"),
        ("?fieldSelector=metadata.namespace!%3Ddefault", ""),
        ("?unknown=1", "abc"),
    ] {
        assert_eq!(names(query), expected, "{query}");
    }
    assert_eq!(client.get(&(maps() + "?fieldSelector=data.x%3D1")).0, 400);
    let (_, page) = client.get(&(maps() + "?limit=2"));
    assert_eq!(page["kind"], "ConfigMapList");
    assert_eq!((&page["items"][0]["kind"], &page["metadata"]["remainingItemCount"]), (&Value::Null, &json!(1)));
    server.api().delete(&path("configmaps", "default", "c"), "");
    let rest = format!("?limit=2&continue={}", page["metadata"]["continue"].as_str().expect("a token"));
    assert_eq!(names(&rest), "c", "the rest is of the time of the first page");
    server.api().compact();
    let (code, expired) = client.get(&(maps() + &rest));
    assert_eq!((code, &expired["reason"]), (410, &json!("Expired")));
    let (code, ahead) = client.get(&(maps() + "?resourceVersion=999999"));
    assert_eq!((code, &ahead["details"]["causes"][0]["reason"]), (504, &json!("ResourceVersionTooLarge")));
}

#[test]
fn metadata_only_shows_no_content() {
    let (server, client) = start();
    let secret = json!({"metadata": {"name": "s"}, "data": {"k": "Y2FuYXJ5"}});
    server.api().create(&path("secrets", "default", ""), secret);
    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let target = path("secrets", "default", "");
    let reply = client.send("GET", &target, ("accept", accept), &Value::Null);
    let text = reply.expect("a reply").body_mut().read_to_string().expect("text");
    assert!(text.contains("PartialObjectMetadataList") && !text.contains("Y2FuYXJ5"), "{text}");
}

#[test]
fn a_watch_resumes_selects_and_bookmarks() {
    let (server, client) = start();
    let api = server.api();
    api.settings(|settings| settings.bookmark_every = crate::support::operator::LIMIT);
    let first = api.create(&maps(), map("a"));
    let from = first["metadata"]["resourceVersion"].as_str().expect("a version");
    api.create(&maps(), json!({"metadata": {"name": "b", "labels": {"x": "1"}}}));
    let query = format!("{}?watch=true&allowWatchBookmarks=true&resourceVersion={from}", maps());
    let mut all = client.watch(&query);
    let mut one = client.watch(&(query.clone() + "&fieldSelector=metadata.name%3Da"));
    let mut labelled = client.watch(&(query + "&labelSelector=x"));
    assert_eq!(kind_and_name(&mut all), pair("ADDED", "b"));
    api.patch(&path("configmaps", "default", "b"), &json!({"metadata": {"labels": null}}));
    api.delete(&path("configmaps", "default", "a"), "");
    assert_eq!(kind_and_name(&mut all), pair("MODIFIED", "b"));
    assert_eq!(kind_and_name(&mut all), pair("DELETED", "a"));
    assert_eq!(kind_and_name(&mut one), pair("DELETED", "a"));
    assert_eq!(kind_and_name(&mut labelled), pair("ADDED", "b"));
    assert_eq!(kind_and_name(&mut labelled), pair("DELETED", "b"));
    api.bookmark();
    let (kind, _, object) = frame(&mut one);
    assert_eq!(kind, "BOOKMARK");
    assert_eq!(object["metadata"]["resourceVersion"], api.version().to_string());
    let mut initial = client.watch(&(maps() + "?watch=1&timeoutSeconds=1"));
    assert_eq!(kind_and_name(&mut initial), pair("ADDED", "b"));
    assert!(initial.next().is_none(), "timeoutSeconds ends the stream cleanly");
    drop((all, one, labelled));
    wait_for("closed watches to be noticed", || server.watches().is_empty().then_some(()));
}

#[test]
fn a_forgotten_version_is_gone_in_either_form() {
    let (server, client) = start();
    server.api().set_history_limit(1);
    for name in ["a", "b", "c"] {
        server.api().create(&maps(), map(name));
    }
    let query = maps() + "?watch=true&resourceVersion=101";
    let mut lines = client.watch(&query);
    let (kind, _, status) = frame(&mut lines);
    assert_eq!((kind.as_str(), &status["code"]), ("ERROR", &json!(410)));
    assert!(lines.next().is_none(), "another line");
    server.api().settings(|settings| settings.expired = Expired::Http);
    assert_eq!(client.get(&query).0, 410);
    let mut current = client.watch(&format!("{}?watch=true&resourceVersion={}", maps(), server.api().version()));
    server.api().create(&maps(), map("d"));
    assert_eq!(kind_and_name(&mut current), pair("ADDED", "d"));
}

#[test]
fn tokens_are_issued_bound_and_accepted() {
    let (server, client) = start();
    play::monitored_namespace(server.api(), "team");
    let account = path("serviceaccounts", "team", "sidecar") + "/token";
    let unbound = json!({"spec": {"boundObjectRef": {"kind": "Secret", "name": "absent"}}});
    assert_eq!(client.call("POST", &account, &unbound).0, 404);
    assert_eq!(client.call("POST", &account, &json!({"spec": {"expirationSeconds": 60}})).0, 422);
    let (code, reply) = client.call("POST", &account, &json!({"spec": {"expirationSeconds": 3600}}));
    assert_eq!(code, 201);
    let expiry = reply["status"]["expirationTimestamp"].as_str().expect("a time");
    assert!(expiry.starts_with("20") && expiry.len() == 20, "{expiry}");
    let token = reply["status"]["token"].as_str().expect("a token").to_owned();
    let sidecar = Client { token, ..client };
    assert_eq!(sidecar.get(&path("secrets", "team", "")).0, 200);
    let user = server.requests().pop().expect("recorded").user;
    assert_eq!(user, "serviceaccount:team:sidecar");
}

#[test]
fn faults_hit_the_kth_mutation_and_are_recorded() {
    let (server, client) = start();
    let retry = Fault::status(429, "TooManyRequests", "slow down", Some("7"));
    let rule = server.fault(When::mutation().nth(3), retry);
    for name in ["a", "c"] {
        assert_eq!(client.call("POST", &maps(), &map(name)).0, 201);
        client.get(&maps());
    }
    let body = map("b");
    let refused = client.send("POST", &maps(), ("content-type", "application/json"), &body);
    let refused = refused.expect("a reply");
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (429, &"7".parse().expect("a value")));
    assert_eq!((client.call("POST", &maps(), &body).0, rule.hits()), (201, 1));
    let found: Vec<_> = server.mutations().iter().map(|e| (e.status, e.fault)).collect();
    assert_eq!(found, [(Some(201), None), (Some(201), None), (Some(429), Some("Answer")), (Some(201), None)]);
}

#[test]
fn lost_replies_are_applied_and_resets_are_not() {
    let (server, client) = start();
    for (name, fault, applied) in [("lost", Fault::LoseReply, true), ("half", Fault::HalfBody, true), ("reset", Fault::Reset, false)] {
        server.fault(When::request("POST", "/configmaps"), fault);
        assert!(client.try_call("POST", &maps(), &map(name)).is_err(), "{name}");
        let stored = server.api().get(&path("configmaps", "default", name));
        assert_eq!(stored.is_some(), applied, "{name}");
    }
    let warning = vec![("Warning".to_owned(), "299 - \"unknown field\"".to_owned())];
    server.fault(When::any(), Fault::AddHeaders(warning));
    let reply = client.send("GET", &maps(), ("accept", "*/*"), &Value::Null).expect("a reply");
    assert!(reply.headers().contains_key("warning"));
}

#[test]
fn gates_hold_before_or_after_the_request_is_applied() {
    for (fault, gate, applied) in [Gate::default(), Gate::default()].into_iter().zip([false, true]).map(|(gate, after)| match after {
        false => (Fault::Hold(gate.clone()), gate, after),
        true => (Fault::HoldReply(gate.clone()), gate, after),
    }) {
        let (server, client) = start();
        server.fault(When::mutation(), fault);
        let sent = thread::spawn(move || client.call("POST", &maps(), &map("a")).0);
        wait_for("the gate to be reached", || (gate.arrived() == 1).then_some(()));
        let one = path("configmaps", "default", "a");
        assert_eq!(server.api().get(&one).is_some(), applied);
        assert!(!sent.is_finished(), "it was answered");
        gate.open();
        assert_eq!(sent.join().expect("joined"), 201);
    }
}

#[test]
fn watch_frames_can_be_bent_in_every_way() {
    let (server, client) = start();
    let gate = Gate::default();
    let faults = vec![
        FrameFault::Inject(0, b"garbage\n".to_vec()),
        FrameFault::Drop(0),
        FrameFault::Duplicate(1),
        FrameFault::Split(2, 1),
        FrameFault::Hold(3, gate.clone()),
        FrameFault::Cut(4),
    ];
    server.fault(When::watch("/configmaps"), Fault::Frames(faults));
    for name in ["a", "b", "c", "d", "e"] {
        server.api().create(&maps(), map(name));
    }
    let mut lines = client.watch(&(maps() + "?watch=true"));
    assert_eq!(lines.next().expect("a line").expect("readable"), "garbage");
    for name in ["b", "b", "c"] {
        assert_eq!(kind_and_name(&mut lines), pair("ADDED", name));
    }
    wait_for("the hold", || (gate.arrived() == 1).then_some(()));
    gate.open();
    assert_eq!(kind_and_name(&mut lines), pair("ADDED", "d"));
    assert!(lines.next().expect("an end").is_err(), "a cut is not a clean end");
}

#[test]
fn open_watches_take_commands() {
    let (server, client) = start();
    let query = format!("{}?watch=true&resourceVersion={}", maps(), server.api().version());
    let mut lines = client.watch(&query);
    wait_for("the watch", || (server.watches() == [maps()]).then_some(()));
    let error = json!({"type": "ERROR", "object": {"code": 410}}).to_string() + "\n";
    assert_eq!(server.command("/configmaps", &Command::Inject(error.into_bytes())), 1);
    assert_eq!(frame(&mut lines).0, "ERROR");
    server.command("", &Command::End);
    assert!(lines.next().is_none(), "another line");
    // A silent watch tells nothing, although the server knows news.
    server.fault(When::watch(""), Fault::Frames(vec![FrameFault::Silence(0)]));
    let mut silent = client.watch(&query);
    wait_for("the watch", || (server.watches().len() == 1).then_some(()));
    server.api().create(&maps(), map("a"));
    let reader = thread::spawn(move || silent.next().is_some_and(|line| line.is_ok()));
    server.set_down(true);
    assert!(!reader.join().expect("joined"), "no line but the cut");
    assert!(client.try_call("GET", &maps(), &Value::Null).is_err());
    server.set_down(false);
    assert_eq!(client.get(&maps()).0, 200);
}

#[test]
fn a_black_hole_never_answers() {
    let (server, client) = start();
    server.fault(When::any(), Fault::BlackHole);
    let agent = ureq::Agent::new_with_config(client.agent.config().clone());
    let lost = Client { agent: agent.clone(), ..client };
    let sent = thread::spawn(move || lost.try_call("GET", &maps(), &Value::Null).is_err());
    wait_for("the request", || (!server.requests().is_empty()).then_some(()));
    agent.shutdown();
    assert!(sent.join().expect("joined"));
}

#[test]
fn a_process_is_killed_at_the_exact_request_and_starts_again() {
    let (server, client) = start();
    let child = Operator::new("/bin/sh").arg("-c").arg("echo $CANARY >&2; exec sleep 600");
    let child = child.env("CANARY", "hello");
    for (name, after) in [("before", false), ("after", true)] {
        let kill = child.killer();
        let fault = if after { Fault::KillAfter(kill) } else { Fault::KillBefore(kill) };
        server.fault(When::mutation(), fault);
        child.start();
        assert!(child.is_running(), "{name}: killed too early");
        assert!(client.try_call("POST", &maps(), &map(name)).is_err(), "{name}: it was answered");
        assert!(!child.is_running(), "{name}: not killed");
        let stored = server.api().get(&path("configmaps", "default", name));
        assert_eq!(stored.is_some(), after, "killed {name}: is it stored");
    }
    child.start();
    child.wait_for("the log", || (child.log().matches("hello\n").count() >= 1).then_some(()));
    child.sigterm();
    let status = child.wait_exit(crate::support::operator::LIMIT).expect("an end");
    assert!(!status.success(), "{status}");
}

#[test]
fn the_proxy_relays_requests_watches_and_faults() {
    let (real, _) = start();
    let folder = Folder::new("proxy");
    let front = Server::proxy(Upstream::from_kubeconfig(&yaml_kubeconfig(&real, folder.path())));
    front.record_to(&folder.path().join("record"));
    let client = Client::new(&front);
    let query = format!("{}?watch=true&resourceVersion={}", maps(), real.api().version());
    let mut lines = client.watch(&query);
    assert_eq!(client.call("POST", &maps(), &map("a")).0, 201);
    assert_eq!(client.call("POST", &maps(), &map("a")).1["reason"], "AlreadyExists");
    assert_eq!(kind_and_name(&mut lines), pair("ADDED", "a"));
    front.fault(When::mutation(), Fault::LoseReply);
    let one = path("configmaps", "default", "a");
    assert!(client.try_call("DELETE", &one, &json!({"preconditions": {}})).is_err());
    assert_eq!(kind_and_name(&mut lines), pair("DELETED", "a"));
    assert_eq!(real.mutations().len(), 3);
    drop(lines);
    wait_for("the upstream watch to end too", || real.watches().is_empty().then_some(()));
    let record = std::fs::read_to_string(folder.path().join("record")).expect("a record");
    assert!(record.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    assert!(record.contains("\"LoseReply\""), "{record}");
}

/// As a cluster script writes it: YAML, the CA in a file.
fn yaml_kubeconfig(server: &Server, folder: &Path) -> std::path::PathBuf {
    let ca = folder.join("ca.crt");
    std::fs::write(&ca, server.ca_pem()).expect("written");
    let text = format!(
        "clusters:\n- name: x\n  cluster:\n    server: {}\n    certificate-authority: {}\nusers:\n- name: x\n  user:\n    token: {OPERATOR_TOKEN}\n",
        server.url(),
        ca.display()
    );
    let path = folder.join("config");
    std::fs::write(&path, text).expect("written");
    path
}

#[test]
fn what_clients_write_can_be_changed_before_it_is_stored() {
    let (server, client) = start();
    let object = json!({"metadata": {"name": "q", "annotations": {"a": "1"}}});
    let posted = path("quarksjobs", "default", "");
    server.api().settings(|settings| {
        settings.mutation = Some(std::sync::Arc::new(|request, object| {
            if request.path.ends_with("/status") {
                object["status"] = Value::Null;
            }
            object["metadata"]["annotations"] = json!({"b": "2"});
        }));
    });
    let (code, created) = client.call("POST", &posted, &object);
    assert_eq!((code, &created["metadata"]["annotations"]), (201, &json!({"b": "2"})));
    let named = path("quarksjobs", "default", "q");
    let (code, patched) = client.call("PATCH", &(named.clone() + "/status"), &json!({"status": {"runs": 1}}));
    assert_eq!(
        (code, patched.get("status"), &patched["metadata"]["resourceVersion"]),
        (200, None, &created["metadata"]["resourceVersion"])
    );
    // The test's own writes are stored as they are.
    server.api().patch(&named, &json!({"metadata": {"annotations": {"c": "3"}}}));
    assert_eq!(client.get(&named).1["metadata"]["annotations"], json!({"b": "2", "c": "3"}));
    let replaced = server.api().replace(&named, json!({"metadata": {"name": "q"}, "spec": {"a": null}}));
    assert_eq!((&replaced["metadata"]["annotations"], &replaced["spec"]), (&Value::Null, &json!({"a": null})));
}

#[test]
fn gathered_frames_come_together() {
    let (server, client) = start();
    let mut lines = client.watch("/api/v1/configmaps?watch=1&resourceVersion=1");
    wait_for("the watch", || (server.watches().len() == 1).then_some(()));
    let gate = Gate::default();
    assert_eq!(server.command("/configmaps", &Command::Gather(gate.clone())), 1);
    // The command is taken in before the next frame is looked for, and frames come only now.
    wait_for("the watch to be idle", || (server.pending("/configmaps") == 0).then_some(()));
    server.api().create(&maps(), json!({"metadata": {"name": "one"}}));
    server.api().delete(&format!("{}/one", maps()), "");
    server.api().create(&maps(), json!({"metadata": {"name": "one"}}));
    gate.open();
    let kinds: Vec<_> = (0..3).map(|_| kind_and_name(&mut lines)).collect();
    assert_eq!(kinds, [pair("ADDED", "one"), pair("DELETED", "one"), pair("ADDED", "one")]);
    server.api().create(&maps(), json!({"metadata": {"name": "two"}}));
    assert_eq!(kind_and_name(&mut lines), pair("ADDED", "two"));
}
