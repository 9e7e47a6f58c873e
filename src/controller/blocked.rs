//! A right is missing: what is said, where, and what helps.

use crate::index::SharedIndex;

/// The command that gives the operator its rights: in a namespace, or, without one, in the cluster.
pub fn remedy(index: &SharedIndex, namespace: &str) -> String {
    if namespace.is_empty() {
        return "kubectl apply -f manifests/operator.yaml".to_owned();
    }
    let manifest = if index.read().is_fixed() { "fixed-namespaces/namespace.yaml" } else { "monitored-namespace.yaml" };
    format!("kubectl apply -n {namespace} -f manifests/{manifest}")
}
