//! What the manifests say of each other: copies do not drift, and what is optional stands alone.
#![forbid(unsafe_code)]

use serde::Deserialize as _;
use serde_json::{Value, json};

fn read(manifest: &str) -> String {
    let path = format!("{}/manifests/{manifest}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The objects of this kind.
fn objects(manifest: &str, kind: &str) -> Vec<Value> {
    let text = read(manifest);
    let all = serde_yaml::Deserializer::from_str(&text).map(|document| Value::deserialize(document).expect("valid YAML"));
    all.filter(|object| object["kind"] == kind).collect()
}

fn deployment(manifest: &str) -> Value {
    objects(manifest, "Deployment").pop().unwrap_or_else(|| panic!("{manifest} has a Deployment"))
}

const DEPLOYMENTS: [&str; 3] = ["operator.yaml", "openshift.yaml", "fixed-namespaces/operator.yaml"];

#[test]
fn the_deployment_for_openshift_is_the_usual_one_without_a_fixed_user() {
    let mut usual = deployment("operator.yaml");
    let context = usual["spec"]["template"]["spec"]["securityContext"].as_object_mut().expect("a context");
    assert_eq!((context.remove("runAsUser"), context.remove("runAsGroup")), (Some(json!(65532)), Some(json!(65532))));
    assert_eq!(deployment("openshift.yaml"), usual);
}

/// Kustomize reads no file from outside of a component's folder, so the file is there, and users have it where it always was.
#[test]
fn files_of_components_are_where_users_apply_them() {
    for (usual, file) in [
        ("leader-election.yaml", "components/leader-election/leader-election.yaml"),
        ("network-policy.yaml", "components/network-policy/network-policy.yaml"),
        ("monitored-namespace.yaml", "monitored-namespace/monitored-namespace.yaml"),
    ] {
        assert_eq!(read(usual), read(file), "{usual} is a link, or on systems without links a copy");
        assert!(read(file).starts_with("# "), "{file}");
    }
}

#[test]
fn each_component_is_on_the_page() {
    let folder = std::fs::read_dir(format!("{}/manifests/components", env!("CARGO_MANIFEST_DIR"))).expect("a folder");
    let mut names: Vec<String> = folder.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    let page = std::fs::read_to_string(format!("{}/docs/install.md", env!("CARGO_MANIFEST_DIR"))).expect("readable");
    let (_, table) = page.split_once("| component | what it does |\n|---|---|\n").expect("the table of the components");
    let rows = table.lines().map_while(|line| line.strip_prefix("| `")?.split_once('`'));
    let mut on_page: Vec<&str> = rows.map(|(name, _)| name).collect();
    on_page.sort_unstable();
    assert_eq!(on_page, names);
}

/// A rule file of Prometheus cannot be an object of Kubernetes, and kustomize cannot put one into the other.
#[test]
fn the_rules_of_the_prometheus_operator_are_those_of_the_alerts() {
    let alerts: Value = serde_yaml::from_str(&read("monitoring/alerts.yml")).expect("valid YAML");
    let rule = objects("components/prometheus-operator/prometheus-operator.yaml", "PrometheusRule").pop().expect("one");
    assert!(alerts["groups"][0]["rules"].as_array().is_some_and(|rules| rules.len() > 5));
    assert_eq!(rule["spec"], alerts, "copy the groups of monitoring/alerts.yml under spec, two spaces further in");
}

#[test]
fn the_images_of_operator_and_sidecar_are_the_same() {
    for manifest in DEPLOYMENTS {
        let pod = &deployment(manifest)["spec"]["template"];
        let annotation = "quarks.cloudfoundry.org/sidecar-image";
        assert_eq!(pod["spec"]["containers"][0]["image"], pod["metadata"]["annotations"][annotation], "{manifest}");
        let env = pod["spec"]["containers"][0]["env"].as_array().expect("variables");
        let field = json!({"fieldRef": {"fieldPath": format!("metadata.annotations['{annotation}']")}});
        assert!(env.contains(&json!({"name": "IMAGE", "valueFrom": field})), "{manifest}");
    }
}

#[test]
fn two_replicas_are_spread_over_nodes() {
    for manifest in DEPLOYMENTS {
        let template = &deployment(manifest)["spec"]["template"];
        let spread = &template["spec"]["topologySpreadConstraints"][0];
        assert_eq!(spread["topologyKey"], "kubernetes.io/hostname", "{manifest}");
        // One replica alone, or two on a single node, must start all the same.
        assert_eq!(spread["whenUnsatisfiable"], "ScheduleAnyway", "{manifest}");
        assert_eq!(spread["labelSelector"]["matchLabels"], template["metadata"]["labels"], "{manifest}");
    }
}

#[test]
fn the_network_policy_is_about_the_operators_pods_and_its_one_port() {
    let policy = objects("network-policy.yaml", "NetworkPolicy").pop().expect("a policy");
    for manifest in DEPLOYMENTS {
        let deployment = deployment(manifest);
        let pod = &deployment["spec"]["template"];
        assert_eq!(policy["metadata"]["namespace"], deployment["metadata"]["namespace"], "{manifest}");
        assert_eq!(policy["spec"]["podSelector"]["matchLabels"], pod["metadata"]["labels"], "{manifest}");
        let ports = pod["spec"]["containers"][0]["ports"].as_array().expect("ports");
        assert_eq!(json!([{"protocol": "TCP", "port": ports[0]["containerPort"]}]), policy["spec"]["ingress"][0]["ports"], "{manifest}");
        assert_eq!(ports.len(), 1, "{manifest}");
    }
    let spec = &policy["spec"];
    assert_eq!(spec["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(spec["ingress"].as_array().map(Vec::len), Some(1));
    assert_eq!(spec["ingress"][0]["from"][0]["namespaceSelector"]["matchLabels"], json!({"kubernetes.io/metadata.name": "monitoring"}));
    assert_eq!(spec["egress"], json!([{"ports": [{"protocol": "TCP", "port": 443}, {"protocol": "TCP", "port": 6443}]}]));
}

#[test]
fn rules_that_one_feature_needs_stand_alone_and_say_so() {
    for (manifest, kind) in [("operator.yaml", "ClusterRole"), ("fixed-namespaces/namespace.yaml", "Role")] {
        let roles = objects(manifest, kind);
        let role = roles.iter().find(|role| role["metadata"]["name"] == "quarks-job-sidecar").expect("the sidecar's role");
        let rules = role["rules"].as_array().expect("rules");
        for (mark, resource, verb) in
            [("  # Only for spec.output.namePrefix", "pods/log", "get"), ("  # Only for versioned output", "secrets", "list")]
        {
            let grants = |rule: &&Value| {
                rule["resources"] == json!([resource]) && rule["verbs"].as_array().is_some_and(|verbs| verbs.contains(&json!(verb)))
            };
            let granting: Vec<&Value> = rules.iter().filter(grants).collect();
            assert_eq!(granting, [&json!({"apiGroups": [""], "resources": [resource], "verbs": [verb]})], "{manifest}");
            let text = read(manifest);
            let (_, after) = text.split_once(mark).unwrap_or_else(|| panic!("{manifest} marks {resource}"));
            let rule: Vec<&str> = after.lines().skip(1).map(str::trim).take(3).collect();
            assert_eq!(rule, ["- apiGroups: [\"\"]", &format!("resources: [{resource}]"), &format!("verbs: [{verb}]")], "{manifest}");
        }
    }
}
