//! The API server's audit log: who asked for what.

use std::fmt;

use serde_json::Value;

pub const OPERATOR: &str = "system:serviceaccount:quarks-job:quarks-job";
const SIDECAR: &str = "quarks-job-sidecar";
/// Names its file; scripts/cluster says where it is.
const LOG: &str = "AUDIT_LOG";

#[derive(Clone, Debug)]
pub struct Entry {
    pub time: String,
    pub user: String,
    pub verb: String,
    /// API group; empty for the core group.
    pub group: String,
    /// With the subresource: `quarksjobs/status`.
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub code: u64,
}

impl Entry {
    /// When the request came, in seconds.
    pub fn seconds(&self) -> f64 {
        let time = humantime::parse_rfc3339(&self.time).expect("a time of the audit log");
        time.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs_f64()
    }

    pub fn is_operator(&self) -> bool {
        self.user == OPERATOR
    }

    pub fn is_sidecar(&self) -> bool {
        self.user.rsplit(':').next() == Some(SIDECAR)
    }

    /// Neither the credential nor the right was missing.
    pub fn is_allowed(&self) -> bool {
        !matches!(self.code, 401 | 403)
    }

    pub fn is_job_created(&self) -> bool {
        self.is_operator() && self.verb == "create" && self.resource == "jobs" && self.code == 201
    }

    pub fn is_read(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    pub fn is_event(&self) -> bool {
        self.resource == "events"
    }

    /// `verb resource`.
    pub fn what(&self) -> String {
        format!("{} {}", self.verb, self.resource)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}/{} {}", self.time, self.user, self.what(), self.namespace, self.name, self.code)
    }
}

/// Not on a cluster of the user's: the cases that need it are in `needs.txt`.
pub fn is_there() -> bool {
    std::env::var_os(LOG).is_some()
}

/// Requests in the namespaces that `wanted` names, in the order of their answers; a watch counts when it starts.
pub fn entries(wanted: impl Fn(&str) -> bool) -> Vec<Entry> {
    parsed(|_| true, wanted)
}

/// The same for one namespace, without reading what is about others.
pub fn entries_in(namespace: &str) -> Vec<Entry> {
    parsed(|line| line.contains(namespace), |found| found == namespace)
}

fn parsed(is_worth_it: impl Fn(&str) -> bool, wanted: impl Fn(&str) -> bool) -> Vec<Entry> {
    let path = std::env::var(LOG).expect("a case that reads the audit log stands in tests/cluster/needs.txt, and runs with scripts/test");
    let log = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    // The last line may be half written.
    log.lines()
        .filter(|line| is_worth_it(line))
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter_map(|line| entry(&line))
        .filter(|entry| wanted(&entry.namespace))
        .collect()
}

fn entry(line: &Value) -> Option<Entry> {
    let text = |pointer: &str| line.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (verb, stage) = (text("/verb"), text("/stage"));
    let counted = if verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
    if stage != counted {
        return None;
    }
    let mut resource = text("/objectRef/resource");
    let subresource = text("/objectRef/subresource");
    if !subresource.is_empty() {
        resource = format!("{resource}/{subresource}");
    }
    Some(Entry {
        time: text("/requestReceivedTimestamp"),
        user: text("/user/username"),
        verb,
        group: text("/objectRef/apiGroup"),
        resource,
        namespace: text("/objectRef/namespace"),
        name: text("/objectRef/name"),
        code: line.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or(0),
    })
}
