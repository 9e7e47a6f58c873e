//! What is known about referenced objects, and which QuarksJobs are due to check them again. Digests only, never content.
//!
//! Promise: what is remembered of an object is dropped when its watch shows another version, and what was read while any event of
//! its namespace arrived is not remembered at all. So a remembered digest is never older than what the watch has shown.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::api::{ObjectKey, ResourceVersion};
use crate::rules::references::ReferenceKind;

use super::digest::{ConfigKey, ContentDigest};

/// A burst of edits is one change: it counts after this long without another one.
const QUIET: Duration = Duration::from_secs(1);
/// A burst without an end counts after this long.
const QUIET_MAX: Duration = Duration::from_secs(10);
/// A key whose Secret is not watched is read again after this long.
const KEY_TRUST: Duration = Duration::from_secs(60);

/// A referenced object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// `metadata.resourceVersion` of what was read.
    pub version: ResourceVersion,
    /// Annotation `written-by`.
    pub written_by: Option<String>,
    /// Of its content; `None` if only its existence was checked.
    pub content: Option<ContentDigest>,
}

/// A QuarksJob whose references may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// When to look.
    pub at: Instant,
    /// Tells this mark from one that is set later.
    pub serial: u64,
}

/// All that is known, of all namespaces. One lock; held for lookups only.
#[derive(Debug, Default)]
pub struct ConfigStore(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    namespaces: HashMap<Arc<str>, Namespace>,
    marks: HashMap<ObjectKey, Mark>,
    /// Of the last mark.
    serial: u64,
}

#[derive(Debug, Default)]
struct Namespace {
    /// Kinds with a watch that has delivered its list.
    config_maps_synced: bool,
    secrets_synced: bool,
    /// Counts what happens.
    epoch: u64,
    /// By kind and name: what was read; `None`: it does not exist.
    objects: HashMap<(ReferenceKind, String), Option<Seen>>,
    key: Option<(ConfigKey, ResourceVersion, Instant)>,
}

#[derive(Debug)]
struct Mark {
    first: Instant,
    due: Due,
}

impl Namespace {
    fn synced(&mut self, kind: ReferenceKind) -> &mut bool {
        match kind {
            ReferenceKind::ConfigMap => &mut self.config_maps_synced,
            ReferenceKind::Secret => &mut self.secrets_synced,
        }
    }

    /// True if digests by this key can stand beside those that are remembered.
    fn is_current(&self, key: Option<&ConfigKey>) -> bool {
        key.is_none_or(|key| self.key.as_ref().is_some_and(|(current, _, _)| current.is(key)))
    }

    fn forget_all(&mut self, kind: ReferenceKind) {
        self.epoch += 1;
        self.objects.retain(|(other, _), _| *other != kind);
    }
}

impl ConfigStore {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is one step: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- what a watch says -----------------------------------------------------------------------------------------

    /// The watch of `kind` has delivered a whole list.
    pub fn replaced(&self, namespace: &Arc<str>, kind: ReferenceKind) {
        let mut inner = self.lock();
        let known = inner.namespaces.entry(Arc::clone(namespace)).or_default();
        known.forget_all(kind);
        *known.synced(kind) = true;
        if kind == ReferenceKind::Secret {
            known.key = None;
        }
    }

    /// The watch of `kind` is gone.
    pub fn unwatched(&self, namespace: &str, kind: ReferenceKind) {
        let mut inner = self.lock();
        if let Some(known) = inner.namespaces.get_mut(namespace) {
            known.forget_all(kind);
            *known.synced(kind) = false;
            if !known.config_maps_synced && !known.secrets_synced {
                inner.namespaces.remove(namespace);
            }
        }
    }

    /// An object is now at `version`, or gone. False if that is what was read already.
    pub fn changed(&self, namespace: &str, kind: ReferenceKind, name: &str, version: Option<&ResourceVersion>) -> bool {
        let mut inner = self.lock();
        let Some(known) = inner.namespaces.get_mut(namespace) else { return true };
        known.epoch += 1;
        let id = (kind, name.to_owned());
        if known.objects.get(&id).is_some_and(|seen| seen.as_ref().map(|seen| &seen.version) == version) {
            return false;
        }
        known.objects.remove(&id);
        true
    }

    /// The key's Secret is now at `version`, or gone. True if the key was another one.
    pub fn key_changed(&self, namespace: &str, version: Option<&ResourceVersion>) -> bool {
        let mut inner = self.lock();
        let Some(known) = inner.namespaces.get_mut(namespace) else { return false };
        let is_same = known.key.as_ref().is_some_and(|(_, known_version, _)| Some(known_version) == version);
        if is_same { false } else { known.key.take().is_some() }
    }

    // --- what workers read -----------------------------------------------------------------------------------------

    /// What is known about an object (`Ok(None)`: it does not exist), and otherwise what to pass to [`Self::remember`].
    /// With `key` a digest by that key is wanted.
    pub fn known(&self, namespace: &str, kind: ReferenceKind, name: &str, key: Option<&ConfigKey>) -> Result<Option<Seen>, u64> {
        let inner = self.lock();
        let Some(known) = inner.namespaces.get(namespace) else { return Err(0) };
        let is_good =
            |seen: &&Option<Seen>| known.is_current(key) && (key.is_none() || seen.as_ref().is_none_or(|seen| seen.content.is_some()));
        known.objects.get(&(kind, name.to_owned())).filter(is_good).cloned().ok_or(known.epoch)
    }

    /// Remembers what a read showed, if a watch keeps it true and nothing has happened since `epoch`.
    pub fn remember(&self, namespace: &str, kind: ReferenceKind, name: &str, seen: Option<Seen>, epoch: u64, key: Option<&ConfigKey>) {
        let mut inner = self.lock();
        if let Some(known) = inner.namespaces.get_mut(namespace)
            && known.epoch == epoch
            && known.is_current(key)
            && *known.synced(kind)
        {
            known.objects.insert((kind, name.to_owned()), seen);
        }
    }

    /// The key of the namespace, while it can be trusted.
    pub fn key(&self, namespace: &str, now: Instant) -> Option<ConfigKey> {
        let inner = self.lock();
        let known = inner.namespaces.get(namespace)?;
        let (key, _, read_at) = known.key.as_ref()?;
        (known.secrets_synced || now.duration_since(*read_at) < KEY_TRUST).then(|| key.clone())
    }

    /// Remembers the key, read at `now` from this version of its Secret. Digests with another key are void.
    pub fn remember_key(&self, namespace: &Arc<str>, key: &ConfigKey, version: ResourceVersion, now: Instant) {
        let mut inner = self.lock();
        let known = inner.namespaces.entry(Arc::clone(namespace)).or_default();
        if !known.key.as_ref().is_some_and(|(old, _, _)| old.is(key)) {
            known.objects.clear();
        }
        known.key = Some((key.clone(), version, now));
    }

    // --- who has to look again -------------------------------------------------------------------------------------

    /// Something that `key` refers to has changed just now.
    pub fn mark(&self, key: &ObjectKey, now: Instant) {
        self.set_mark(key, now, |first| (now + QUIET).min(first + QUIET_MAX));
    }

    /// Whether something that `key` refers to has changed is not known: look at once.
    pub fn mark_unknown(&self, key: &ObjectKey, now: Instant) {
        self.set_mark(key, now, |_| now);
    }

    fn set_mark(&self, key: &ObjectKey, now: Instant, at: impl Fn(Instant) -> Instant) {
        let mut inner = self.lock();
        inner.serial += 1;
        let serial = inner.serial;
        let first = inner.marks.get(key).map_or(now, |mark| mark.first);
        inner.marks.insert(key.clone(), Mark { first, due: Due { at: at(first), serial } });
    }

    /// When to look at the references of `key`, if something has happened to them.
    pub fn due(&self, key: &ObjectKey) -> Option<Due> {
        self.lock().marks.get(key).map(|mark| mark.due)
    }

    /// They were checked, after `due` was read. A later mark stays.
    pub fn looked(&self, key: &ObjectKey, due: Option<Due>) {
        let mut inner = self.lock();
        if inner.marks.get(key).map(|mark| mark.due) == due {
            inner.marks.remove(key);
        }
    }

    /// The QuarksJob is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.lock().marks.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: ReferenceKind = ReferenceKind::ConfigMap;

    fn seen(version: &str) -> Option<Seen> {
        Some(Seen { version: version.into(), written_by: None, content: Some([1; 16]) })
    }

    /// A store with a synced watch of ConfigMaps in `ns` that remembers `a` at version 1.
    fn store() -> ConfigStore {
        let store = ConfigStore::default();
        store.replaced(&Arc::from("ns"), KIND);
        let epoch = store.known("ns", KIND, "a", None).expect_err("nothing is known yet");
        store.remember("ns", KIND, "a", seen("1"), epoch, None);
        assert_eq!(store.known("ns", KIND, "a", None), Ok(seen("1")));
        store
    }

    #[test]
    fn what_was_read_is_known_until_the_watch_shows_another_version() {
        assert!(!store().changed("ns", KIND, "a", Some(&"1".into())), "the watch only repeats it");
        for version in [Some("2"), None] {
            let store = store();
            assert!(store.changed("ns", KIND, "a", version.map(ResourceVersion::from).as_ref()));
            assert!(store.known("ns", KIND, "a", None).is_err(), "{version:?}");
        }
        let absent = store();
        let epoch = absent.known("ns", KIND, "b", None).expect_err("not read yet");
        absent.remember("ns", KIND, "b", None, epoch, None);
        assert_eq!(absent.known("ns", KIND, "b", None), Ok(None));
        assert!(!absent.changed("ns", KIND, "b", None), "known to be absent");
        assert!(absent.changed("ns", KIND, "b", Some(&"5".into())));
        for forget in [|store: &ConfigStore| store.replaced(&Arc::from("ns"), KIND), |store: &ConfigStore| store.unwatched("ns", KIND)] {
            let store = store_of(forget);
            assert!(store.known("ns", KIND, "a", None).is_err());
        }
    }

    fn store_of(change: fn(&ConfigStore)) -> ConfigStore {
        let store = store();
        change(&store);
        store
    }

    #[test]
    fn what_was_read_during_an_event_or_without_a_watch_is_not_remembered() {
        let store = store();
        let epoch = store.known("ns", KIND, "b", None).expect_err("not read yet");
        store.changed("ns", KIND, "other", None);
        store.remember("ns", KIND, "b", seen("1"), epoch, None);
        assert!(store.known("ns", KIND, "b", None).is_err());
        for (namespace, kind) in [("ns", ReferenceKind::Secret), ("unwatched", KIND)] {
            let epoch = store.known(namespace, kind, "b", None).expect_err("not read yet");
            store.remember(namespace, kind, "b", seen("1"), epoch, None);
            assert!(store.known(namespace, kind, "b", None).is_err(), "{namespace}");
        }
    }

    #[test]
    fn another_key_makes_digests_worthless() {
        let (store, namespace, now) = (store(), Arc::from("ns"), Instant::now());
        let (one, two) = (ConfigKey::new(b"1"), ConfigKey::new(b"2"));
        assert!(store.key("ns", now).is_none());
        store.remember_key(&namespace, &one, "7".into(), now);
        assert!(store.key("ns", now).is_some_and(|key| key.is(&one)));
        assert!(store.key("ns", now + KEY_TRUST).is_none(), "its Secret is not watched");
        store.replaced(&namespace, ReferenceKind::Secret);
        store.remember_key(&namespace, &one, "7".into(), now);
        assert!(store.key("ns", now + KEY_TRUST).is_some(), "its Secret is watched");
        assert!(!store.key_changed("ns", Some(&"7".into())), "the watch only repeats it");
        assert!(store.key_changed("ns", None) && store.key("ns", now).is_none());
        let epoch = store.known("ns", KIND, "a", None).expect_err("digests of no key");
        store.remember("ns", KIND, "a", seen("1"), epoch, None);
        store.remember_key(&namespace, &two, "8".into(), now);
        assert!(store.known("ns", KIND, "a", None).is_err());
    }

    #[test]
    fn a_burst_is_due_after_a_second_of_quiet_and_ten_seconds_at_most() {
        let (store, key, start) = (ConfigStore::default(), ObjectKey::new("ns", "q"), Instant::now());
        let second = Duration::from_secs(1);
        let due = |store: &ConfigStore| store.due(&key).map(|due| due.at - start);
        assert_eq!(due(&store), None);
        for at in 0..20 {
            store.mark(&key, start + second / 2 * at);
            assert_eq!(due(&store), Some((second / 2 * at + QUIET).min(QUIET_MAX)));
        }
        let before = store.due(&key);
        store.mark(&key, start + second * 9);
        store.looked(&key, before);
        assert!(store.due(&key).is_some(), "marked again meanwhile");
        store.looked(&key, store.due(&key));
        assert_eq!(store.due(&key), None);
        store.mark(&key, start + second * 30);
        assert_eq!(due(&store), Some(second * 31), "a new burst");
        store.mark_unknown(&key, start + second * 30);
        assert_eq!(due(&store), Some(second * 30));
        store.forget(&key);
        assert_eq!(store.due(&key), None);
    }
}
