//! Requests as values: path, query, body. Pure: nothing is sent from here.

use std::fmt::Write as _;

use serde::Serialize;

use crate::api::{ObjectKey, Resource, ResourceVersion, Uid};

/// HTTP methods in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
}

impl Method {
    /// Upper case, as on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// True for methods that change something on the server.
    pub fn is_write(self) -> bool {
        !matches!(self, Self::Get)
    }
}

/// `Content-Type` of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// `application/json`.
    Json,
    /// `application/merge-patch+json` (RFC 7386).
    MergePatch,
}

impl ContentType {
    /// The header's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::MergePatch => "application/merge-patch+json",
        }
    }
}

/// What happens to objects that the deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Propagation {
    /// They are deleted after it.
    Background,
    /// They are deleted before it.
    Foreground,
    /// They stay.
    Orphan,
}

/// Options of a DELETE. The propagation is always explicit: a batch/v1 Job's default orphans its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Only the object with this UID is deleted.
    pub uid: Option<Uid>,
    /// Only the object as it was at this version is deleted.
    pub resource_version: Option<ResourceVersion>,
    /// What happens to owned objects.
    pub propagation: Propagation,
}

/// `Accept` for whole objects.
pub(crate) const ACCEPT_JSON: &str = "application/json";
/// `Accept` for pod logs.
const ACCEPT_ANY: &str = "*/*";
/// `Accept` for a list without content. No fall-back to plain JSON: content must not come at all.
const ACCEPT_METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
/// `Accept` for one object, or a watch's objects, without content.
const ACCEPT_METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// One request to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// HTTP method.
    pub method: Method,
    /// Percent-encoded path below the server's prefix; starts with a slash.
    pub path: String,
    /// Query parameters, not yet encoded.
    pub query: Vec<(&'static str, String)>,
    /// Serialized body.
    pub body: Option<(ContentType, Vec<u8>)>,
    /// For metrics and messages.
    pub resource: Resource,
    /// For messages: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
    pub verb: &'static str,
    /// `Accept` header.
    pub accept: &'static str,
}

impl Request {
    fn new(method: Method, verb: &'static str, resource: Resource, path: String) -> Self {
        Self { method, path, query: Vec::new(), body: None, resource, verb, accept: ACCEPT_JSON }
    }

    /// GET of one object.
    pub fn get(resource: Resource, key: &ObjectKey) -> Self {
        Self::new(Method::Get, "get", resource, object_path(resource, key))
    }

    /// GET of a path that is not a resource, for example `/version`.
    pub fn get_path(path: &'static str) -> Self {
        let resource = Resource { group: "", version: "", plural: path.trim_start_matches('/') };
        Self::new(Method::Get, "get", resource, path.to_owned())
    }

    /// GET of a collection; an empty namespace means all namespaces, or a cluster-scoped kind.
    pub fn list(resource: Resource, namespace: &str) -> Self {
        Self::new(Method::Get, "list", resource, collection_path(resource, namespace))
    }

    /// A watch from `version` on, with bookmarks. The server ends it after `timeout_seconds`.
    pub fn watch(resource: Resource, namespace: &str, version: &ResourceVersion, timeout_seconds: u32) -> Self {
        let mut request = Self::new(Method::Get, "watch", resource, collection_path(resource, namespace));
        request.query = vec![
            ("watch", "true".to_owned()),
            ("allowWatchBookmarks", "true".to_owned()),
            ("resourceVersion", version.0.clone()),
            ("timeoutSeconds", timeout_seconds.to_string()),
        ];
        request
    }

    /// POST into a collection.
    pub fn create(resource: Resource, namespace: &str, body: &impl Serialize) -> Self {
        Self::new(Method::Post, "create", resource, collection_path(resource, namespace)).with_body(ContentType::Json, body)
    }

    /// POST of a TokenRequest for a service account.
    pub fn create_token(account: &ObjectKey, body: &impl Serialize) -> Self {
        let path = subresource_path(Resource::SERVICE_ACCOUNTS, account, "token");
        Self::new(Method::Post, "create", Resource::SERVICE_ACCOUNT_TOKENS, path).with_body(ContentType::Json, body)
    }

    /// PUT of a whole object. The body should carry a resourceVersion.
    pub fn update(resource: Resource, key: &ObjectKey, body: &impl Serialize) -> Self {
        Self::new(Method::Put, "update", resource, object_path(resource, key)).with_body(ContentType::Json, body)
    }

    /// Merge patch of an object.
    pub fn merge_patch(resource: Resource, key: &ObjectKey, body: &impl Serialize) -> Self {
        Self::new(Method::Patch, "patch", resource, object_path(resource, key)).with_body(ContentType::MergePatch, body)
    }

    /// Merge patch of a QuarksJob's `status` subresource.
    pub fn merge_patch_status(key: &ObjectKey, body: &impl Serialize) -> Self {
        let path = subresource_path(Resource::QUARKS_JOBS, key, "status");
        Self::new(Method::Patch, "patch", Resource::QUARKS_JOB_STATUS, path).with_body(ContentType::MergePatch, body)
    }

    /// DELETE of one object.
    pub fn delete(resource: Resource, key: &ObjectKey, options: &DeleteOptions) -> Self {
        let DeleteOptions { uid, resource_version, propagation } = options;
        let mut body = serde_json::json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
        });
        if let Some(uid) = uid {
            body["preconditions"]["uid"] = uid.as_str().into();
        }
        if let Some(version) = resource_version {
            body["preconditions"]["resourceVersion"] = version.as_str().into();
        }
        Self::new(Method::Delete, "delete", resource, object_path(resource, key)).with_body(ContentType::Json, &body)
    }

    /// GET of a container's log.
    pub fn pod_log(key: &ObjectKey, container: &str) -> Self {
        let path = subresource_path(Resource::PODS, key, "log");
        let mut request = Self::new(Method::Get, "get", Resource::POD_LOGS, path).with_query("container", container);
        request.accept = ACCEPT_ANY;
        request
    }

    /// Adds a query parameter.
    pub fn with_query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// Restricts a list or watch by labels.
    pub fn label_selector(self, selector: &str) -> Self {
        self.with_query("labelSelector", selector)
    }

    /// Restricts a list or watch by fields.
    pub fn field_selector(self, selector: &str) -> Self {
        self.with_query("fieldSelector", selector)
    }

    /// At most so many objects in one page of a list.
    pub fn limit(self, limit: u32) -> Self {
        self.with_query("limit", limit.to_string())
    }

    /// The next page of a list. A page token never goes with a resourceVersion.
    pub fn continue_token(self, token: &str) -> Self {
        debug_assert!(!self.query.iter().any(|(name, _)| *name == "resourceVersion"));
        self.with_query("continue", token)
    }

    /// Asks for metadata only: content of Secrets and ConfigMaps is then not even sent.
    pub fn metadata_only(mut self) -> Self {
        self.accept = if self.verb == "list" { ACCEPT_METADATA_LIST } else { ACCEPT_METADATA };
        self
    }

    fn with_body(mut self, content_type: ContentType, body: &impl Serialize) -> Self {
        let bytes = serde_json::to_vec(body).expect("wire types are plain data with string keys: serializing them cannot fail");
        self.body = Some((content_type, bytes));
        self
    }

    /// Path with the encoded query.
    pub fn path_and_query(&self) -> String {
        let mut text = self.path.clone();
        for (index, (name, value)) in self.query.iter().enumerate() {
            text.push(if index == 0 { '?' } else { '&' });
            text.push_str(name);
            text.push('=');
            encode_into(&mut text, value);
        }
        text
    }
}

fn collection_path(resource: Resource, namespace: &str) -> String {
    let Resource { group, version, plural } = resource;
    let mut path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    if !namespace.is_empty() {
        path.push_str("/namespaces/");
        encode_into(&mut path, namespace);
    }
    path.push('/');
    path.push_str(plural);
    path
}

fn object_path(resource: Resource, key: &ObjectKey) -> String {
    let mut path = collection_path(resource, &key.namespace);
    path.push('/');
    encode_into(&mut path, &key.name);
    path
}

fn subresource_path(resource: Resource, key: &ObjectKey, subresource: &'static str) -> String {
    let mut path = object_path(resource, key);
    path.push('/');
    path.push_str(subresource);
    path
}

/// Percent-encodes everything but RFC 3986 unreserved characters. A segment of dots only would be
/// taken for "this folder" or "the one above" on the way, and dots have no other spelling there,
/// so they are encoded too.
fn encode_into(out: &mut String, text: &str) {
    let only_dots = text.bytes().all(|byte| byte == b'.');
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => out.push(byte as char),
            b'.' if !only_dots => out.push('.'),
            _ => write!(out, "%{byte:02X}").expect("writing to a String cannot fail"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ObjectKey {
        ObjectKey::new("ns", "a")
    }

    #[test]
    fn paths_and_queries() {
        let cluster = ObjectKey::new("", "ns");
        let cases = [
            (Request::get(Resource::JOBS, &key()), "get", "/apis/batch/v1/namespaces/ns/jobs/a"),
            (Request::get(Resource::NAMESPACES, &cluster), "get", "/api/v1/namespaces/ns"),
            (Request::get(Resource::SECRETS, &ObjectKey::new("ns", "a/../b?c")), "get", "/api/v1/namespaces/ns/secrets/a%2F..%2Fb%3Fc"),
            (Request::get(Resource::SECRETS, &ObjectKey::new("..", "a.b")), "get", "/api/v1/namespaces/%2E%2E/secrets/a.b"),
            (Request::list(Resource::QUARKS_JOBS, ""), "list", "/apis/quarks.cloudfoundry.org/v1alpha1/quarksjobs"),
            (
                Request::list(Resource::PODS, "ns").label_selector("a=b,c!=d").limit(250).continue_token("x+y=="),
                "list",
                "/api/v1/namespaces/ns/pods?labelSelector=a%3Db%2Cc%21%3Dd&limit=250&continue=x%2By%3D%3D",
            ),
            (
                Request::watch(Resource::PODS, "ns", &"12".into(), 200).field_selector("metadata.name=p"),
                "watch",
                "/api/v1/namespaces/ns/pods?watch=true&allowWatchBookmarks=true&resourceVersion=12&timeoutSeconds=200&fieldSelector=metadata.name%3Dp",
            ),
            (
                Request::create(Resource::JOBS, "ns", &serde_json::json!({})).with_query("fieldValidation", "Warn"),
                "create",
                "/apis/batch/v1/namespaces/ns/jobs?fieldValidation=Warn",
            ),
            (Request::create_token(&key(), &serde_json::json!({})), "create", "/api/v1/namespaces/ns/serviceaccounts/a/token"),
            (
                Request::merge_patch_status(&key(), &serde_json::json!({})),
                "patch",
                "/apis/quarks.cloudfoundry.org/v1alpha1/namespaces/ns/quarksjobs/a/status",
            ),
            (Request::pod_log(&key(), "main"), "get", "/api/v1/namespaces/ns/pods/a/log?container=main"),
            (Request::get_path("/version"), "get", "/version"),
        ];
        for (request, verb, expected) in cases {
            assert_eq!(request.path_and_query(), expected);
            assert_eq!(request.verb, verb);
        }
    }

    #[test]
    fn a_delete_always_names_its_propagation() {
        let cases = [
            (
                None,
                None,
                Propagation::Orphan,
                serde_json::json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Orphan"}),
            ),
            (
                Some("u".into()),
                Some("7".into()),
                Propagation::Background,
                serde_json::json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background",
                    "preconditions": {"uid": "u", "resourceVersion": "7"}}),
            ),
        ];
        for (uid, resource_version, propagation, expected) in cases {
            let request = Request::delete(Resource::JOBS, &key(), &DeleteOptions { uid, resource_version, propagation });
            let (content_type, bytes) = request.body.expect("a body");
            assert_eq!(content_type.as_str(), "application/json");
            assert_eq!(serde_json::from_slice::<serde_json::Value>(&bytes).expect("json"), expected);
        }
    }

    #[test]
    fn bodies_carry_their_content_type() {
        let body = serde_json::json!({"a": null});
        let cases = [
            (Request::update(Resource::SECRETS, &key(), &body), Method::Put, "application/json"),
            (Request::merge_patch(Resource::SECRETS, &key(), &body), Method::Patch, "application/merge-patch+json"),
        ];
        for (request, method, content_type) in cases {
            assert_eq!(request.method, method);
            let (kind, bytes) = request.body.expect("a body");
            assert_eq!(kind.as_str(), content_type);
            assert_eq!(bytes, br#"{"a":null}"#);
        }
    }

    #[test]
    fn metadata_only_has_no_fall_back() {
        assert!(Request::list(Resource::SECRETS, "ns").metadata_only().accept.contains("as=PartialObjectMetadataList;"));
        let watch = Request::watch(Resource::SECRETS, "ns", &"1".into(), 1).metadata_only();
        assert!(watch.accept.contains("as=PartialObjectMetadata;"));
        assert!(!watch.accept.contains(','));
    }
}
