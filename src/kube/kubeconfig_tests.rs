use super::*;
use crate::kube::scripted::TempDir;

const WHOLE: &str = r#"
apiVersion: v1
kind: Config
current-context: main
preferences: {}
clusters:
- name: c1
  cluster: {server: "https://10.0.0.1:6443", certificate-authority: pki/ca.crt, tls-server-name: kubernetes}
- name: c2
  cluster: {server: "https://10.0.0.2", certificate-authority-data: "UEVN"}
- name: c3
  cluster: {server: "https://10.0.0.3", insecure-skip-tls-verify: true}
users:
- name: token
  user: {token: canary}
- name: file
  user: {token: canary, tokenFile: secrets/token}
- name: cert
  user: {client-certificate-data: Q0VSVA==, client-key-data: S0VZ}
- name: basic
  user: {username: u, password: canary}
- name: nothing
contexts:
- {name: main, context: {cluster: c1, user: token, namespace: prod}}
- {name: file, context: {cluster: c2, user: file}}
- {name: cert, context: {cluster: c3, user: cert}}
- {name: basic, context: {cluster: c3, user: basic, namespace: ""}}
- {name: anonymous, context: {cluster: c3}}
- {name: lost, context: {cluster: c9}}
"#;

#[test]
fn contexts_resolve() {
    let dir = TempDir::new();
    let path = dir.write("config", WHOLE);
    let load = |context| load(std::slice::from_ref(&path), context);

    let main = load(None).expect("main");
    assert_eq!(main.server.origin(None), "https://10.0.0.1:6443");
    assert_eq!(main.ca, Some(Ca::File(dir.path().join("pki/ca.crt"))));
    assert_eq!(main.tls_server_name.as_deref(), Some("kubernetes"));
    assert_eq!((main.auth, main.namespace.as_str()), (Auth::Token("canary".to_owned()), "prod"));

    let file = load(Some("file")).expect("file");
    assert_eq!(file.ca, Some(Ca::Pem(b"PEM".to_vec())));
    assert_eq!((file.auth, file.namespace.as_str()), (Auth::TokenFile(dir.path().join("secrets/token")), "default"));

    let cert = load(Some("cert")).expect("cert");
    assert!(cert.insecure);
    assert_eq!(cert.client_cert, Some(ClientCertPem { certificate: b"CERT".to_vec(), key: b"KEY".to_vec() }));

    let basic = load(Some("basic")).expect("basic");
    assert_eq!(basic.auth, Auth::Basic { username: "u".to_owned(), password: "canary".to_owned() });
    assert_eq!(basic.namespace, "default");
    assert_eq!(load(Some("anonymous")).expect("anonymous").auth, Auth::None);

    let error = load(Some("absent")).expect_err("absent").to_string();
    assert!(error.contains("no context named absent (there are: anonymous, basic, "), "{error}");
    let error = load(Some("lost")).expect_err("lost").to_string();
    assert!(error.contains("no cluster named c9 (there are: c1, c2, c3)"), "{error}");
}

#[test]
fn of_several_files_the_first_counts_for_each_name() {
    let dir = TempDir::new();
    std::fs::create_dir(dir.path().join("sub")).expect("mkdir");
    let first = dir.write("first", "clusters: [{name: c, cluster: {server: 'https://first', certificate-authority: ca}}]\nusers: null\n");
    let second = dir.write(
        "sub/second",
        "current-context: x\nclusters: [{name: c, cluster: {server: 'https://second'}}]\n\
         users: [{name: u, user: {tokenFile: t}}]\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n",
    );
    let third = dir.write("third", "current-context: y\n");
    let empty = dir.write("empty", "\n");
    let config = load(&[empty, dir.path().join("absent"), first, second, third], None).expect("a config");
    assert_eq!(config.server.host, "first");
    assert_eq!(config.ca, Some(Ca::File(dir.path().join("ca"))));
    assert_eq!(config.auth, Auth::TokenFile(dir.path().join("sub/t")));
}

#[test]
fn errors_are_one_line_with_place_field_and_hint_and_no_value() {
    let dir = TempDir::new();
    let with_user = |user: &str| {
        format!(
            "current-context: x\nclusters: [{{name: c, cluster: {{server: 'https://a', certificate-authority-data: UEVN}}}}]\n\
             users: [{{name: u, user: {user}}}]\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n"
        )
    };
    let with_cluster = |cluster: &str| {
        format!(
            "current-context: x\nclusters: [{{name: c, cluster: {cluster}}}]\nusers: [{{name: u, user: {{token: canary}}}}]\n\
             contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n"
        )
    };
    let cases = [
        (with_user("{exec: {command: aws}}"), "user u: exec: credential plugins are not supported yet"),
        (with_user("{auth-provider: {name: gcp}}"), "user u: auth-provider: not supported"),
        (with_user("{as: admin, token: canary}"), "user u: as: impersonation is not supported"),
        (with_user("{client-certificate-data: Q0VSVA==}"), "user u: client-key: not set"),
        (with_user("{client-key-data: canary!}"), "user u: client-key-data: not base64"),
        (with_user("{client-key: absent-file}"), "absent-file: No such file"),
        (with_user("{token: 'can ary'}"), "user u: token: holds characters"),
        (with_user("{token: [canary]}"), "not a kubeconfig: "),
        (with_user("'canary'"), "not a kubeconfig: "),
        (with_cluster("{server: 'https://a', proxy-url: 'http://canary@p'}"), "cluster c: proxy-url: proxies are not supported"),
        (with_cluster("{server: 'https://u:canary@a'}"), "cluster c: server: only scheme, host, port and path"),
        (with_cluster("{}"), "cluster c: server: not set (set it to https://HOST:PORT)"),
        (with_cluster("{server: 'http://a'}"), "server: the credential would go over an unencrypted connection"),
        (with_cluster("{server: 'https://a'}"), "certificate-authority: not set"),
        ("current-context: x\n".to_owned(), "context: no context named x (there are none)"),
        ("{}".to_owned(), "current-context: not set (use --context NAME)"),
        ("canary".to_owned(), "not a kubeconfig: "),
        ("a: [canary".to_owned(), "not a kubeconfig: "),
        ("users: 4711".to_owned(), "not a kubeconfig: users: invalid type: integer (hidden)"),
    ];
    for (text, expected) in cases {
        let path = dir.write("config", &text);
        let error = load(std::slice::from_ref(&path), None).expect_err(&text).to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("canary") && !error.contains("4711") && !error.contains('\n'), "{error}");
    }
    let absent = dir.path().join("absent");
    let error = load(&[absent], None).expect_err("absent").to_string();
    assert!(error.ends_with("absent: no such file (use --kubeconfig FILE or set KUBECONFIG)"), "{error}");
}
