//! I10: what the real requests do to an object is what the model does, and nothing of a user's changes but the strategy.
//!
//! Costs JSON, so it is asked for in a few sequences only.

use serde_json::{Value, json};

use super::ledger::Ledger;
use crate::api::{ANNOTATION_SETTLED, QuarksJob};
use crate::controller::shared::action::Action;

fn as_json(object: &QuarksJob) -> Value {
    let status = serde_json::to_value(&object.status).expect("a status serializes");
    json!({"metadata": object.metadata, "spec": object.spec, "status": status})
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else { return target.clone_from(patch) };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            target.as_object_mut().expect("is one").remove(name);
        } else {
            merge(&mut target[name.as_str()], value);
        }
    }
}

fn without_the_servers(object: &mut Value) {
    let metadata = object["metadata"].as_object_mut().expect("is one");
    metadata.remove("generation");
    metadata.remove("resourceVersion");
}

impl Ledger {
    /// `old` and `new` as the model has them; `action` is the real write in between.
    pub fn patched(&mut self, old: &QuarksJob, new: &QuarksJob, action: &Action<'_>) {
        let request = action.request();
        let Some((_, body)) = request.body.as_ref() else { return self.fail("I10", || "a write without a body".to_owned()) };
        let patch: Value = serde_json::from_slice(body).expect("a patch is JSON");
        let mut patched = as_json(old);
        merge(&mut patched, &patch);
        let mut expected = as_json(new);
        for meta in [&mut patched, &mut expected] {
            without_the_servers(meta);
        }
        if patched != expected {
            self.fail("I10", || format!("{patch} makes {patched} and not {expected}"));
        }
        let mut of_user = [as_json(old), patched];
        for object in &mut of_user {
            object["status"] = Value::Null;
            object["spec"]["trigger"]["strategy"] = Value::Null;
            object["metadata"]["annotations"][ANNOTATION_SETTLED] = Value::Null;
            without_the_servers(object);
        }
        if of_user[0] != of_user[1] {
            self.fail("I10", || format!("{patch} changes what users wrote"));
        }
    }
}
