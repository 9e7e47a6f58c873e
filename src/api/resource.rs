//! The API resources that the program uses.

/// An API resource: where its URLs are and what its objects are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version, for example `v1`.
    pub version: &'static str,
    /// Plural in URLs, for example `jobs`.
    pub plural: &'static str,
}

impl Resource {
    /// QuarksJobs.
    pub const QUARKS_JOBS: Self = Self::new(super::GROUP, "v1alpha1", "quarksjobs");
    /// Their status: a subresource, with a right of its own.
    pub const QUARKS_JOB_STATUS: Self = Self::new(super::GROUP, "v1alpha1", "quarksjobs/status");
    /// Jobs.
    pub const JOBS: Self = Self::new("batch", "v1", "jobs");
    /// Pods.
    pub const PODS: Self = Self::new("", "v1", "pods");
    /// Logs of containers: a subresource of pods, with a right of its own.
    pub const POD_LOGS: Self = Self::new("", "v1", "pods/log");
    /// ConfigMaps.
    pub const CONFIG_MAPS: Self = Self::new("", "v1", "configmaps");
    /// Secrets.
    pub const SECRETS: Self = Self::new("", "v1", "secrets");
    /// Namespaces, cluster-scoped.
    pub const NAMESPACES: Self = Self::new("", "v1", "namespaces");
    /// Service accounts.
    pub const SERVICE_ACCOUNTS: Self = Self::new("", "v1", "serviceaccounts");
    /// Their tokens: a subresource, with a right of its own.
    pub const SERVICE_ACCOUNT_TOKENS: Self = Self::new("", "v1", "serviceaccounts/token");
    /// Custom resource definitions, cluster-scoped.
    pub const DEFINITIONS: Self = Self::new("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    /// Leases.
    pub const LEASES: Self = Self::new("coordination.k8s.io", "v1", "leases");
    /// Events.
    pub const EVENTS: Self = Self::new("events.k8s.io", "v1", "events");

    /// True if the server's messages about one may quote confidential content.
    pub fn is_secret(self) -> bool {
        self == Self::SECRETS || self == Self::POD_LOGS
    }

    const fn new(group: &'static str, version: &'static str, plural: &'static str) -> Self {
        Self { group, version, plural }
    }
}
