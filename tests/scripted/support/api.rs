//! The in-memory API server: paths, verbs, preconditions, selectors, deletion with dependents, watches.
//! It does not validate schemas (a QuarksJob may look like anything), default or prune fields of custom
//! resources, check rights, or play controllers other than deletion of dependents.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};

use super::http::{Backend, Reply, Request, Response, status_failure};
use super::store::{Key, Store};
use super::view::View;

/// How a watch from a forgotten version is told so.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// An ERROR frame in a stream with status 200.
    Frame,
    /// HTTP status 410.
    Http,
}

/// What becomes of an object that a client writes, before it is stored: a mutating webhook, or a schema that prunes. Gets the request
/// and the object as it would be stored.
pub type Mutation = Arc<dyn Fn(&Request, &mut Value) + Send + Sync>;

/// `tokens` maps bearer tokens to user names.
pub struct Settings {
    pub expired: Expired,
    pub bookmark_every: Duration,
    pub tokens: HashMap<String, String>,
    /// Life of issued tokens in seconds, instead of what was asked for.
    pub token_seconds: Option<u64>,
    /// Answers of `pods/log` by `namespace/pod/container`.
    pub logs: HashMap<String, Vec<u8>>,
    /// Not for what the test itself writes past HTTP.
    pub mutation: Option<Mutation>,
    pub(super) bookmarks_asked: u64,
}

pub(super) struct State {
    pub store: Store,
    pub settings: Settings,
}

#[derive(Clone)]
pub struct Api {
    pub(super) shared: Arc<(Mutex<State>, Condvar)>,
}

pub(super) type Answer<T> = Result<T, Response>;

/// What a path names.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub key: Key,
    pub version: String,
    pub sub: String,
}

impl Target {
    fn parse(path: &str) -> Option<Target> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, plural, rest @ ..] if !matches!(*plural, "status" | "finalize") => {
                (*namespace, [&[*plural], rest].concat())
            }
            rest => ("", rest.to_vec()),
        };
        let (plural, name, sub) = match rest.as_slice() {
            [plural] => (*plural, "", ""),
            [plural, name] => (*plural, *name, ""),
            [plural, name, sub] => (*plural, *name, *sub),
            _ => return None,
        };
        Some(Target {
            key: Key { resource: format!("{group}/{plural}"), namespace: namespace.to_owned(), name: name.to_owned() },
            version: version.to_owned(),
            sub: sub.to_owned(),
        })
    }

    pub fn group(&self) -> &str {
        self.key.resource.split('/').next().unwrap_or("")
    }

    pub fn plural(&self) -> &str {
        self.key.resource.rsplit('/').next().unwrap_or("")
    }

    pub fn api_version(&self) -> String {
        format!("{}/{}", self.group(), self.version).trim_start_matches('/').to_owned()
    }

    pub fn kind(&self) -> String {
        match self.plural() {
            "quarksjobs" => "QuarksJob".to_owned(),
            "extendedjobs" => "ExtendedJob".to_owned(),
            "configmaps" => "ConfigMap".to_owned(),
            "serviceaccounts" => "ServiceAccount".to_owned(),
            "rolebindings" => "RoleBinding".to_owned(),
            "customresourcedefinitions" => "CustomResourceDefinition".to_owned(),
            plural => {
                let one = plural.trim_end_matches('s');
                one[..1].to_uppercase() + &one[1..]
            }
        }
    }

    pub fn fail(&self, code: u16, reason: &str, what: &str) -> Response {
        let details = json!({"name": self.key.name, "group": self.group(), "kind": self.plural()});
        let full = match self.group() {
            "" => self.plural().to_owned(),
            group => format!("{}.{group}", self.plural()),
        };
        let message = match reason {
            "Conflict" => format!("Operation cannot be fulfilled on {full} \"{}\": ", self.key.name) + what,
            "Invalid" => format!("{} \"{}\" is invalid: {what}", self.kind(), self.key.name),
            _ => format!("{full} \"{}\" {what}", self.key.name),
        };
        Response::failure(code, reason, &message, details)
    }

    pub fn not_found(&self) -> Response {
        self.fail(404, "NotFound", "not found")
    }

    pub fn invalid(&self, field: &str, what: &str) -> Response {
        let mut status = self.fail(422, "Invalid", &format!("{field}: {what}"));
        let mut body: Value = serde_json::from_slice(&status.body).expect("ours");
        body["details"]["causes"] = json!([{"reason": "FieldValueInvalid", "message": what, "field": field}]);
        status.body = body.to_string().into_bytes();
        status
    }
}

pub(super) fn bad_request(message: &str) -> Response {
    Response::failure(400, "BadRequest", message, Value::Null)
}

pub(super) fn gone() -> Value {
    let message = "too old resource version";
    status_failure(410, "Expired", message, Value::Null)
}

pub(super) fn too_large(asked: u64, current: u64) -> Response {
    let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
    let details = json!({"causes": [{"reason": "ResourceVersionTooLarge",
        "message": "Too large resource version"}], "retryAfterSeconds": 1});
    Response::failure(504, "Timeout", &message, details).with_header("Retry-After", "1")
}

impl Api {
    pub fn new(token: &str) -> Api {
        let tokens = HashMap::from([(token.to_owned(), "operator".to_owned())]);
        let settings = Settings {
            expired: Expired::Frame,
            bookmark_every: Duration::from_secs(1),
            tokens,
            token_seconds: None,
            logs: HashMap::new(),
            mutation: None,
            bookmarks_asked: 0,
        };
        let store = Store::default();
        let api = Api { shared: Arc::new((Mutex::new(State { store, settings }), Condvar::new())) };
        api.create("/api/v1/namespaces", json!({"metadata": {"name": "default"}}));
        api
    }

    // For the test itself: past TLS, faults and record. A failed arrangement is a panic.

    pub fn get(&self, path: &str) -> Option<Value> {
        let target = Target::parse(path).expect("a resource path");
        let state = self.lock();
        state.store.get(&target.key).map(|object| Value::clone(object))
    }

    pub fn list(&self, path: &str) -> Vec<Value> {
        let target = Target::parse(path).expect("a resource path");
        let state = self.lock();
        let found = state.store.list(&target.key.resource, &target.key.namespace);
        found.map(|(_, object)| Value::clone(object)).collect()
    }

    /// Keeps a `status` that the object brings, unlike a POST.
    pub fn create(&self, path: &str, object: Value) -> Value {
        self.change(path, |state, target| state.create(target, object, true))
    }

    /// A merge patch; of the `status` when the path says so.
    pub fn patch(&self, path: &str, patch: &Value) -> Value {
        self.change(path, |state, target| state.update(target, false, |old| merged(old, patch)))
    }

    /// As `kubectl replace`: the whole object but for its status.
    pub fn replace(&self, path: &str, object: Value) -> Value {
        self.change(path, |state, target| state.update(target, true, |_| object))
    }

    /// Deletes if it is there; `policy` as in DeleteOptions, or empty for the kind's default.
    pub fn delete(&self, path: &str, policy: &str) {
        let target = Target::parse(path).expect("a resource path");
        let options = json!({"propagationPolicy": policy});
        self.lock().delete(&target, &options).ok();
        self.shared.1.notify_all();
    }

    pub fn version(&self) -> u64 {
        self.lock().store.version
    }

    pub fn settings(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.lock().settings);
    }

    pub fn set_history_limit(&self, limit: usize) {
        self.lock().store.history_limit = limit;
    }

    /// Every version seen so far becomes too old to watch from, list pages expire, open watches end.
    pub fn compact(&self) {
        self.lock().store.compact();
        self.shared.1.notify_all();
    }

    /// A BOOKMARK now, to every watch that allows them.
    pub fn bookmark(&self) {
        self.lock().settings.bookmarks_asked += 1;
        self.shared.1.notify_all();
    }

    /// Waits until something changes, or for `limit`.
    pub fn wait_change(&self, since: u64, limit: Duration) {
        let state = self.lock();
        let unchanged = |state: &mut State| state.store.version == since;
        let waited = self.shared.1.wait_timeout_while(state, limit, unchanged);
        drop(waited.expect("api"));
    }

    fn change(&self, path: &str, act: impl FnOnce(&mut State, &Target) -> Answer<Arc<Value>>) -> Value {
        let target = Target::parse(path).expect("a resource path");
        let result = act(&mut self.lock(), &target);
        self.shared.1.notify_all();
        let refused = |r: &Response| panic!("{path} refused: {}", String::from_utf8_lossy(&r.body));
        Value::clone(&result.unwrap_or_else(|response| refused(&response)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().expect("api")
    }

    fn answer(&self, request: &Request) -> Answer<Reply> {
        if self.user(request).is_empty() {
            return Err(Response::failure(401, "Unauthorized", "Unauthorized", Value::Null));
        }
        match request.path.as_str() {
            "/version" => {
                let version = json!({"major": "1", "minor": "34", "gitVersion": "v1.34.4"});
                return Ok(Reply::Full(Response::json(200, &version)));
            }
            "/healthz" | "/livez" | "/readyz" => {
                let response = Response::new(200, "text/plain", b"ok".to_vec());
                return Ok(Reply::Full(response));
            }
            _ => {}
        }
        let unknown = "the server could not find the requested resource";
        let target = Target::parse(&request.path).ok_or_else(|| Response::failure(404, "NotFound", unknown, Value::Null))?;
        if request.query.contains_key("dryRun") {
            return Err(bad_request("dryRun is not supported here"));
        }
        let view = View::new(&target, request)?;
        let mut state = self.lock();
        let mutation = state.settings.mutation.clone();
        let stored = |mut object: Value| {
            if let Some(mutation) = &mutation {
                mutation(request, &mut object);
            }
            object
        };
        let named = !target.key.name.is_empty();
        let result = match (request.method.as_str(), named, target.sub.as_str()) {
            ("GET", false, "") if request.is_watch() => {
                return state.watch(self, request, view);
            }
            ("GET", false, "") => state.list(request, &view),
            ("GET", true, "log") => state.log(&target, request),
            ("GET", true, "" | "status") => match state.store.get(&target.key) {
                Some(object) => Ok(Response::json(200, &view.show(object))),
                None => Err(target.not_found()),
            },
            ("POST", false, "") => state.create(&target, stored(parse(request)?), false).map(|object| Response::json(201, &object)),
            ("POST", true, "token") => state.token(&target, &parse(request)?),
            ("PUT", true, "" | "status") => {
                let object = stored(parse(request)?);
                state.update(&target, true, |_| object).map(|object| Response::json(200, &object))
            }
            ("PATCH", true, "" | "status") => {
                if !request.header("content-type").starts_with("application/merge-patch+json") {
                    let what = "the body of the request was in an unknown format";
                    let reason = "UnsupportedMediaType";
                    return Err(Response::failure(415, reason, what, Value::Null));
                }
                let patch = parse(request)?;
                state.update(&target, false, |old| stored(merged(old, &patch))).map(|object| Response::json(200, &object))
            }
            ("DELETE", true, "") => {
                let mut options = if request.body.is_empty() { json!({}) } else { parse(request)? };
                if let Some(policy) = request.query.get("propagationPolicy") {
                    options["propagationPolicy"] = policy.as_str().into();
                }
                state.delete(&target, &options)
            }
            _ => Err(target.fail(405, "MethodNotAllowed", "does not allow this method")),
        };
        drop(state);
        self.shared.1.notify_all();
        result.map(Reply::Full)
    }
}

impl Backend for Api {
    fn call(&self, request: &Request) -> Reply {
        self.answer(request).unwrap_or_else(Reply::Full)
    }

    fn user(&self, request: &Request) -> String {
        let header = request.header("authorization");
        let token = header.strip_prefix("Bearer ").unwrap_or("");
        let state = self.lock();
        state.settings.tokens.get(token).cloned().unwrap_or_default()
    }
}

fn parse(request: &Request) -> Answer<Value> {
    let parsed = serde_json::from_slice(&request.body);
    let object: Value = parsed.map_err(|error| bad_request(&error.to_string()))?;
    match object {
        Value::Object(_) => Ok(object),
        _ => Err(bad_request("the body is not an object")),
    }
}

/// RFC 7386.
fn merged(old: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else {
        return patch.clone();
    };
    let mut new = old.as_object().cloned().unwrap_or_default();
    for (key, value) in patch {
        if value.is_null() {
            new.remove(key);
        } else {
            let before = new.get(key).unwrap_or(&Value::Null);
            let after = merged(before, value);
            new.insert(key.clone(), after);
        }
    }
    Value::Object(new)
}

pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

pub(super) fn has_finalizers(object: &Value) -> bool {
    let list = object.pointer("/metadata/finalizers");
    list.and_then(Value::as_array).is_some_and(|list| !list.is_empty())
}
