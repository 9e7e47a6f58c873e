//! The calls that the sidecar makes, as a trait so that tests can script them, and their real form.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::api::{LABEL_SECRET_KIND, ObjectKey, ObjectMeta, QuarksJobHead, Resource, Uid};
use crate::contract::version::VERSIONED_KIND;
use crate::kube::pages::{Listed, list_all};
use crate::kube::{Client, Request, Result};
use crate::moment::Moment;
use crate::persist::environment::Environment;
use crate::persist::input::files::FILE_LIMIT;
use crate::persist::pod::watch::first_pod;
use crate::persist::secret::bodies::{ChangedSecret, LiveSecret, NewSecret};
use crate::persist::secret::versions::{Found, note};
use crate::until::Until;

/// Longest silence while the pod's state is read.
const POD_LOOK: Duration = Duration::from_secs(10);

/// All that the sidecar asks of the API server, beside its watch of the pod.
pub trait Api {
    /// Now, on a clock that keeps running while the machine sleeps.
    fn now(&self) -> Moment;
    /// Until then, and no longer, creates and updates are sent; else they fail with [`Error::Fenced`](crate::kube::Error).
    fn allow_writes(&self, until: Moment);
    /// The QuarksJob.
    fn owner(&self) -> Result<QuarksJobHead>;
    /// True if our own pod exists and is not being deleted.
    fn is_pod_kept(&self) -> Result<bool>;
    /// Log of a container of our own pod, of its last start; at most [`FILE_LIMIT`] bytes.
    fn log(&self, container: &str) -> Result<Vec<u8>>;
    /// A Secret.
    fn read(&self, name: &str) -> Result<LiveSecret>;
    /// Creates a Secret.
    fn create(&self, secret: &NewSecret<'_>) -> Result<()>;
    /// Sends a Secret back; the resourceVersion in it is the precondition.
    fn update(&self, secret: &ChangedSecret<'_>) -> Result<()>;
    /// Looks for the versions of each of these names; with `all` also for other Secrets that are called so.
    fn find_versions(&self, found: &mut Found<'_>, all: bool) -> Result<()>;
}

/// The real one.
pub struct KubeApi {
    client: Client,
    pod: ObjectKey,
    pod_uid: Uid,
    quarks_job: String,
    writes: Until,
}

impl KubeApi {
    /// Speaks of our own pod, of one QuarksJob, and of Secrets in their namespace. `writes` is the client's fence.
    pub fn new(client: Client, environment: &Environment, writes: Until) -> Self {
        let Environment { pod, pod_uid, plan, .. } = environment;
        Self { client, pod: pod.clone(), pod_uid: pod_uid.clone(), quarks_job: plan.quarks_job.clone(), writes }
    }

    fn key(&self, name: &str) -> ObjectKey {
        ObjectKey::new(self.pod.namespace.clone(), name)
    }

    fn call<T: DeserializeOwned>(&self, request: &Request) -> Result<T> {
        self.client.call(request)
    }
}

/// An object of which only the metadata came.
#[derive(Deserialize)]
struct MetadataOnly {
    metadata: ObjectMeta,
}

/// Calls back for each versioned Secret of a namespace; `None`: the list restarts, and what came before does not count. No
/// content comes over the wire.
pub fn each_version(client: &Client, namespace: &str, tell: &mut dyn FnMut(Option<&ObjectMeta>)) -> Result<()> {
    each_secret(client, namespace, false, tell)
}

/// The same; with `all` of each Secret, versioned or not.
fn each_secret(client: &Client, namespace: &str, all: bool, tell: &mut dyn FnMut(Option<&ObjectMeta>)) -> Result<()> {
    let mut request = Request::list(Resource::SECRETS, namespace).metadata_only();
    if !all {
        request = request.label_selector(&format!("{LABEL_SECRET_KIND}={VERSIONED_KIND}"));
    }
    list_all(client, request, &mut |listed| {
        match listed {
            Listed::Begin => tell(None),
            Listed::Object(json) => tell(Some(&crate::json::from_slice::<MetadataOnly>(json)?.metadata)),
        }
        Ok(())
    })
}

impl Api for KubeApi {
    fn now(&self) -> Moment {
        Moment::now()
    }

    fn allow_writes(&self, until: Moment) {
        self.writes.set(until);
    }

    fn owner(&self) -> Result<QuarksJobHead> {
        self.call(&Request::get(Resource::QUARKS_JOBS, &self.key(&self.quarks_job)))
    }

    fn is_pod_kept(&self) -> Result<bool> {
        // By a watch that ends at once: the account may watch pods and not get them. Without a version it starts with the newest state.
        let request = Request::watch(Resource::PODS, &self.pod.namespace, &"".into(), 1).metadata_only();
        let body = self.client.open(&request.field_selector(&format!("metadata.name={}", self.pod.name)), POD_LOOK)?;
        let pod = first_pod(body).map_err(|error| self.client.read_error("watch", Resource::PODS, &error))?;
        Ok(pod.is_some_and(|pod| pod.metadata.uid == self.pod_uid && !pod.metadata.is_being_deleted()))
    }

    fn log(&self, container: &str) -> Result<Vec<u8>> {
        // One byte more than is taken, so that the server need not send the rest of a log that is too large.
        let request = Request::pod_log(&self.pod, container).with_query("limitBytes", (FILE_LIMIT + 1).to_string());
        self.client.call_text(&request, usize::try_from(FILE_LIMIT).unwrap_or(usize::MAX))
    }

    fn read(&self, name: &str) -> Result<LiveSecret> {
        self.call(&Request::get(Resource::SECRETS, &self.key(name)))
    }

    fn create(&self, secret: &NewSecret<'_>) -> Result<()> {
        self.client.call_unit(&Request::create(Resource::SECRETS, &self.pod.namespace, secret))
    }

    fn update(&self, secret: &ChangedSecret<'_>) -> Result<()> {
        self.client.call_unit(&Request::update(Resource::SECRETS, &self.key(&secret.metadata.name), secret))
    }

    fn find_versions(&self, found: &mut Found<'_>, all: bool) -> Result<()> {
        // A restarted list may only raise what is known: a number is not used twice.
        each_secret(&self.client, &self.pod.namespace, all, &mut |meta| meta.into_iter().for_each(|meta| note(found, meta)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::kube::config::Auth;
    use crate::kube::scripted::{Reply, Script};
    use crate::kube::{Answer, ClientOptions};
    use crate::persist::secret::versions::Numbers;

    fn api(script: &Script) -> KubeApi {
        let client = Client::with_transport(Arc::new(script.clone()), &Auth::None, ClientOptions::default());
        let plan = json!({"quarksJob": "q", "uid": "u", "run": 1});
        KubeApi::new(client, &Environment::for_tests(plan, std::path::Path::new("/")), Until::default())
    }

    #[test]
    fn only_a_list_says_that_there_are_no_versions() {
        for (body, is_list) in [
            (json!({"metadata": {"resourceVersion": "1"}, "items": []}), true),
            (json!({"metadata": {"resourceVersion": "1"}, "items": null}), true),
            (json!({"metadata": {}}), false),
            (json!({"items": []}), false),
            (json!({"status": "ok"}), false),
        ] {
            let found = api(&Script::new([Reply::json(200, &body)])).find_versions(&mut Found::from([("s", Numbers::default())]), false);
            assert_eq!(found.map_err(|error| error.answer()), if is_list { Ok(()) } else { Err(Answer::OnTheWay) }, "{body}");
        }
    }

    #[test]
    fn a_list_begins_anew_once() {
        let first = || Reply::json(200, &json!({"metadata": {"resourceVersion": "1", "continue": "more"}, "items": []}));
        let expired = || Reply::json(410, &json!({"kind": "Status", "apiVersion": "v1", "reason": "Expired", "code": 410}));
        let replies = (0..5).flat_map(|_| [first(), expired()]);
        let script = Script::new(replies);
        assert!(api(&script).find_versions(&mut Found::from([("s", Numbers::default())]), false).expect_err("it ends").is_gone());
        assert_eq!(script.seen().len(), 4);
    }
}
