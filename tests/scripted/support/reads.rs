//! Reading and subresources of the in-memory API server: list with pages, watch, `pods/log`, tokens.
//! A watch drains the store's history; it is never told anything that a list would not show.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::api::{Answer, Api, Expired, State, Target, bad_request, gone, text, too_large};
use super::http::{Frames, Next, Reply, Request, Response};
use super::store::{Key, time_after};
use super::view::{View, line};

impl State {
    pub(super) fn list(&mut self, request: &Request, view: &View) -> Answer<Response> {
        let limit = request.parameter("limit").parse().unwrap_or(0);
        let token = request.parameter("continue");
        let (version, mut items) = if token.is_empty() {
            let asked = request.parameter("resourceVersion").parse().unwrap_or(0);
            if asked > self.store.version {
                return Err(too_large(asked, self.store.version));
            }
            let key = &view.target.key;
            let all = self.store.list(&key.resource, &key.namespace);
            let items = all.filter(|(_, object)| view.matches(object));
            (self.store.version, items.map(|(_, o)| Arc::clone(o)).collect())
        } else {
            if !request.parameter("resourceVersion").is_empty() {
                let what = "specifying resource version is not allowed when using continue";
                return Err(bad_request(what));
            }
            let expired = || Response::json(410, &gone());
            self.store.pages.get(token).cloned().ok_or_else(expired)?
        };
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if limit > 0 && items.len() > limit {
            let rest = items.split_off(limit);
            metadata["remainingItemCount"] = rest.len().into();
            let token = format!("page-{}", self.store.next_number());
            metadata["continue"] = token.as_str().into();
            self.store.pages.insert(token, (version, rest));
        }
        let items = items.iter().map(|object| view.item(object)).collect();
        Ok(Response::json(200, &view.list(items, &metadata)))
    }

    pub(super) fn watch(&mut self, api: &Api, request: &Request, view: View) -> Answer<Reply> {
        let asked: u64 = request.parameter("resourceVersion").parse().unwrap_or(0);
        if asked > self.store.version {
            return Err(too_large(asked, self.store.version));
        }
        if asked != 0 && asked < self.store.floor && self.settings.expired == Expired::Http {
            return Err(Response::json(410, &gone()));
        }
        let mut ready = VecDeque::new();
        let mut position = asked;
        let stream_list = request.parameter("sendInitialEvents") == "true";
        if asked == 0 || stream_list {
            position = self.store.version;
            let key = &view.target.key;
            let all = self.store.list(&key.resource, &key.namespace);
            let now = all.filter(|(_, object)| view.matches(object));
            ready.extend(now.map(|(_, object)| line("ADDED", &view.show(object))));
            if stream_list {
                ready.push_back(view.bookmark(position, true));
            }
        }
        let seconds = request.parameter("timeoutSeconds").parse().unwrap_or(1_800);
        let frames = WatchFrames {
            api: api.clone(),
            view,
            position,
            ready,
            over: false,
            deadline: Instant::now() + Duration::from_secs(seconds),
            bookmarks: request.parameter("allowWatchBookmarks") == "true",
            next_bookmark: Instant::now() + self.settings.bookmark_every,
            bookmarks_seen: self.settings.bookmarks_asked,
        };
        let head = Response::new(200, "application/json", Vec::new());
        Ok(Reply::Stream(head, Box::new(frames)))
    }

    pub(super) fn log(&self, target: &Target, request: &Request) -> Answer<Response> {
        let key = &target.key;
        let container = request.parameter("container");
        let name = format!("{}/{}/{container}", key.namespace, key.name);
        let text = self.settings.logs.get(&name);
        let text = text.ok_or_else(|| target.not_found())?;
        Ok(Response::new(200, "text/plain", text.clone()))
    }

    /// TokenRequest: a new token that the server accepts from now on.
    pub(super) fn token(&mut self, target: &Target, asked: &Value) -> Answer<Response> {
        let mut account = target.key.clone();
        account.resource = "/serviceaccounts".to_owned();
        if self.store.get(&account).is_none() {
            return Err(target.not_found());
        }
        let mut bound = Key { resource: "/secrets".to_owned(), ..account.clone() };
        text(asked, "/spec/boundObjectRef/name").clone_into(&mut bound.name);
        if text(asked, "/spec/boundObjectRef/kind") == "Secret" {
            let found = self.store.get(&bound).ok_or_else(|| target.not_found())?;
            let uid = text(asked, "/spec/boundObjectRef/uid");
            if !uid.is_empty() && uid != text(found, "/metadata/uid") {
                return Err(target.fail(409, "Conflict", "the bound object has another UID"));
            }
        }
        let seconds = asked["spec"]["expirationSeconds"].as_u64().unwrap_or(3_600);
        if seconds < 600 {
            let what = "may not specify a duration less than 10 minutes";
            return Err(target.invalid("spec.expirationSeconds", what));
        }
        let number = self.store.next_number();
        let token = format!("issued-token-canary-{number}");
        let user = format!("serviceaccount:{}:{}", account.namespace, account.name);
        self.settings.tokens.insert(token.clone(), user);
        let mut reply = asked.clone();
        reply["kind"] = "TokenRequest".into();
        reply["apiVersion"] = "authentication.k8s.io/v1".into();
        // The server says how long it lives in the spec, whatever was asked for.
        let life = self.settings.token_seconds.unwrap_or(seconds);
        reply["spec"]["expirationSeconds"] = life.into();
        reply["status"] = json!({"token": token, "expirationTimestamp": time_after(Duration::from_secs(life))});
        Ok(Response::json(201, &reply))
    }
}

struct WatchFrames {
    api: Api,
    view: View,
    position: u64,
    ready: VecDeque<Vec<u8>>,
    over: bool,
    deadline: Instant,
    bookmarks: bool,
    next_bookmark: Instant,
    bookmarks_seen: u64,
}

impl WatchFrames {
    fn collect(&mut self, state: &State) {
        match state.store.since(self.position) {
            Some(changes) => {
                self.ready.extend(changes.filter_map(|c| self.view.frame(c)));
                self.position = state.store.version;
            }
            None => {
                self.ready.push_back(line("ERROR", &gone()));
                self.over = true;
            }
        }
        let asked = state.settings.bookmarks_asked;
        let due = Instant::now() >= self.next_bookmark || asked > self.bookmarks_seen;
        if self.bookmarks && due && !self.over {
            self.ready.push_back(self.view.bookmark(self.position, false));
            self.next_bookmark = Instant::now() + state.settings.bookmark_every;
            self.bookmarks_seen = asked;
        }
    }
}

impl Frames for WatchFrames {
    fn next(&mut self, wait: Duration) -> Next {
        let until = Instant::now() + wait;
        let shared = Arc::clone(&self.api.shared);
        let mut state = shared.0.lock().expect("api");
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Next::Frame(frame);
            }
            if self.over || Instant::now() >= self.deadline {
                return Next::End;
            }
            self.collect(&state);
            if !self.ready.is_empty() {
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Next::Idle;
            }
            state = shared.1.wait_timeout(state, left).expect("api").0;
        }
    }
}
