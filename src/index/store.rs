//! The store. Each change says which QuarksJobs must be checked, and which lists must be repeated.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::api::{OPERATOR_NAMESPACE, ObjectKey, Uid};
use crate::planted::{Defect, is_planted};
use crate::rules::references::{Reference, ReferenceKind};
use crate::rules::versions::may_be_version_of;
use crate::views::identity::run_of;
use crate::views::{JobView, NamespaceView, QuarksJobView};
use crate::watch::WatchEvent;

use super::passed_over::PassedOver;

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

/// What a change of the index means for others.
#[derive(Debug, Default, PartialEq)]
pub struct Changed {
    /// QuarksJobs that it may matter to, some perhaps twice.
    pub dirty: Vec<ObjectKey>,
    /// Keys of QuarksJobs that now stand for another object, or for none.
    pub renewed: Vec<ObjectKey>,
    /// QuarksJobs, and then Jobs, must be listed for this number: a namespace is served from now on, whose objects were skipped.
    pub list_all_for: Option<u64>,
    /// Jobs must be listed again: a QuarksJob has come whose Jobs were skipped.
    pub list_jobs: bool,
}

/// Where ConfigMaps or Secrets must be watched.
pub type ConfigNeed = (Arc<str>, ReferenceKind);

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
    config_needs: BTreeMap<ConfigNeed, usize>,
    /// Where that may have changed since it was last asked.
    needs_changed: BTreeSet<ConfigNeed>,
    /// First complete lists that have not come yet: kind and scope, which is a namespace, or empty for all of them.
    missing: Vec<(Kind, Arc<str>)>,
    /// Namespaces that are served since the first lists, until their own objects are listed: the number that this takes.
    awaited: Vec<(Arc<str>, u64)>,
    /// The highest number that lists were requested for.
    number: u64,
    pub(super) passed_over: PassedOver,
    is_fixed: bool,
    /// Namespace of the operator's account; empty outside of a cluster.
    home: String,
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
            needs_changed: BTreeSet::new(),
            missing: [Kind::QuarksJobs, Kind::Jobs, Kind::Namespaces].map(|kind| (kind, Arc::from(""))).into(),
            awaited: Vec::new(),
            number: 0,
            passed_over: PassedOver::default(),
            is_fixed: false,
            home: String::new(),
        }
    }

    /// An empty index for these namespaces, whatever their labels; each is a scope of its own.
    pub fn fixed(namespaces: &[String], service_account: &str) -> Self {
        let mut index = Self { missing: Vec::new(), is_fixed: true, ..Self::new("") };
        for name in namespaces {
            let key: Arc<str> = Arc::from(name.as_str());
            index.missing.extend([Kind::QuarksJobs, Kind::Jobs].map(|kind| (kind, Arc::clone(&key))));
            let (monitored, service_account) = (Some(String::new()), Some(service_account.to_owned()));
            let view = NamespaceView { name: name.clone(), monitored, service_account, ..NamespaceView::default() };
            index.namespaces.insert(key, Arc::new(view));
        }
        index
    }

    /// The same for an operator whose account is in this namespace.
    pub fn with_home(self, home: String) -> Self {
        Self { home, ..self }
    }

    /// Namespace of the operator's account, if it is another one than in the manifests.
    pub fn other_home(&self) -> Option<&str> {
        Some(self.home.as_str()).filter(|home| !home.is_empty() && *home != OPERATOR_NAMESPACE)
    }

    /// True if the namespaces are given and not found by their labels.
    pub fn is_fixed(&self) -> bool {
        self.is_fixed
    }

    /// True once every watch has delivered its first complete list.
    pub fn is_synced(&self) -> bool {
        self.missing.is_empty()
    }

    /// True once everything that decisions in this scope depend on has been listed. Nothing may be written there before.
    pub fn is_in(&self, scope: &str) -> bool {
        !self.missing.iter().any(|(_, missing)| missing.is_empty() || **missing == *scope)
            && !self.awaited.iter().any(|(awaited, _)| **awaited == *scope)
    }

    /// True once there is a scope in which something may be done.
    pub fn is_any_in(&self) -> bool {
        self.is_synced() || self.namespaces.keys().any(|name| self.is_in(name))
    }

    /// The QuarksJob of this key.
    pub fn quarks_job(&self, key: &ObjectKey) -> Option<Arc<QuarksJobView>> {
        self.quarks_jobs.get(key).cloned()
    }

    /// The Job of this key.
    pub(super) fn job(&self, key: &ObjectKey) -> Option<&JobView> {
        self.jobs.get(key).map(|job| &**job)
    }

    /// The Jobs whose controller is the QuarksJob with this UID in this namespace. Jobs elsewhere are not its own, whatever they claim.
    pub fn jobs_of(&self, namespace: &str, owner: &Uid) -> Vec<Arc<JobView>> {
        let keys = self
            .jobs_by_owner
            .get(owner)
            .into_iter()
            .flatten()
            .filter(|key| *key.namespace == *namespace || is_planted(Defect::NamespaceNotAsked));
        keys.filter_map(|key| self.jobs.get(key).cloned()).collect()
    }

    pub(super) fn passed_over(&self) -> &PassedOver {
        &self.passed_over
    }

    /// True if this operator serves the namespace, as far as its label says. [`Self::monitored`] says whether it may work there.
    pub(super) fn is_served(&self, namespace: &str) -> bool {
        self.namespaces.get(namespace).is_some_and(|found| self.is_ours(found))
    }

    fn is_ours(&self, namespace: &NamespaceView) -> bool {
        namespace.monitored.as_ref() == Some(&self.monitored_id)
    }

    /// Namespaces that we serve, and those that we know already: what is left in one that has lost its label is still handled.
    pub(super) fn admits_namespace(&self, view: &NamespaceView) -> bool {
        self.is_ours(view) || self.namespaces.contains_key(view.name.as_str())
    }

    /// The namespace, if this operator serves it and everything that decisions there depend on has been listed.
    pub fn monitored(&self, namespace: &str) -> Option<&NamespaceView> {
        let found = self.namespaces.get(namespace).filter(|_| self.is_in(namespace))?;
        (self.is_ours(found) && !found.is_being_deleted).then_some(found)
    }

    /// True if the namespace is deleted or being deleted, or served by another operator: what is left there is not ours.
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

    /// Takes a change in and says what follows. `scope` is what the watch covers: a namespace, or empty for all. A fresh list
    /// replaces what is in its scope and nothing else.
    pub fn apply(&mut self, scope: &str, change: Change) -> Changed {
        let was_in = self.is_in(scope);
        let mut changed = match change {
            Change::QuarksJob(event) => self.apply_quarks_job(scope, event),
            Change::Job(event) => Changed { dirty: self.apply_job(scope, event), ..Changed::default() },
            Change::Namespace(event) => self.apply_namespace(event),
        };
        if !was_in && self.is_in(scope) {
            // What was checked before, while other namespaces were in already, was left alone.
            if !scope.is_empty() {
                changed.dirty.extend(self.keys_in(scope));
            }
            self.needs_may_differ(scope);
        }
        changed
    }

    /// Lists of QuarksJobs and then of Jobs that were started for `number` are in. Names the QuarksJobs of namespaces that waited for this.
    pub fn has_listed(&mut self, number: u64) -> Vec<ObjectKey> {
        let (waiting, listed): (Vec<_>, Vec<_>) = std::mem::take(&mut self.awaited).into_iter().partition(|(_, awaited)| *awaited > number);
        self.awaited = waiting;
        listed.iter().for_each(|(namespace, _)| self.needs_may_differ(namespace));
        listed.iter().flat_map(|(namespace, _)| self.keys_in(namespace)).collect()
    }

    fn has_come(&mut self, kind: Kind, scope: &str) {
        self.missing.retain(|(missing, of)| *missing != kind || **of != *scope);
    }

    fn apply_quarks_job(&mut self, scope: &str, event: WatchEvent<Arc<QuarksJobView>>) -> Changed {
        let mut changed = Changed::default();
        match event {
            WatchEvent::Replaced(views) => {
                let old: Vec<_> = self.in_scope(scope).map(|(key, view)| (key.clone(), view.uid.clone())).collect();
                for (key, _) in &old {
                    self.remove_quarks_job(key);
                }
                for view in views {
                    self.insert_quarks_job(view);
                }
                self.has_come(Kind::QuarksJobs, scope);
                let uid = |key: &ObjectKey| self.quarks_jobs.get(key).map(|view| &view.uid);
                let is_renewed = |(key, old): &&(ObjectKey, Uid)| uid(key) != Some(old);
                changed.renewed = old.iter().filter(is_renewed).map(|(key, _)| key.clone()).collect();
                // The index gives them in order.
                let known = |key: &ObjectKey| old.binary_search_by(|(known, _)| known.cmp(key)).ok().map(|at| &old[at].1);
                let fresh: Vec<(ObjectKey, Uid)> = self
                    .in_scope(scope)
                    .filter(|(key, view)| known(key) != Some(&view.uid))
                    .map(|(key, view)| (key.clone(), view.uid.clone()))
                    .collect();
                // Each requests, so that none is requested a second time by what comes later.
                changed.list_jobs = fresh.iter().filter(|(key, uid)| self.passed_over.take(&key.namespace, uid.as_str())).count() > 0;
                changed.dirty = old.into_iter().map(|(key, _)| key).collect();
                changed.dirty.extend(self.keys_in(scope));
            }
            WatchEvent::Applied(view) => {
                let uid = view.uid.clone();
                let known = self.quarks_jobs.get(&view.key).map(|known| known.uid.clone());
                let key = self.insert_quarks_job(view);
                if known.as_ref() != Some(&uid) {
                    changed.list_jobs = self.passed_over.take(&key.namespace, uid.as_str());
                    changed.renewed.extend(known.is_some().then(|| key.clone()));
                }
                changed.dirty.push(key);
            }
            // One that is not in the index is not ours: it cost its decoding and costs no more.
            WatchEvent::Deleted(key) => {
                if self.remove_quarks_job(&key) {
                    changed.renewed.push(key.clone());
                    changed.dirty.push(key);
                }
            }
        }
        changed
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

    /// False if it does not exist.
    fn remove_quarks_job(&mut self, key: &ObjectKey) -> bool {
        let removed = self.quarks_jobs.remove(key);
        if let Some(old) = &removed {
            self.count_needs(old, false);
        }
        removed.is_some()
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
                        self.needs_changed.insert(id);
                    }
                    (1, true) => _ = self.needs_changed.insert(id),
                    _ => {}
                }
            }
        }
    }

    /// Whether a watch is needed may be another answer than before somewhere in this scope.
    fn needs_may_differ(&mut self, scope: &str) {
        let from = (Arc::from(scope), ReferenceKind::ConfigMap);
        let changed =
            self.config_needs.range(from..).map(|(id, _)| id).take_while(|(namespace, _)| scope.is_empty() || **namespace == *scope);
        self.needs_changed.extend(changed.cloned());
    }

    /// True if [`Self::take_changed_needs`] has something to say.
    pub fn has_changed_needs(&self) -> bool {
        !self.needs_changed.is_empty()
    }

    /// Where it may have changed since this was last asked whether ConfigMaps or Secrets must be watched, and whether they must be.
    pub fn take_changed_needs(&mut self) -> Vec<(ConfigNeed, bool)> {
        let changed = std::mem::take(&mut self.needs_changed);
        let is_needed = |need: &ConfigNeed| self.config_needs.contains_key(need) && self.monitored(&need.0).is_some();
        changed.into_iter().map(|need| (need.clone(), is_needed(&need))).collect()
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
            WatchEvent::Deleted(key) => self.remove_job(&key).into_iter().collect(),
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

    fn apply_namespace(&mut self, event: WatchEvent<Arc<NamespaceView>>) -> Changed {
        let is_first = self.missing.iter().any(|(kind, _)| *kind == Kind::Namespaces);
        let old: Vec<(Arc<str>, Option<Arc<NamespaceView>>)> = match event {
            WatchEvent::Replaced(views) => {
                let old = std::mem::take(&mut self.namespaces);
                self.namespaces.extend(views.into_iter().map(|view| (Arc::from(view.name.as_str()), view)));
                self.has_come(Kind::Namespaces, "");
                let added = self.namespaces.keys().filter(|name| !old.contains_key(*name)).map(|name| (Arc::clone(name), None));
                let mut changed: Vec<_> = added.collect();
                changed.extend(old.into_iter().map(|(name, view)| (name, Some(view))));
                changed
            }
            WatchEvent::Applied(view) => {
                let name: Arc<str> = Arc::from(view.name.as_str());
                let old = self.namespaces.insert(Arc::clone(&name), view);
                vec![(name, old)]
            }
            WatchEvent::Deleted(key) => {
                let old = self.namespaces.remove(&*key.name);
                vec![(key.name, old)]
            }
        };
        let mut changed = Changed::default();
        let mut is_served_anew = is_first;
        for (name, old) in &old {
            if self.namespaces.get(name) == old.as_ref() {
                continue;
            }
            let was_served = old.as_ref().is_some_and(|old| self.is_ours(old));
            match self.is_served(name) {
                // The first lists are still to come, or have them all.
                true if !was_served && !is_first => {
                    self.awaited.retain(|(awaited, _)| awaited != name);
                    self.awaited.push((Arc::clone(name), self.number + 1));
                    is_served_anew = true;
                }
                true => {}
                false => self.awaited.retain(|(awaited, _)| awaited != name),
            }
            self.needs_may_differ(name);
            changed.dirty.extend(self.keys_in(name));
        }
        if is_served_anew {
            self.number += 1;
            changed.list_all_for = Some(self.number);
        }
        changed
    }

    /// Keys of the QuarksJobs of a scope.
    fn keys_in(&self, scope: &str) -> Vec<ObjectKey> {
        self.in_scope(scope).map(|(key, _)| key.clone()).collect()
    }

    fn in_scope<'a>(&'a self, scope: &'a str) -> impl Iterator<Item = (&'a ObjectKey, &'a Arc<QuarksJobView>)> {
        self.quarks_jobs.range(ObjectKey::new(scope, "")..).take_while(|(key, _)| is_of_scope(key, scope))
    }

    /// Namespaces with a Job that has a sidecar and has not ended, or has and its run is not settled; in order.
    pub fn running_output(&self) -> Vec<Arc<str>> {
        let is_running = |job: &JobView| {
            let owner = owner_key(job).and_then(|key| self.quarks_jobs.get(&key));
            let Some(view) = owner.filter(|view| job.owner.as_ref().is_some_and(|(_, uid)| *uid == view.uid)) else {
                // Its QuarksJob is gone: whatever ends it ends its use.
                return job.end.is_none() && job.record.as_ref().is_some_and(|record| record.output);
            };
            run_of(job, view, None).is_some_and(|record| record.output && (job.end.is_none() || record.run > view.marker.runs))
        };
        let mut namespaces: Vec<Arc<str>> = Vec::new();
        for job in self.jobs.values() {
            if namespaces.last() != Some(&job.key.namespace) && is_running(job) {
                namespaces.push(Arc::clone(&job.key.namespace));
            }
        }
        namespaces
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

    /// To apply a change: each watch writes its kind.
    pub fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
