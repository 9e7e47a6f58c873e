//! Names that are part of the contract: labels, annotations, paths (`docs/names.md`).

/// API group, and prefix of all labels and annotations that are ours.
pub const GROUP: &str = "quarks.cloudfoundry.org";
/// API version of a QuarksJob.
pub const API_VERSION: &str = "quarks.cloudfoundry.org/v1alpha1";
/// True for an `apiVersion` of our group, whatever the version. Another group may begin with the same letters.
pub fn is_our_group(api_version: &str) -> bool {
    api_version.split_once('/').is_some_and(|(group, _)| group == GROUP)
}

/// Kind of a QuarksJob.
pub const KIND: &str = "QuarksJob";

/// Label on a Namespace: the operator with this monitored id serves it.
pub const LABEL_MONITORED: &str = "quarks.cloudfoundry.org/monitored";
/// Label on a Namespace: the account that the sidecar acts as.
pub const LABEL_SERVICE_ACCOUNT: &str = "quarks.cloudfoundry.org/qjob-service-account";
/// Annotation on a Namespace, OpenShift's: pods there get a user of this range, and may have no other.
pub const ANNOTATION_UID_RANGE: &str = "openshift.io/sa.scc.uid-range";
/// Label on Job and pods: the QuarksJob's name, made label-safe.
pub const LABEL_QJOB_NAME: &str = "quarks.cloudfoundry.org/qjob-name";
/// Label on an output Secret: the container that wrote it.
pub const LABEL_CONTAINER_NAME: &str = "quarks.cloudfoundry.org/container-name";
/// Label on an output Secret: the container's literal env `REMOTE_ID`, made label-safe.
pub const LABEL_REMOTE_ID: &str = "quarks.cloudfoundry.org/remote-id";
/// Label on a versioned Secret; its value is `versionedSecret`.
pub const LABEL_SECRET_KIND: &str = "quarks.cloudfoundry.org/secret-kind";
/// Label on a versioned Secret: its version, a number from 1.
pub const LABEL_SECRET_VERSION: &str = "quarks.cloudfoundry.org/secret-version";
/// Pod-template label of the user: `delete: pod` removes the pods of a successful run.
pub const LABEL_DELETE: &str = "delete";

/// Annotation on a QuarksJob: the settled marker, one JSON value.
pub const ANNOTATION_SETTLED: &str = "quarks.cloudfoundry.org/settled";
/// Annotation on a QuarksJob, the user's: a new value requests one run.
pub const ANNOTATION_RUN_REQUESTED: &str = "quarks.cloudfoundry.org/run-requested";
/// Annotation on a Job: which run it is and which triggers it consumes, one JSON value.
pub const ANNOTATION_RUN: &str = "quarks.cloudfoundry.org/run";
/// Annotation on an output Secret: name of the QuarksJob that owns its content.
pub const ANNOTATION_WRITTEN_BY: &str = "quarks.cloudfoundry.org/written-by";
/// Annotation on a versioned Secret: where its content came from.
pub const ANNOTATION_SOURCE_DESCRIPTION: &str = "quarks.cloudfoundry.org/source-description";

/// Label of the Job controller on pods: the Job's UID (Kubernetes 1.27).
pub const LABEL_JOB_UID: &str = "batch.kubernetes.io/controller-uid";

/// Namespace of the operator's account, as the manifests have it.
pub const OPERATOR_NAMESPACE: &str = "quarks-job";
/// Name of the sidecar container.
pub const SIDECAR_CONTAINER: &str = "output-persist";
/// Where a mapped container writes its output files.
pub const OUTPUT_MOUNT: &str = "/mnt/quarks";
/// Where the sidecar sees the containers' volumes: one folder a container, named like it.
pub const SIDECAR_OUTPUT_ROOT: &str = "/mnt/quarks";
/// ServiceAccount of the sidecar that the manifests create, and for which they grant tokens.
pub const SIDECAR_ACCOUNT: &str = "quarks-job-sidecar";
/// Secret with the sidecar's token, one a namespace.
pub const TOKEN_SECRET: &str = "quarks-job-sidecar-token";
/// Secret with the key of config digests, one a namespace.
pub const CONFIG_KEY_SECRET: &str = "quarks-job-config-key";

/// True for the Secrets that are the operator's own in each namespace: no output goes there.
pub fn is_reserved_secret(name: &str) -> bool {
    [TOKEN_SECRET, CONFIG_KEY_SECRET].contains(&name)
}

/// Longest name of an object, and longest key of a Secret (DNS subdomain, RFC 1123; Kubernetes' `IsConfigMapKey`).
pub const NAME_MAX: usize = 253;
/// Longest label value, longest part of a label's key after its prefix, and longest name of a volume (RFC 1123 label), in bytes.
pub const LABEL_MAX: usize = 63;

/// DNS subdomain, RFC 1123: what Kubernetes asks of a Secret's name, and of most others.
pub fn is_subdomain(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && name.split('.').all(|part| {
            let bytes = part.as_bytes();
            let is_plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            bytes.first().is_some_and(is_plain)
                && bytes.last().is_some_and(is_plain)
                && bytes.iter().all(|byte| is_plain(byte) || *byte == b'-')
        })
}

/// The longest suffix of a versioned Secret that names must leave room for: more versions are not realistic. A number that does not fit
/// is an error when it is reached.
pub const LONGEST_VERSION: &str = "-v999999999";

/// Name and number of what is called like a version.
pub fn split_version(name: &str) -> Option<(&str, u64)> {
    let (base, digits) = name.rsplit_once("-v")?;
    let version: u64 = digits.parse().ok()?;
    (version > 0 && version.to_string() == digits).then_some((base, version))
}

/// Standard place of an account's token, `ca.crt` and `namespace` in a container.
pub const SERVICE_ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subdomains() {
        for good in ["a", "0", "a-b.c1", "a--b", &"a".repeat(253)] {
            assert!(is_subdomain(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a..b", ".a", "a.", "a.-b", "A", "a_b", "a/b", "ä", &"a".repeat(254)] {
            assert!(!is_subdomain(bad), "{bad}");
        }
    }
}
