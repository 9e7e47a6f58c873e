//! Every write that the operator can make, and nothing else: one enum, turned into a request by one function.
//!
//! Wherever the API allows it, a write carries a precondition (resourceVersion or UID), so that a decision based on old knowledge
//! is rejected instead of applied. The exceptions are creates, whose names are deterministic.

use serde_json::{Value, json};

use crate::api::{ANNOTATION_SETTLED, Event, ObjectKey, OwnerReference, QuarksJobStatus, Resource, ResourceVersion, Secret, Strategy, Uid};
use crate::contract::record::Marker;
use crate::kube::{DeleteOptions, Propagation, Request};

use super::status::patch_body;

/// One write.
#[derive(Debug)]
pub enum Action<'a> {
    /// Create the Job of a run.
    CreateJob {
        /// Its namespace.
        namespace: &'a str,
        /// The whole Job.
        job: &'a Value,
    },
    /// The commit point of a run: marker and strategy together, if the QuarksJob is still at `version`.
    Settle {
        /// The QuarksJob.
        key: &'a ObjectKey,
        /// The version that the decision was based on.
        version: &'a ResourceVersion,
        /// Its UID, which goes into the marker.
        uid: &'a Uid,
        /// The new marker.
        marker: &'a Marker,
        /// The new strategy, if it changes.
        strategy: Option<Strategy>,
    },
    /// Write the status, if the QuarksJob is still at `version`.
    WriteStatus {
        /// The QuarksJob.
        key: &'a ObjectKey,
        /// The version that the decision was based on.
        version: &'a ResourceVersion,
        /// The whole new status.
        status: &'a QuarksJobStatus,
    },
    /// Delete one of our Jobs.
    DeleteJob {
        /// The Job.
        key: &'a ObjectKey,
        /// Only this one.
        uid: &'a Uid,
        /// Only as it was then, if given.
        version: Option<&'a ResourceVersion>,
        /// What happens to its pods.
        propagation: Propagation,
    },
    /// Set the TTL of a failed Job, which was held back.
    ReleaseTtl {
        /// The Job.
        key: &'a ObjectKey,
        /// Only this one.
        uid: &'a Uid,
        /// Seconds.
        seconds: i64,
    },
    /// Set a pod's owners, so that it outlives its Job and is deleted with its QuarksJob.
    SetPodOwners {
        /// The pod.
        key: &'a ObjectKey,
        /// Only this one.
        uid: &'a Uid,
        /// All owners.
        owners: &'a [OwnerReference],
    },
    /// Delete a pod that was kept for its logs.
    DeletePod {
        /// The pod.
        key: &'a ObjectKey,
        /// Only this one.
        uid: &'a Uid,
    },
    /// Create one of the operator's two Secrets.
    CreateSecret(&'a Secret),
    /// Request a token of a service account, bound to a Secret.
    RequestToken {
        /// The service account.
        account: &'a ObjectKey,
        /// Name of the Secret that the token is bound to.
        secret: &'a str,
        /// UID of that Secret.
        secret_uid: &'a Uid,
        /// Lifetime of the token in seconds.
        seconds: u32,
    },
    /// Put a token into its Secret.
    StoreToken {
        /// The Secret.
        key: &'a ObjectKey,
        /// Only this one.
        uid: &'a Uid,
        /// Base64 of the token.
        token: &'a str,
        /// Annotations that say for whom and until when.
        annotations: &'a Value,
    },
    /// Delete the Secret with the sidecar's token.
    DeleteSecret {
        /// The Secret.
        key: &'a ObjectKey,
        /// Only this one.
        uid: &'a Uid,
    },
    /// Delete a version beyond `keepVersions`.
    DeleteVersion {
        /// The Secret.
        key: &'a ObjectKey,
        /// Only this one.
        uid: &'a Uid,
    },
    /// Post an Event on a QuarksJob.
    CreateEvent(&'a Event),
    /// Update the count of a repeated Event.
    CountEvent {
        /// The Event.
        key: &'a ObjectKey,
        /// How often in all.
        count: u32,
        /// RFC 3339 with microseconds.
        last_seen: &'a str,
    },
}

impl Action<'_> {
    /// The request that carries it out.
    pub fn request(&self) -> Request {
        match self {
            // `Warn` is what kubectl sends: unknown fields come back as warnings and not as silence.
            Self::CreateJob { namespace, job } => Request::create(Resource::JOBS, namespace, job).with_query("fieldValidation", "Warn"),
            Self::Settle { key, version, uid, marker, strategy } => {
                let mut body = json!({"metadata": {"resourceVersion": version, "annotations": {ANNOTATION_SETTLED: marker.encode(uid)}}});
                if let Some(strategy) = strategy {
                    body["spec"] = json!({"trigger": {"strategy": strategy}});
                }
                Request::merge_patch(Resource::QUARKS_JOBS, key, &body)
            }
            Self::WriteStatus { key, version, status } => Request::merge_patch_status(key, &patch_body(status, version)),
            Self::DeleteJob { key, uid, version, propagation } => {
                let options = DeleteOptions { uid: Some((*uid).clone()), resource_version: version.cloned(), propagation: *propagation };
                Request::delete(Resource::JOBS, key, &options)
            }
            Self::ReleaseTtl { key, uid, seconds } => {
                let body = json!({"metadata": {"uid": uid}, "spec": {"ttlSecondsAfterFinished": seconds}});
                Request::merge_patch(Resource::JOBS, key, &body)
            }
            Self::SetPodOwners { key, uid, owners } => {
                let body = json!({"metadata": {"uid": uid, "ownerReferences": owners}});
                Request::merge_patch(Resource::PODS, key, &body)
            }
            Self::DeletePod { key, uid } => Request::delete(Resource::PODS, key, &delete_options(uid)),
            Self::CreateSecret(secret) => Request::create(Resource::SECRETS, &secret.metadata.namespace, secret),
            Self::RequestToken { account, secret, secret_uid, seconds } => {
                let body = json!({
                    "apiVersion": "authentication.k8s.io/v1",
                    "kind": "TokenRequest",
                    "spec": {
                        "expirationSeconds": seconds,
                        "boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": secret, "uid": secret_uid},
                    },
                });
                Request::create_token(account, &body)
            }
            Self::StoreToken { key, uid, token, annotations } => {
                let body = json!({"metadata": {"uid": uid, "annotations": annotations}, "data": {"token": token}});
                Request::merge_patch(Resource::SECRETS, key, &body)
            }
            Self::DeleteSecret { key, uid } | Self::DeleteVersion { key, uid } => {
                Request::delete(Resource::SECRETS, key, &delete_options(uid))
            }
            Self::CreateEvent(event) => Request::create(Resource::EVENTS, &event.metadata.namespace, event),
            Self::CountEvent { key, count, last_seen } => {
                let body = json!({"series": {"count": count, "lastObservedTime": last_seen}});
                Request::merge_patch(Resource::EVENTS, key, &body)
            }
        }
    }
}

fn delete_options(uid: &Uid) -> DeleteOptions {
    DeleteOptions { uid: Some(uid.clone()), resource_version: None, propagation: Propagation::Background }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(action: &Action<'_>) -> (String, Value) {
        let request = action.request();
        let (_, bytes) = request.body.as_ref().expect("has a body");
        (format!("{} {}", request.method.as_str(), request.path), serde_json::from_slice(bytes).expect("JSON"))
    }

    #[test]
    fn settling_is_one_patch_with_a_version() {
        let key = ObjectKey::new("ns", "q");
        let (uid, marker) = (Uid::from("u"), Marker { runs: 1, ..Marker::default() });
        let version = ResourceVersion::from("7");
        let (line, body) =
            body(&Action::Settle { key: &key, version: &version, uid: &uid, marker: &marker, strategy: Some(Strategy::Manual) });
        assert_eq!(line, "PATCH /apis/quarks.cloudfoundry.org/v1alpha1/namespaces/ns/quarksjobs/q");
        assert_eq!(body["metadata"]["resourceVersion"], "7");
        assert_eq!(body["spec"], json!({"trigger": {"strategy": "manual"}}));
        assert_eq!(body["metadata"]["annotations"][ANNOTATION_SETTLED], marker.encode(&uid));
        let unchanged = Action::Settle { key: &key, version: &version, uid: &uid, marker: &marker, strategy: None };
        assert!(self::body(&unchanged).1.get("spec").is_none());
    }

    #[test]
    fn jobs_are_deleted_by_uid_with_explicit_propagation() {
        let (key, uid) = (ObjectKey::new("ns", "j"), Uid::from("u"));
        for (propagation, word) in [(Propagation::Background, "Background"), (Propagation::Orphan, "Orphan")] {
            let (_, body) = body(&Action::DeleteJob { key: &key, uid: &uid, version: None, propagation });
            assert_eq!((&body["preconditions"]["uid"], &body["propagationPolicy"]), (&json!("u"), &json!(word)));
        }
    }

    #[test]
    fn tokens_are_bound_to_their_secret() {
        let (account, uid) = (ObjectKey::new("ns", "a"), Uid::from("u"));
        let (line, body) = body(&Action::RequestToken { account: &account, secret: "s", secret_uid: &uid, seconds: 3_600 });
        assert_eq!(line, "POST /api/v1/namespaces/ns/serviceaccounts/a/token");
        assert_eq!(body["spec"]["boundObjectRef"]["uid"], "u");
    }
}
