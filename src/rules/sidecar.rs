//! The sidecar's user, resources and volumes, from the operator's flags and the pod's spec. Pure.

use serde_json::{Map, Value, json};

use crate::canonical::{amount, thousandths};

use super::objects::object_at;

/// User and group of the sidecar where no others are set.
const UID: i32 = 65532;
/// Requests and limits of the sidecar. It waits most of the time; its peak is a few times the size of the largest output file.
const RESOURCES: &str = "cpu=5m:100m,memory=8Mi:32Mi";

/// What the sidecar may do, besides its user.
const CONTEXT: &str = r#"{"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"}}"#;

/// What a constant says. `json!` would be some hundred bytes of code for each field.
pub(super) fn parsed(json: &'static str) -> Value {
    crate::json::from_slice(json.as_bytes()).expect("a constant, which tests read")
}

/// As whom the sidecar runs: `--sidecar-user`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SidecarUser {
    /// As the container whose files it reads.
    #[default]
    Auto,
    /// Nothing is set: the pod, the namespace or the image says it.
    Unset,
    /// As this user and group.
    Fixed(i32, i32),
}

impl SidecarUser {
    /// `auto`, `none`, `UID` or `UID:GID`; a group that is not named has the number of the user.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| text.parse().ok().filter(|number: &i32| *number >= 0);
        let (user, group) = text.split_once(':').unwrap_or((text, text));
        Some(match text {
            "auto" => Self::Auto,
            "none" => Self::Unset,
            _ => Self::Fixed(number(user)?, number(group)?),
        })
    }

    /// The sidecar's `securityContext`, in a pod with this one. `own` is what the containers say whose files it reads. A namespace that gives
    /// pods their users refuses all others.
    pub fn context(self, assigns_users: bool, pod: Option<&Value>, own: &dyn Fn(&str) -> Option<i64>) -> Value {
        let of_pod = |name: &str| pod?.get(name)?.as_i64();
        let user = match self {
            Self::Auto if assigns_users => None,
            Self::Auto => Some(own("runAsUser").or_else(|| of_pod("runAsUser")).unwrap_or_else(|| UID.into())),
            Self::Unset => None,
            Self::Fixed(user, _) => Some(user.into()),
        };
        let is_root = user.or_else(|| of_pod("runAsUser")) == Some(0);
        let mut context = parsed(CONTEXT);
        context["runAsNonRoot"] = json!(!is_root);
        if let Some(user) = user {
            let default = if is_root { 0 } else { UID };
            let group = match self {
                Self::Fixed(_, group) => group.into(),
                _ => own("runAsGroup").or_else(|| of_pod("runAsGroup")).unwrap_or_else(|| default.into()),
            };
            context["runAsUser"] = json!(user);
            context["runAsGroup"] = json!(group);
        }
        context
    }
}

/// Requests and limits that `--sidecar-resources` says, over those that are usual; or the part that is wrong, and why.
pub fn resources(text: &str) -> Result<Map<String, Value>, (&str, &'static str)> {
    let mut resources = Map::new();
    for entries in [RESOURCES, text] {
        let mut named = Vec::new();
        for entry in entries.split(',').filter(|_| !entries.is_empty()) {
            let Some((kind, request, limit)) = kind_and_amounts(entry) else {
                return Err((
                    entry,
                    "is not a valid resource; use KIND=REQUEST:LIMIT, for example cpu=5m:100m or memory=8Mi:32Mi (either amount may be empty)",
                ));
            };
            if !limit.is_empty() && thousandths(request) > thousandths(limit) {
                return Err((entry, "requests more than its limit"));
            }
            if named.contains(&kind) {
                return Err((entry, "repeats a resource; list each once"));
            }
            named.push(kind);
            for (part, amount) in [("requests", request), ("limits", limit)] {
                let amounts = object_at(&mut resources, part);
                amounts.remove(kind);
                if !amount.is_empty() {
                    amounts.insert(kind.to_owned(), amount.into());
                }
            }
        }
    }
    Ok(resources)
}

/// `cpu=REQUEST:LIMIT`, each a quantity or empty.
fn kind_and_amounts(entry: &str) -> Option<(&str, &str, &str)> {
    let (kind, amounts) = entry.trim().split_once('=')?;
    let (request, limit) = amounts.split_once(':')?;
    // There are thousandths of a CPU, and not of a byte.
    let is_amount = |amount: i64| amount >= 0 && (kind == "cpu" || amount % 1_000 == 0);
    let is_valid = |text: &str| text.is_empty() || thousandths(text).is_some_and(is_amount);
    let is_kind = matches!(kind, "cpu" | "memory" | "ephemeral-storage");
    (is_kind && is_valid(request) && is_valid(limit)).then_some((kind, request, limit))
}

/// Requests and limits of the sidecar in this pod, before it has the sidecar. A pod with resources of its own shares them, and one that
/// would be of class Guaranteed stays so.
pub fn resources_in(pod_spec: &Map<String, Value>, settings: &Map<String, Value>) -> Map<String, Value> {
    let of_pod = |part: &str| pod_spec.get("resources")?.get(part)?.as_object();
    if ["requests", "limits"].into_iter().any(|part| of_pod(part).is_some_and(|amounts| !amounts.is_empty())) {
        return Map::new();
    }
    let mut resources = settings.clone();
    if is_guaranteed(pod_spec) {
        for kind in ["cpu", "memory"] {
            let of = |part: &str| settings.get(part)?.get(kind);
            if let Some(amount) = of("limits").or_else(|| of("requests")) {
                for part in ["requests", "limits"] {
                    object_at(&mut resources, part).insert(kind.to_owned(), amount.clone());
                }
            }
        }
    }
    resources
}

/// True if each container has limits for CPU and memory, and no other requests.
fn is_guaranteed(pod_spec: &Map<String, Value>) -> bool {
    let mut containers = ["containers", "initContainers"].into_iter().filter_map(|list| pod_spec.get(list)?.as_array()).flatten();
    containers.all(|container| {
        ["cpu", "memory"].into_iter().all(|kind| {
            let of = |part: &str| container.get("resources")?.get(part)?.get(kind).and_then(amount);
            of("limits").is_some_and(|limit| limit.0 > 0 && of("requests").is_none_or(|request| request == limit))
        })
    })
}

/// The output volumes, an `emptyDir`.
pub fn volume(size_limit: Option<String>, medium: Option<String>) -> Map<String, Value> {
    let mut volume = Map::new();
    for (name, value) in [("sizeLimit", size_limit), ("medium", medium)] {
        if let Some(value) = value {
            volume.insert(name.to_owned(), Value::String(value));
        }
    }
    volume
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named_by_words_or_numbers() {
        for (text, expected) in [
            ("auto", Some(SidecarUser::Auto)),
            ("none", Some(SidecarUser::Unset)),
            ("1000", Some(SidecarUser::Fixed(1000, 1000))),
            ("1000:0", Some(SidecarUser::Fixed(1000, 0))),
            ("2147483647:1", Some(SidecarUser::Fixed(i32::MAX, 1))),
            ("2147483648", None),
            ("-1", None),
            ("1000:", None),
            (":1000", None),
            ("1:2:3", None),
            ("root", None),
            ("auto:1", None),
            ("", None),
        ] {
            assert_eq!(SidecarUser::parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_sidecar_has_the_user_that_the_flag_the_pod_and_the_namespace_leave_it() {
        const AUTO: SidecarUser = SidecarUser::Auto;
        const UNSET: SidecarUser = SidecarUser::Unset;
        let (none, root) = (json!({}), json!({"runAsUser": 0}));
        let (pod, main) = (json!({"runAsUser": 7, "runAsGroup": 8}), json!({"runAsUser": 9, "runAsGroup": 1}));
        for (setting, assigns, pod, container, expected, is_non_root) in [
            (AUTO, false, &none, &none, Some((65532, 65532)), true),
            (AUTO, false, &pod, &none, Some((7, 8)), true),
            (AUTO, false, &pod, &main, Some((9, 1)), true),
            (AUTO, false, &root, &none, Some((0, 0)), false),
            (AUTO, true, &none, &none, None, true),
            (AUTO, true, &pod, &main, None, true),
            (AUTO, true, &root, &none, None, false),
            (UNSET, false, &none, &none, None, true),
            // What is set beside it says nothing of the sidecar.
            (UNSET, false, &none, &root, None, true),
            (UNSET, false, &root, &none, None, false),
            (SidecarUser::Fixed(5, 6), false, &root, &main, Some((5, 6)), true),
            (SidecarUser::Fixed(5, 6), true, &none, &none, Some((5, 6)), true),
            (SidecarUser::Fixed(0, 6), false, &none, &none, Some((0, 6)), false),
        ] {
            let context = setting.context(assigns, Some(pod), &|name| container.get(name)?.as_i64());
            let number = |name: &str| context.get(name).and_then(Value::as_i64);
            let found = number("runAsUser").zip(number("runAsGroup"));
            assert_eq!(
                (found, context["runAsNonRoot"].as_bool()),
                (expected, Some(is_non_root)),
                "{setting:?} {assigns} {pod} {container}"
            );
            assert!(expected.is_some() || context.get("runAsUser").or(context.get("runAsGroup")).is_none(), "{context}");
            for (name, value) in [
                ("allowPrivilegeEscalation", json!(false)),
                ("readOnlyRootFilesystem", json!(true)),
                ("capabilities", json!({"drop": ["ALL"]})),
                ("seccompProfile", json!({"type": "RuntimeDefault"})),
            ] {
                assert_eq!(context[name], value, "{name}");
            }
        }
        assert_eq!(AUTO.context(false, None, &|_| None)["runAsUser"], 65532);
    }

    #[test]
    fn what_is_named_stands_over_what_is_usual() {
        let usual = json!({"requests": {"cpu": "5m", "memory": "8Mi"}, "limits": {"cpu": "100m", "memory": "32Mi"}});
        for (text, expected) in [
            ("", usual.clone()),
            ("cpu=5m:100m,memory=8Mi:32Mi", usual),
            ("cpu=50m:", json!({"requests": {"cpu": "50m", "memory": "8Mi"}, "limits": {"memory": "32Mi"}})),
            ("memory=:64Mi", json!({"requests": {"cpu": "5m"}, "limits": {"cpu": "100m", "memory": "64Mi"}})),
            ("cpu=:, memory=:", json!({"requests": {}, "limits": {}})),
            (
                "ephemeral-storage=1Mi:1G,cpu=0.1:100m",
                json!({"requests": {"cpu": "0.1", "memory": "8Mi", "ephemeral-storage": "1Mi"},
                    "limits": {"cpu": "100m", "memory": "32Mi", "ephemeral-storage": "1G"}}),
            ),
        ] {
            assert_eq!(resources(text).map(Value::Object), Ok(expected), "{text:?}");
        }
        for (text, part, why) in [
            ("cpu", "cpu", "is not a valid resource"),
            ("cpu=5m", "cpu=5m", "is not a valid resource"),
            ("memory=8Mi:32Mi,", "", "is not a valid resource"),
            ("gpu=1:1", "gpu=1:1", "is not a valid resource"),
            ("cpu=much:", "cpu=much:", "is not a valid resource"),
            ("cpu=-1:", "cpu=-1:", "is not a valid resource"),
            ("cpu=100u:", "cpu=100u:", "is not a valid resource"),
            ("cpu=1:2:3", "cpu=1:2:3", "is not a valid resource"),
            ("memory=8MB:32MB", "memory=8MB:32MB", "is not a valid resource"),
            ("memory=8Mi:100m", "memory=8Mi:100m", "is not a valid resource"),
            ("ephemeral-storage=:0.5", "ephemeral-storage=:0.5", "is not a valid resource"),
            ("cpu=5m:100m,memory=:,cpu=5m:100m", "cpu=5m:100m", "repeats a resource"),
            ("memory=1Mi:, memory=1Mi:", " memory=1Mi:", "repeats a resource"),
            ("memory=1Gi:1G", "memory=1Gi:1G", "requests more"),
            ("cpu=5m:100m,memory=33Mi:32Mi", "memory=33Mi:32Mi", "requests more"),
        ] {
            let (found, message) = resources(text).expect_err(text);
            assert!(found == part && message.starts_with(why), "{text:?}: {found:?} {message}");
        }
    }

    #[test]
    fn a_guaranteed_pod_stays_so_and_pod_level_resources_are_shared() {
        let equal = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
        let limits = json!({"limits": {"cpu": 1, "memory": "1Gi"}});
        let settings = |text: &str| resources(text).expect("valid");
        let in_pod = |pod: &Value, text: &str| resources_in(pod.as_object().expect("a pod"), &settings(text));
        let pod = |main: &Value, init: &Value| json!({"containers": [{"resources": limits}, {"resources": main}], "initContainers": [{"resources": init}]});
        for other in [
            json!({}),
            json!({"requests": {"cpu": "1", "memory": "1Gi"}}),
            json!({"limits": {"cpu": "1"}}),
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "5m"}}),
            json!({"limits": {"cpu": "0", "memory": "1Gi"}}),
        ] {
            assert_eq!(in_pod(&pod(&other, &equal), ""), settings(""), "{other}");
            assert_eq!(in_pod(&pod(&equal, &other), ""), settings(""), "{other}");
        }
        let both = |cpu: &str, memory: &str| json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}});
        for pod in [pod(&equal, &limits), json!({"containers": [{"resources": equal}]})] {
            assert_eq!(Value::Object(in_pod(&pod, "")), both("100m", "32Mi"));
            assert_eq!(Value::Object(in_pod(&pod, "cpu=20m:,memory=:64Mi")), both("20m", "64Mi"));
        }
        for (own, is_shared) in [
            (json!({"limits": {"memory": "1Gi"}}), true),
            (json!({"requests": {"cpu": "1"}, "limits": null}), true),
            (json!({"limits": {}}), false),
            (json!({}), false),
            (Value::Null, false),
        ] {
            let mut pod = pod(&json!({}), &json!({}));
            pod["resources"] = own;
            assert_eq!(in_pod(&pod, ""), if is_shared { Map::new() } else { settings("") }, "{pod}");
        }
    }

    #[test]
    fn volumes_have_what_was_asked_for_and_nothing_else() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(Value::Object(volume(None, None)), json!({}));
        assert_eq!(Value::Object(volume(some("64Mi"), some("Memory"))), json!({"sizeLimit": "64Mi", "medium": "Memory"}));
    }
}
