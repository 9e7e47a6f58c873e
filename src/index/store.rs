//! The store. Each change returns the keys of the QuarksJobs that must be looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{JobView, NamespaceView, QuarksJobView};
use crate::api::{ObjectKey, Uid};
use crate::controller::references::{Reference, ReferenceKind};
use crate::controller::versions::may_be_version_of;
use crate::watch::WatchEvent;

/// One event of one watch.
#[derive(Debug)]
pub enum Change {
    /// From the watch of QuarksJobs.
    QuarksJob(WatchEvent<Arc<QuarksJobView>>),
    /// From the watch of Jobs.
    Job(WatchEvent<Arc<JobView>>),
    /// From the watch of Namespaces.
    Namespace(WatchEvent<Arc<NamespaceView>>),
}

/// The kinds that nothing can be decided without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    QuarksJobs,
    Jobs,
    Namespaces,
}

/// Extracts of all objects that the operator watches.
#[derive(Debug)]
pub struct Index {
    monitored_id: String,
    quarks_jobs: BTreeMap<ObjectKey, Arc<QuarksJobView>>,
    jobs: BTreeMap<ObjectKey, Arc<JobView>>,
    /// Keys of the Jobs of each QuarksJob: exactly the entries of `jobs`, by owner.
    jobs_by_owner: HashMap<Uid, Vec<ObjectKey>>,
    namespaces: BTreeMap<Arc<str>, Arc<NamespaceView>>,
    /// How many QuarksJobs of a namespace need a watch of ConfigMaps, and of Secrets; without entries of zero.
    config_needs: BTreeMap<(Arc<str>, ReferenceKind), usize>,
    /// Counts the changes that `config_needs()` may differ after.
    needs_version: u64,
    /// First complete lists that have not come yet: kind and scope, which is a namespace, or empty for all of them.
    missing: Vec<(Kind, Arc<str>)>,
    is_fixed: bool,
}

impl Index {
    /// An empty index for the namespaces whose label `monitored` has this value.
    pub fn new(monitored_id: impl Into<String>) -> Self {
        Self {
            monitored_id: monitored_id.into(),
            quarks_jobs: BTreeMap::new(),
            jobs: BTreeMap::new(),
            jobs_by_owner: HashMap::new(),
            namespaces: BTreeMap::new(),
            config_needs: BTreeMap::new(),
            needs_version: 0,
            missing: [Kind::QuarksJobs, Kind::Jobs, Kind::Namespaces].map(|kind| (kind, Arc::from(""))).into(),
            is_fixed: false,
        }
    }

    /// An empty index for these namespaces, whatever their labels; each is a scope of its own.
    pub fn fixed(namespaces: &[String], service_account: &str) -> Self {
        let mut index = Self { missing: Vec::new(), is_fixed: true, ..Self::new("") };
        for name in namespaces {
            let key: Arc<str> = Arc::from(name.as_str());
            index.missing.extend([Kind::QuarksJobs, Kind::Jobs].map(|kind| (kind, Arc::clone(&key))));
            let (monitored, service_account) = (Some(String::new()), Some(service_account.to_owned()));
            let view = NamespaceView { name: name.clone(), monitored, service_account, is_being_deleted: false };
            index.namespaces.insert(key, Arc::new(view));
        }
        index
    }

    /// True if the namespaces are given and not found by their labels.
    pub fn is_fixed(&self) -> bool {
        self.is_fixed
    }

    /// True once every watch has delivered its first complete list.
    pub fn is_synced(&self) -> bool {
        self.missing.is_empty()
    }

    /// True once all is in that decisions in this scope rest on. Nothing may be written there before.
    pub fn is_in(&self, scope: &str) -> bool {
        !self.missing.iter().any(|(_, missing)| missing.is_empty() || **missing == *scope)
    }

    /// True once there is a scope in which something may be done.
    pub fn is_any_in(&self) -> bool {
        self.is_synced() || self.namespaces.keys().any(|name| self.is_in(name))
    }

    /// The QuarksJob of this key.
    pub fn quarks_job(&self, key: &ObjectKey) -> Option<Arc<QuarksJobView>> {
        self.quarks_jobs.get(key).cloned()
    }

    /// The Jobs whose controller is the QuarksJob with this UID, ours or not.
    pub fn jobs_of(&self, owner: &Uid) -> Vec<Arc<JobView>> {
        let keys = self.jobs_by_owner.get(owner);
        keys.into_iter().flatten().filter_map(|key| self.jobs.get(key).cloned()).collect()
    }

    /// The namespace, if this operator serves it and all is in that decisions there rest on.
    pub fn monitored(&self, namespace: &str) -> Option<&NamespaceView> {
        let found = self.namespaces.get(namespace).filter(|_| self.is_in(namespace))?;
        (found.monitored.as_ref() == Some(&self.monitored_id) && !found.is_being_deleted).then_some(found)
    }

    /// True if the namespace is gone or going, or another operator serves it: what is left there is not for us.
    pub fn is_out_of_reach(&self, namespace: &str) -> bool {
        let is_anothers = |found: &Arc<NamespaceView>| found.monitored.as_ref().is_some_and(|id| *id != self.monitored_id);
        let found = self.namespaces.get(namespace);
        self.is_in(namespace) && found.is_none_or(|found| found.is_being_deleted || is_anothers(found))
    }

    /// Names of the namespaces that this operator serves and that name an account, with that account.
    pub fn monitored_with_account(&self) -> Vec<(String, String)> {
        let monitored = self.namespaces.keys().filter_map(|name| self.monitored(name));
        monitored.filter_map(|found| Some((found.name.clone(), found.service_account.clone()?))).collect()
    }

    /// Number of QuarksJobs and of their Jobs.
    pub fn sizes(&self) -> (usize, usize) {
        (self.quarks_jobs.len(), self.jobs.len())
    }

    /// Takes a change in and names the QuarksJobs that it may matter to, some perhaps twice. `scope` is what the watch
    /// looks at: a namespace, or empty for all. A fresh list replaces what is in its scope and nothing else.
    pub fn apply(&mut self, scope: &str, change: Change) -> Vec<ObjectKey> {
        let was_in = self.is_in(scope);
        let mut dirty = match change {
            Change::QuarksJob(event) => self.apply_quarks_job(scope, event),
            Change::Job(event) => self.apply_job(scope, event),
            Change::Namespace(event) => self.apply_namespace(event),
        };
        // What was looked at before, while other namespaces were in already, was left alone.
        if !was_in && !scope.is_empty() && self.is_in(scope) {
            dirty.extend(self.keys_in(scope));
        }
        dirty
    }

    fn has_come(&mut self, kind: Kind, scope: &str) {
        self.missing.retain(|(missing, of)| *missing != kind || **of != *scope);
    }

    fn apply_quarks_job(&mut self, scope: &str, event: WatchEvent<Arc<QuarksJobView>>) -> Vec<ObjectKey> {
        match event {
            WatchEvent::Replaced(views) => {
                let mut dirty = self.keys_in(scope);
                for key in &dirty {
                    self.remove_quarks_job(key);
                }
                for view in views {
                    self.insert_quarks_job(view);
                }
                self.has_come(Kind::QuarksJobs, scope);
                dirty.extend(self.keys_in(scope));
                dirty
            }
            WatchEvent::Applied(view) => {
                vec![self.insert_quarks_job(view)]
            }
            WatchEvent::Deleted(view) => {
                self.remove_quarks_job(&view.key);
                vec![view.key.clone()]
            }
        }
    }

    fn insert_quarks_job(&mut self, mut view: Arc<QuarksJobView>) -> ObjectKey {
        if let Some(view) = Arc::get_mut(&mut view) {
            // One text for all that name it, and one for all keys of a namespace.
            if let Some((known, _)) = self.quarks_jobs.get_key_value(&view.key) {
                view.key = known.clone();
            } else if let Some((shared, _)) = self.namespaces.get_key_value(&*view.key.namespace) {
                view.key.namespace = Arc::clone(shared);
            }
        }
        self.count_needs(&view, true);
        let key = view.key.clone();
        if let Some(old) = self.quarks_jobs.insert(key.clone(), view) {
            self.count_needs(&old, false);
        }
        key
    }

    fn remove_quarks_job(&mut self, key: &ObjectKey) {
        if let Some(old) = self.quarks_jobs.remove(key) {
            self.count_needs(&old, false);
        }
    }

    fn count_needs(&mut self, view: &QuarksJobView, is_added: bool) {
        for kind in [ReferenceKind::ConfigMap, ReferenceKind::Secret] {
            if view.needs_watch_of(kind) {
                let id = (Arc::clone(&view.key.namespace), kind);
                let count = self.config_needs.entry(id.clone()).or_default();
                *count = if is_added { *count + 1 } else { count.saturating_sub(1) };
                match (*count, is_added) {
                    (0, _) => {
                        self.config_needs.remove(&id);
                        self.needs_version += 1;
                    }
                    (1, true) => self.needs_version += 1,
                    _ => {}
                }
            }
        }
    }

    /// As long as this stays the same, [`Self::config_needs`] does too.
    pub fn needs_version(&self) -> u64 {
        self.needs_version
    }

    /// Where ConfigMaps or Secrets have to be watched.
    pub fn config_needs(&self) -> Vec<(Arc<str>, ReferenceKind)> {
        self.config_needs.keys().filter(|(namespace, _)| self.monitored(namespace).is_some()).cloned().collect()
    }

    /// The QuarksJobs of a namespace that have to look when the object of this name changes, or any object of this kind.
    pub fn config_users(&self, namespace: &str, kind: ReferenceKind, name: Option<&str>) -> Vec<ObjectKey> {
        let names = |reference: &Reference| {
            let is_named =
                |name: &str| reference.name == name || (kind == ReferenceKind::Secret && may_be_version_of(&reference.name, name));
            reference.kind == kind && name.is_none_or(is_named)
        };
        self.in_scope(namespace)
            .filter(|(_, view)| view.needs_watch_of(kind) && view.references.iter().any(names))
            .map(|(key, _)| key.clone())
            .collect()
    }

    fn apply_job(&mut self, scope: &str, event: WatchEvent<Arc<JobView>>) -> Vec<ObjectKey> {
        match event {
            WatchEvent::Replaced(views) => {
                let old: Vec<ObjectKey> = self.jobs.keys().filter(|key| is_of_scope(key, scope)).cloned().collect();
                let mut dirty: Vec<_> = old.iter().filter_map(|key| self.remove_job(key)).collect();
                for view in views {
                    dirty.extend(owner_key(&view));
                    self.insert_job(view);
                }
                self.has_come(Kind::Jobs, scope);
                dirty
            }
            WatchEvent::Applied(view) => {
                let mut dirty: Vec<_> = self.remove_job(&view.key).into_iter().collect();
                dirty.extend(owner_key(&view));
                self.insert_job(view);
                dirty
            }
            WatchEvent::Deleted(view) => {
                let mut dirty: Vec<_> = self.remove_job(&view.key).into_iter().collect();
                dirty.extend(owner_key(&view));
                dirty
            }
        }
    }

    /// Jobs of others are not kept.
    fn insert_job(&mut self, mut view: Arc<JobView>) {
        if let Some(view) = Arc::get_mut(&mut view)
            && let Some((shared, _)) = self.namespaces.get_key_value(&*view.key.namespace)
        {
            view.key.namespace = Arc::clone(shared);
        }
        if let Some((_, owner)) = &view.owner {
            // Nearly always the only one.
            self.jobs_by_owner.entry(owner.clone()).or_insert_with(|| Vec::with_capacity(1)).push(view.key.clone());
            self.jobs.insert(view.key.clone(), view);
        }
    }

    fn remove_job(&mut self, key: &ObjectKey) -> Option<ObjectKey> {
        let job = self.jobs.remove(key)?;
        if let Some((_, owner)) = &job.owner
            && let Some(keys) = self.jobs_by_owner.get_mut(owner)
        {
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.jobs_by_owner.remove(owner);
            }
        }
        owner_key(&job)
    }

    fn apply_namespace(&mut self, event: WatchEvent<Arc<NamespaceView>>) -> Vec<ObjectKey> {
        self.needs_version += 1;
        let changed: Vec<Arc<str>> = match event {
            WatchEvent::Replaced(views) => {
                let old = std::mem::take(&mut self.namespaces);
                self.namespaces.extend(views.into_iter().map(|view| (Arc::from(view.name.as_str()), view)));
                self.has_come(Kind::Namespaces, "");
                let gone = old.keys().filter(|name| !self.namespaces.contains_key(*name));
                let differs = |name: &&Arc<str>| old.get(*name) != self.namespaces.get(*name);
                self.namespaces.keys().filter(differs).chain(gone).cloned().collect()
            }
            WatchEvent::Applied(view) => {
                let name: Arc<str> = Arc::from(view.name.as_str());
                let old = self.namespaces.insert(Arc::clone(&name), view);
                if old.as_ref() == self.namespaces.get(&name) { Vec::new() } else { vec![name] }
            }
            WatchEvent::Deleted(view) => {
                self.namespaces.remove(view.name.as_str());
                vec![Arc::from(view.name.as_str())]
            }
        };
        changed.iter().flat_map(|namespace| self.keys_in(namespace)).collect()
    }

    /// Keys of the QuarksJobs of a scope.
    fn keys_in(&self, scope: &str) -> Vec<ObjectKey> {
        self.in_scope(scope).map(|(key, _)| key.clone()).collect()
    }

    fn in_scope<'a>(&'a self, scope: &'a str) -> impl Iterator<Item = (&'a ObjectKey, &'a Arc<QuarksJobView>)> {
        self.quarks_jobs.range(ObjectKey::new(scope, "")..).take_while(|(key, _)| is_of_scope(key, scope))
    }

    /// Namespaces with a Job that has a sidecar and has not ended, or has and its run is not settled.
    pub fn running_output(&self) -> BTreeSet<Arc<str>> {
        let is_settled = |job: &JobView, run: u64| {
            let owner = owner_key(job).and_then(|key| self.quarks_jobs.get(&key));
            owner.is_none_or(|view| job.record_of(&view.uid).is_none() || run <= view.marker.runs)
        };
        let has_output = |job: &JobView| job.record.as_ref().is_some_and(|record| record.output);
        let is_running = |job: &JobView| {
            has_output(job) && (job.end.is_none() || job.record.as_ref().is_some_and(|record| !is_settled(job, record.run)))
        };
        self.jobs.values().filter(|job| is_running(job)).map(|job| Arc::clone(&job.key.namespace)).collect()
    }
}

fn is_of_scope(key: &ObjectKey, scope: &str) -> bool {
    scope.is_empty() || *key.namespace == *scope
}

fn owner_key(job: &JobView) -> Option<ObjectKey> {
    job.owner.as_ref().map(|(name, _)| ObjectKey::new(job.key.namespace.clone(), name.clone()))
}

/// The index, shared by its one writer and all readers.
#[derive(Clone, Debug)]
pub struct SharedIndex(Arc<RwLock<Index>>);

impl SharedIndex {
    /// Shares `index`.
    pub fn new(index: Index) -> Self {
        Self(Arc::new(RwLock::new(index)))
    }

    /// To look. Hold it briefly: the writer waits.
    pub fn read(&self) -> RwLockReadGuard<'_, Index> {
        // A panic of the writer ends the process, so a poisoned lock is never seen by a reader that matters.
        self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// To apply a change; only the index thread does.
    pub fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
