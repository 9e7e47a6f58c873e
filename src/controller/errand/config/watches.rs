//! Watches of ConfigMaps and Secrets: metadata only, one per namespace and kind, running only while some QuarksJob needs it.
//!
//! The work of `adjust` grows with the watches that have changed, not with those that exist.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use log::{debug, error};
use serde::Deserialize;

use crate::api::{CONFIG_KEY_SECRET, Resource, ResourceVersion};
use crate::controller::dispatch::KeySender;
use crate::controller::shared::trouble::remedy;
use crate::index::{ConfigNeed, SharedIndex};
use crate::kube::Client;
use crate::metrics::Metrics;
use crate::rules::references::ReferenceKind;
use crate::watch::{self, OnEnd, WatchEvent, WatchHandle, WatchSpec};

use super::store::ConfigStore;

/// An unused watch is stopped after this long: a re-created QuarksJob would need it again at once.
const LINGER: Duration = Duration::from_secs(10);

/// All such watches; owned by `ctl-errand`.
#[derive(Debug)]
pub struct ConfigWatches {
    client: Client,
    index: SharedIndex,
    store: Arc<ConfigStore>,
    dirty: KeySender,
    metrics: Metrics,
    running: HashMap<ConfigNeed, WatchHandle>,
    unneeded: Unneeded,
    /// Some watch has stopped unexpectedly.
    has_ended: Arc<AtomicBool>,
}

/// Unused watches, and when they are stopped.
#[derive(Debug, Default)]
struct Unneeded(Vec<(ConfigNeed, Instant)>);

impl Unneeded {
    /// Nobody needs this one since `now`, if that is news.
    fn add(&mut self, need: ConfigNeed, now: Instant) {
        if !self.contains(&need) {
            self.0.push((need, now + LINGER));
        }
    }

    /// Somebody needs it again.
    fn remove(&mut self, need: &ConfigNeed) {
        self.0.retain(|(unneeded, _)| unneeded != need);
    }

    fn contains(&self, need: &ConfigNeed) -> bool {
        self.0.iter().any(|(unneeded, _)| unneeded == need)
    }

    /// Those that go now.
    fn take(&mut self, now: Instant) -> Vec<ConfigNeed> {
        let (due, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.0).into_iter().partition(|(_, at)| *at <= now);
        self.0 = left;
        due.into_iter().map(|(need, _)| need).collect()
    }
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
    pub fn new(client: Client, index: SharedIndex, store: Arc<ConfigStore>, dirty: KeySender, metrics: Metrics) -> Self {
        let (running, unneeded, has_ended) = (HashMap::new(), Unneeded::default(), Arc::default());
        Self { client, index, store, dirty, metrics, running, unneeded, has_ended }
    }

    /// Starts what has come to be needed, and ends what has not been for a while.
    pub fn adjust(&mut self, now: Instant) {
        // Asked first, since the answer costs the writers of the index something.
        if self.index.read().has_changed_needs() {
            let changed = self.index.write().take_changed_needs();
            for (need, is_needed) in changed {
                match (is_needed, self.running.contains_key(&need)) {
                    (true, true) => self.unneeded.remove(&need),
                    (true, false) => self.start(need),
                    (false, true) => self.unneeded.add(need, now),
                    (false, false) => {}
                }
            }
        }
        for need in self.unneeded.take(now) {
            self.end(&need);
        }
        if self.has_ended.swap(false, Ordering::AcqRel) {
            self.revive();
        }
    }

    fn start(&mut self, need: ConfigNeed) {
        debug!(namespace:% = need.0, kind:? = need.1; "config watch started");
        let handle = self.spawn(&need.0, need.1);
        self.running.insert(need, handle);
    }

    fn end(&mut self, need: &ConfigNeed) {
        if self.running.remove(need).is_some() {
            debug!(namespace:% = need.0, kind:? = need.1; "config watch stopped");
            self.store.unwatched(&need.0, need.1);
        }
    }

    /// Starts those that have died again.
    fn revive(&mut self) {
        let dead: Vec<_> = self.running.iter().filter(|(_, handle)| !handle.health().alive).map(|(need, _)| need.clone()).collect();
        for need in dead {
            error!(namespace:% = need.0, kind:? = need.1; "watch stopped unexpectedly; restarting it");
            self.end(&need);
            if !self.unneeded.contains(&need) {
                self.start(need);
            }
        }
    }

    fn spawn(&self, namespace: &Arc<str>, kind: ReferenceKind) -> WatchHandle {
        let (name, resource) = match kind {
            ReferenceKind::ConfigMap => ("watch-configmaps", Resource::CONFIG_MAPS),
            ReferenceKind::Secret => ("watch-secrets", Resource::SECRETS),
        };
        let has_ended = Arc::clone(&self.has_ended);
        let on_end: OnEnd = Arc::new(move || has_ended.store(true, Ordering::Release));
        let spec = WatchSpec {
            namespace: namespace.to_string(),
            metadata_only: true,
            changes_only: true,
            remedy: remedy(&self.index, namespace),
            on_restart: Some(self.metrics.on_restart()),
            on_end: Some(on_end),
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
                WatchEvent::Deleted(key) => changed(&index, &store, &namespace, kind, &key.name, None, now),
            };
            match dirty.due(users) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_nobody_needs_goes_after_a_while_unless_it_is_needed_again() {
        let need = |name: &str| (Arc::from(name), ReferenceKind::Secret);
        let (mut unneeded, start) = (Unneeded::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        unneeded.add(need("a"), start);
        unneeded.add(need("b"), start);
        // Repeated, it changes nothing.
        unneeded.add(need("a"), after(9));
        unneeded.remove(&need("b"));
        assert!(unneeded.take(after(9)).is_empty());
        assert_eq!(unneeded.take(after(10)), [need("a")]);
        assert!(unneeded.take(after(100)).is_empty());
    }
}
