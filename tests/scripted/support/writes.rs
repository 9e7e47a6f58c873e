//! Writing to the in-memory API server: create, update, delete with dependents. Preconditions and their status codes follow the real server, where tests rely on them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::api::{Answer, State, Target, bad_request, has_finalizers, text};
use super::http::Response;
use super::store::{Key, now};

/// Kinds whose main resource ignores `status`, and whose `status` subresource ignores all else.
const WITH_STATUS: [&str; 7] = [
    "quarks.cloudfoundry.org/quarksjobs",
    "quarks.cloudfoundry.org/extendedjobs",
    "batch/jobs",
    "/pods",
    "/namespaces",
    "/nodes",
    "apiextensions.k8s.io/customresourcedefinitions",
];

impl State {
    pub(super) fn create(&mut self, target: &Target, mut object: Value, keep_status: bool) -> Answer<Arc<Value>> {
        let mut target = target.clone();
        let meta = object["metadata"].as_object().cloned().unwrap_or_default();
        let namespace = meta.get("namespace").and_then(Value::as_str);
        if namespace.is_some_and(|namespace| namespace != target.key.namespace) {
            return Err(bad_request("the namespace of the object does not match the request"));
        }
        if meta.contains_key("resourceVersion") && !keep_status {
            return Err(bad_request("resourceVersion should not be set on objects to be created"));
        }
        let number = self.store.next_number();
        let name = match text(&object, "/metadata/name") {
            "" => match text(&object, "/metadata/generateName") {
                "" => String::new(),
                prefix => format!("{prefix}{number:05}"),
            },
            name => name.to_owned(),
        };
        target.key.name.clone_from(&name);
        if !is_name(&name) {
            return Err(target.invalid("metadata.name", "Invalid value: a DNS subdomain is needed"));
        }
        self.check_namespace(&target)?;
        if self.store.get(&target.key).is_some() {
            return Err(target.fail(409, "AlreadyExists", "already exists"));
        }
        let uid = format!("00000000-0000-4000-8000-{number:012x}");
        let meta = &mut object["metadata"];
        meta["name"] = name.into();
        if !target.key.namespace.is_empty() {
            meta["namespace"] = target.key.namespace.as_str().into();
        }
        meta["uid"] = uid.as_str().into();
        meta["creationTimestamp"] = now().into();
        meta["generation"] = 1.into();
        object["apiVersion"] = target.api_version().into();
        object["kind"] = target.kind().into();
        if WITH_STATUS.contains(&target.key.resource.as_str()) && !keep_status {
            remove(&mut object, "status");
        }
        match target.key.resource.as_str() {
            "batch/jobs" => default_job(&mut object, &uid),
            "/secrets" => take_string_data(&mut object),
            "/namespaces" => object["status"] = json!({"phase": "Active"}),
            "apiextensions.k8s.io/customresourcedefinitions" => {
                object["status"] = json!({"conditions": [
                    {"type": "NamesAccepted", "status": "True"}, {"type": "Established", "status": "True"}]});
            }
            _ => {}
        }
        Ok(self.store.put(&target.key, object))
    }

    fn check_namespace(&self, target: &Target) -> Answer<()> {
        if target.key.namespace.is_empty() {
            return Ok(());
        }
        let key = namespace_key(&target.key.namespace);
        match self.store.get(&key) {
            None => {
                let message = format!("namespaces \"{}\" not found", key.name);
                let details = json!({"name": key.name, "kind": "namespaces"});
                Err(Response::failure(404, "NotFound", &message, details))
            }
            Some(namespace) if !text(namespace, "/metadata/deletionTimestamp").is_empty() => {
                let what = "cannot be created because its namespace is being terminated";
                Err(target.fail(403, "Forbidden", what))
            }
            Some(_) => Ok(()),
        }
    }

    /// PUT when `whole`, else PATCH: they differ in what a foreign UID answers (409 and 422).
    pub(super) fn update(&mut self, target: &Target, whole: bool, change: impl FnOnce(&Value) -> Value) -> Answer<Arc<Value>> {
        let Some(old) = self.store.get(&target.key).cloned() else {
            // As the real server: a PUT with a UID to something that is gone is a conflict.
            let foreign = whole && !text(&change(&Value::Null), "/metadata/uid").is_empty();
            return Err(if foreign {
                target.fail(409, "Conflict", "Precondition failed: UID in precondition")
            } else {
                target.not_found()
            });
        };
        let mut new = change(&old);
        let differs = |pointer: &str| {
            let wanted = text(&new, pointer);
            !wanted.is_empty() && wanted != text(&old, pointer)
        };
        if differs("/metadata/name") || differs("/metadata/namespace") {
            return Err(bad_request("the name of the object does not match the URL"));
        }
        if differs("/metadata/resourceVersion") {
            let what = "the object has been modified; please apply your changes to the latest version and try again";
            return Err(target.fail(409, "Conflict", what));
        }
        if differs("/metadata/uid") {
            return Err(if whole {
                target.fail(409, "Conflict", "Precondition failed: UID in precondition")
            } else {
                target.invalid("metadata.uid", "field is immutable")
            });
        }
        if target.sub == "status" {
            let status = new["status"].take();
            new = Value::clone(&old);
            set(&mut new, "status", &status);
        } else if WITH_STATUS.contains(&target.key.resource.as_str()) {
            set(&mut new, "status", &old["status"]);
        }
        for field in ["apiVersion", "kind"] {
            set(&mut new, field, &old[field]);
        }
        for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "generation", "resourceVersion"] {
            set(&mut new["metadata"], field, &old["metadata"][field]);
        }
        if target.key.resource == "/secrets" {
            take_string_data(&mut new);
            if old["immutable"] == json!(true) && (new["data"] != old["data"] || new["immutable"] != json!(true)) {
                return Err(target.invalid("data", "field is immutable when `immutable` is set"));
            }
        }
        if new == *old {
            return Ok(old);
        }
        if new["spec"] != old["spec"] {
            let generation = old["metadata"]["generation"].as_u64().unwrap_or(0);
            new["metadata"]["generation"] = (generation + 1).into();
        }
        let ends = !text(&old, "/metadata/deletionTimestamp").is_empty() && !has_finalizers(&new);
        let stored = self.store.put(&target.key, new);
        if ends {
            self.remove(&target.key);
        }
        Ok(stored)
    }

    pub(super) fn delete(&mut self, target: &Target, options: &Value) -> Answer<Response> {
        let old = self.store.get(&target.key).cloned();
        let old = old.ok_or_else(|| target.not_found())?;
        for (field, name) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
            let wanted = text(options, &format!("/preconditions/{field}"));
            let is = text(&old, &format!("/metadata/{field}"));
            if !wanted.is_empty() && wanted != is {
                let what = format!("Precondition failed: {name} in precondition: {wanted}, {name} in object meta: {is}");
                return Err(target.fail(409, "Conflict", &what));
            }
        }
        let uid = text(&old, "/metadata/uid").to_owned();
        let policy = match text(options, "/propagationPolicy") {
            "" if target.key.resource == "batch/jobs" => "Orphan",
            policy => policy,
        };
        if has_finalizers(&old) {
            let mut marked = Value::clone(&old);
            if text(&old, "/metadata/deletionTimestamp").is_empty() {
                marked["metadata"]["deletionTimestamp"] = now().into();
                marked["metadata"]["deletionGracePeriodSeconds"] = 0.into();
                self.store.put(&target.key, marked.clone());
            }
            self.dependents(&uid, policy == "Orphan");
            return Ok(Response::json(200, &marked));
        }
        self.remove(&target.key);
        self.dependents(&uid, policy == "Orphan");
        let details = json!({"name": target.key.name, "group": target.group(),
            "kind": target.plural(), "uid": uid});
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
            "status": "Success", "details": details});
        Ok(Response::json(200, &status))
    }

    /// Removes an object; a namespace takes all that is in it along.
    fn remove(&mut self, key: &Key) {
        self.store.remove(key);
        if key.resource == "/namespaces" {
            let inside = self.store.list("", &key.name);
            let inside: Vec<Key> = inside.map(|(key, _)| key.clone()).collect();
            for key in inside {
                self.store.remove(&key);
            }
        }
    }

    /// Deletes what this owner leaves without any owner, or only takes the reference away.
    fn dependents(&mut self, owner: &str, orphan: bool) {
        let owned = |object: &Value| owners(object).contains(&owner);
        let all = self.store.list("", "").filter(|(_, object)| owned(object));
        let found: Vec<(Key, Value)> = all.map(|(k, o)| (k.clone(), Value::clone(o))).collect();
        for (key, mut object) in found {
            if let Some(list) = object["metadata"]["ownerReferences"].as_array_mut() {
                list.retain(|reference| reference["uid"] != json!(owner));
            }
            let alone = owners(&object).is_empty();
            if orphan || !alone {
                if alone {
                    remove(&mut object["metadata"], "ownerReferences");
                }
                self.store.put(&key, object);
            } else if has_finalizers(&object) {
                object["metadata"]["deletionTimestamp"] = now().into();
                self.store.put(&key, object);
            } else {
                self.remove(&key);
                self.dependents(text(&object, "/metadata/uid"), false);
            }
        }
    }
}

pub(super) fn namespace_key(name: &str) -> Key {
    Key { resource: "/namespaces".to_owned(), namespace: String::new(), name: name.to_owned() }
}

fn owners(object: &Value) -> Vec<&str> {
    let list = object["metadata"]["ownerReferences"].as_array();
    let uids = list.into_iter().flatten();
    uids.map(|reference| text(reference, "/uid")).collect()
}

fn remove(object: &mut Value, field: &str) {
    if let Some(map) = object.as_object_mut() {
        map.remove(field);
    }
}

/// Sets the field, or removes it when the value is null.
fn set(object: &mut Value, field: &str, value: &Value) {
    if value.is_null() {
        remove(object, field);
    } else {
        object[field] = value.clone();
    }
}

fn is_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | ':');
    !name.is_empty() && name.len() <= 253 && name.chars().all(inner) && !name.starts_with(['-', '.']) && !name.ends_with(['-', '.'])
}

fn take_string_data(secret: &mut Value) {
    use base64::Engine;
    let Some(Value::Object(strings)) = secret.get("stringData").cloned() else {
        return;
    };
    for (key, value) in strings {
        let bytes = value.as_str().unwrap_or("").as_bytes().to_vec();
        let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
        secret["data"][key] = encoded.into();
    }
    remove(secret, "stringData");
}

/// What the real server fills in and operators can stumble over.
fn default_job(job: &mut Value, uid: &str) {
    let name = text(job, "/metadata/name").to_owned();
    let spec = &mut job["spec"];
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        spec["completions"] = 1.into();
    }
    for (field, value) in
        [("parallelism", json!(1)), ("backoffLimit", json!(6)), ("completionMode", json!("NonIndexed")), ("suspend", json!(false))]
    {
        if spec[field].is_null() {
            spec[field] = value;
        }
    }
    spec["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
    let labels = &mut spec["template"]["metadata"]["labels"];
    for prefix in ["", "batch.kubernetes.io/"] {
        labels[format!("{prefix}controller-uid")] = uid.into();
        labels[format!("{prefix}job-name")] = name.as_str().into();
    }
}
