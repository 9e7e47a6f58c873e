//! Watches of ConfigMaps and Secrets: metadata only, one a namespace and kind, there only while some QuarksJob needs it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, error};
use serde::Deserialize;

use crate::api::{CONFIG_KEY_SECRET, Resource, ResourceVersion};
use crate::controller::references::ReferenceKind;
use crate::controller::run::DirtySender;
use crate::controller::trouble::remedy;
use crate::index::SharedIndex;
use crate::kube::Client;
use crate::metrics::Metrics;
use crate::watch::{self, WatchEvent, WatchHandle, WatchSpec};

use super::store::ConfigStore;

/// A watch that nobody needs any more goes after this long: a QuarksJob that is made anew would bring it back at once.
const LINGER: Duration = Duration::from_secs(10);

/// How often it is looked, in memory, what can go or has died.
const RECHECK: Duration = Duration::from_secs(2);

/// All such watches; owned by the controller thread.
#[derive(Debug)]
pub struct ConfigWatches {
    client: Client,
    index: SharedIndex,
    store: Arc<ConfigStore>,
    dirty: DirtySender,
    metrics: Metrics,
    running: Vec<Running>,
    /// What the needs were when it was last looked, and when to look again in any case.
    seen: Option<(u64, Instant)>,
}

#[derive(Debug)]
struct Running {
    namespace: Arc<str>,
    kind: ReferenceKind,
    handle: WatchHandle,
    /// Since when nobody needs it.
    unneeded: Option<Instant>,
}

/// What is kept of an object's metadata.
#[derive(Debug, Deserialize)]
struct Change {
    metadata: Metadata,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    resource_version: ResourceVersion,
}

impl ConfigWatches {
    /// None yet.
    pub fn new(client: Client, index: SharedIndex, store: Arc<ConfigStore>, dirty: DirtySender, metrics: Metrics) -> Self {
        Self { client, index, store, dirty, metrics, running: Vec::new(), seen: None }
    }

    /// Starts what has come to be needed, and ends what has not been for a while.
    pub fn adjust(&mut self, now: Instant) {
        let needed = {
            let index = self.index.read();
            let version = index.needs_version();
            if self.seen.is_some_and(|(seen, until)| seen == version && now < until) {
                return;
            }
            self.seen = Some((version, now + RECHECK));
            index.config_needs()
        };
        let Self { running, store, .. } = self;
        running.retain_mut(|watch| {
            let is_needed = needed.iter().any(|(namespace, kind)| *namespace == watch.namespace && *kind == watch.kind);
            watch.unneeded = if is_needed { None } else { watch.unneeded.or(Some(now)) };
            let is_dead = !watch.handle.health().alive;
            if is_dead {
                error!("watch has ended and is started again namespace={} kind={:?}", watch.namespace, watch.kind);
            }
            let is_kept = !is_dead && watch.unneeded.is_none_or(|since| now < since + LINGER);
            if !is_kept {
                debug!("config watch ends namespace={} kind={:?}", watch.namespace, watch.kind);
                store.unwatched(&watch.namespace, watch.kind);
            }
            is_kept
        });
        for (namespace, kind) in needed {
            if !self.running.iter().any(|watch| watch.namespace == namespace && watch.kind == kind) {
                debug!("config watch starts namespace={namespace} kind={kind:?}");
                let handle = self.start(&namespace, kind);
                self.running.push(Running { namespace, kind, handle, unneeded: None });
            }
        }
    }

    fn start(&self, namespace: &Arc<str>, kind: ReferenceKind) -> WatchHandle {
        let (name, resource) = match kind {
            ReferenceKind::ConfigMap => ("watch-configmaps", Resource::CONFIG_MAPS),
            ReferenceKind::Secret => ("watch-secrets", Resource::SECRETS),
        };
        let spec = WatchSpec {
            namespace: namespace.to_string(),
            metadata_only: true,
            remedy: remedy(&self.index, namespace),
            on_restart: Some(self.metrics.on_restart()),
            ..WatchSpec::new(name, resource)
        };
        let (index, store, dirty, namespace) = (self.index.clone(), Arc::clone(&self.store), self.dirty.clone(), Arc::clone(namespace));
        watch::spawn(&self.client, spec, move |event: WatchEvent<Arc<Change>>| {
            let now = Instant::now();
            let users = match &event {
                WatchEvent::Replaced(_) => {
                    store.replaced(&namespace, kind);
                    let users = index.read().config_users(&namespace, kind, None);
                    users.iter().for_each(|key| store.mark_unknown(key, now));
                    users
                }
                WatchEvent::Applied(object) => {
                    changed(&index, &store, &namespace, kind, &object.metadata.name, Some(&object.metadata.resource_version), now)
                }
                WatchEvent::Deleted(object) => changed(&index, &store, &namespace, kind, &object.metadata.name, None, now),
            };
            match dirty.send(&index, users) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        })
    }
}

/// The QuarksJobs that have to look because an object is now at `version`, or gone.
fn changed(
    index: &SharedIndex,
    store: &ConfigStore,
    namespace: &str,
    kind: ReferenceKind,
    name: &str,
    version: Option<&ResourceVersion>,
    now: Instant,
) -> Vec<crate::api::ObjectKey> {
    if kind == ReferenceKind::Secret && name == CONFIG_KEY_SECRET && store.key_changed(namespace, version) {
        // Every digest of the namespace is worthless.
        let index = index.read();
        let users: Vec<_> =
            [ReferenceKind::ConfigMap, ReferenceKind::Secret].iter().flat_map(|kind| index.config_users(namespace, *kind, None)).collect();
        users.iter().for_each(|key| store.mark_unknown(key, now));
        return users;
    }
    if !store.changed(namespace, kind, name, version) {
        return Vec::new();
    }
    let users = index.read().config_users(namespace, kind, Some(name));
    users.iter().for_each(|key| store.mark(key, now));
    users
}
