//! The state of the in-memory API server: objects, one increasing resourceVersion, and the history that
//! watches resume from. Knows nothing of HTTP or of what particular kinds mean.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

/// `resource` is `GROUP/PLURAL`, the group empty for core; the order is that of lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub resource: String,
    pub namespace: String,
    pub name: String,
}

/// One change; `old` is absent for a creation, `new` is the last state for a deletion.
#[derive(Clone)]
pub struct Change {
    pub version: u64,
    pub key: Key,
    pub old: Option<Arc<Value>>,
    pub new: Arc<Value>,
    pub deleted: bool,
}

pub struct Store {
    pub version: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Change>,
    pub history_limit: usize,
    /// The oldest version a watch can still resume from.
    pub floor: u64,
    names: u64,
    /// What is left of lists that were cut by `limit`: version and items.
    pub pages: HashMap<String, (u64, Vec<Arc<Value>>)>,
}

impl Default for Store {
    fn default() -> Store {
        Store {
            version: 100,
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            history_limit: 10_000,
            floor: 0,
            names: 0,
            pages: HashMap::new(),
        }
    }
}

impl Store {
    pub fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// All objects, of one resource or namespace when not empty.
    pub fn list<'a>(&'a self, resource: &'a str, namespace: &'a str) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> {
        self.objects.iter().filter(move |(key, _)| {
            (resource.is_empty() || key.resource == resource) && (namespace.is_empty() || key.namespace == namespace)
        })
    }

    /// Stores a new or changed object under the next version, which it gets as resourceVersion.
    pub fn put(&mut self, key: &Key, mut object: Value) -> Arc<Value> {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let new = Arc::new(object);
        let old = self.objects.insert(key.clone(), Arc::clone(&new));
        self.remember(key, old, Arc::clone(&new), false);
        new
    }

    pub fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let old = self.objects.remove(key)?;
        self.version += 1;
        let mut last = Value::clone(&old);
        last["metadata"]["resourceVersion"] = self.version.to_string().into();
        let last = Arc::new(last);
        self.remember(key, Some(old), Arc::clone(&last), true);
        Some(last)
    }

    fn remember(&mut self, key: &Key, old: Option<Arc<Value>>, new: Arc<Value>, deleted: bool) {
        self.history.push_back(Change { version: self.version, key: key.clone(), old, new, deleted });
        while self.history.len() > self.history_limit {
            self.floor = self.history.pop_front().map_or(0, |change| change.version);
        }
    }

    /// Forgets the history and open list pages: older versions are "too old" from now on.
    pub fn compact(&mut self) {
        self.history.clear();
        self.pages.clear();
        // Also the newest version becomes old, as after compactions that follow further writes.
        self.version += 1;
        self.floor = self.version;
    }

    /// The changes after `version`; `None` when some of them are forgotten.
    pub fn since(&self, version: u64) -> Option<impl Iterator<Item = &Change>> {
        let start = self.history.partition_point(|c| c.version <= version);
        (version >= self.floor).then(|| self.history.range(start..))
    }

    /// A number for a uid, a generated name or a page token.
    pub fn next_number(&mut self) -> u64 {
        self.names += 1;
        self.names
    }
}

pub fn now() -> String {
    time_after(Duration::ZERO)
}

/// RFC 3339 in whole seconds, so long from now.
pub fn time_after(ahead: Duration) -> String {
    humantime::format_rfc3339_seconds(std::time::SystemTime::now() + ahead).to_string()
}
