//! What the manifests say of each other: copies do not drift, and what is optional stands alone.
#![forbid(unsafe_code)]

use serde::Deserialize as _;
use serde_json::{Value, json};

#[allow(dead_code)]
#[path = "docs/pages.rs"]
mod pages;

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

/// The commands in the head of a manifest, a text for each block of them.
fn commands(manifest: &str) -> Vec<String> {
    let mut blocks = vec![String::new()];
    for line in read(manifest).lines().take_while(|line| line.starts_with('#')) {
        match line.strip_prefix("#   ") {
            Some(command) => *blocks.last_mut().expect("one at least") += &format!("{command}\n"),
            None => blocks.push(String::new()),
        }
    }
    blocks.retain(|block| !block.is_empty());
    blocks
}

#[test]
fn the_commands_for_openshift_are_complete_and_the_same_as_in_the_docs() {
    let commands = commands("openshift.yaml");
    assert_eq!(commands.len(), 2, "by label, and with fixed namespaces");
    let in_docs: Vec<String> =
        pages::pages().iter().flat_map(|page| pages::blocks(page).expect("blocks that end")).map(|block| block.body).collect();
    for block in &commands {
        assert!(in_docs.contains(block), "no page has this block:\n{block}");
        // What they apply by a pipe names no placeholder; and no user, but in what openshift.yaml comes after.
        let printed = format!("kubectl() {{ :; }}\n{}", block.replace("kubectl apply -f -", "cat"));
        let output = std::process::Command::new("sh").args(["-ec", &printed]).current_dir(env!("CARGO_MANIFEST_DIR")).output();
        let output = output.expect("a shell");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let lines = || text.lines().filter(|line| !line.starts_with('#'));
        let count = |what: &str| lines().filter(|line| line.contains(what)).count();
        assert!(output.status.success() && count("quarks-job:dev") + count("team-a") == 0, "{block}");
        let deployments = count("kind: Deployment");
        assert_eq!((count("REGISTRY/quarks-job:TAG"), count(": 65532")), (2 * deployments, 2 * (deployments - 1)), "{block}");
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
