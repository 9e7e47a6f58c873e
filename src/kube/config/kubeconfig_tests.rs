use crate::kube::scripted::TempDir;

use super::*;

/// Variables of a shell without any.
fn bare(_: &str) -> Option<String> {
    None
}

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
  user: {tokenFile: secrets/token}
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
    let load = |context| load(std::slice::from_ref(&path), context, &bare);

    let main = load(None).expect("main");
    assert_eq!(main.server.origin(), "https://10.0.0.1:6443");
    assert_eq!(main.ca, Some(Pem::File(dir.path().join("pki/ca.crt"))));
    assert_eq!(main.tls_server_name.as_deref(), Some("kubernetes"));
    assert_eq!((main.auth, main.namespace.as_str()), (Auth::Token("canary".to_owned()), "prod"));

    let file = load(Some("file")).expect("file");
    assert_eq!(file.ca, Some(Pem::Data(b"PEM".to_vec())));
    assert_eq!((file.auth, file.namespace.as_str()), (Auth::TokenFile(dir.path().join("secrets/token")), "default"));

    let cert = load(Some("cert")).expect("cert");
    assert!(cert.insecure);
    let (certificate, key) = (Pem::Data(b"CERT".to_vec()), Pem::Data(b"KEY".to_vec()));
    assert_eq!(cert.client_cert, Some(ClientCert { certificate, key, user: "user cert: ".to_owned() }));

    let basic = load(Some("basic")).expect("basic");
    assert_eq!(basic.auth, Auth::Basic { username: "u".to_owned(), password: "canary".to_owned() });
    assert_eq!(basic.namespace, "default");
    assert_eq!(load(Some("anonymous")).expect("anonymous").auth, Auth::None);

    let error = load(Some("absent")).expect_err("absent").to_string();
    assert!(error.contains("no context named absent (available: anonymous, basic, "), "{error}");
    let error = load(Some("lost")).expect_err("lost").to_string();
    assert!(error.contains("no cluster named c9 (available: c1, c2, c3)"), "{error}");
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
    let config = load(&[empty, dir.path().join("absent"), first, second, third], None, &bare).expect("a config");
    assert_eq!(config.server.host, "first");
    assert_eq!(config.ca, Some(Pem::File(dir.path().join("ca"))));
    assert_eq!(config.auth, Auth::TokenFile(dir.path().join("sub/t")));
}

fn with_user(user: &str) -> String {
    format!(
        "current-context: x\nclusters: [{{name: c, cluster: {{server: 'https://a', certificate-authority-data: UEVN}}}}]\n\
         users: [{{name: u, user: {user}}}]\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n"
    )
}

fn with_cluster(cluster: &str) -> String {
    format!(
        "current-context: x\nclusters: [{{name: c, cluster: {cluster}}}]\nusers: [{{name: u, user: {{token: canary}}}}]\n\
         contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n"
    )
}

/// The error of each content holds this text, is one line with the place, and holds no value.
fn refused(cases: impl IntoIterator<Item = (String, &'static str)>) {
    let dir = TempDir::new();
    for (text, expected) in cases {
        let path = dir.write("config", &text);
        let error = load(std::slice::from_ref(&path), None, &bare).expect_err(&text).to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("canary") && !error.contains("4711") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn errors_about_a_user_are_one_line_with_place_field_and_hint_and_no_value() {
    let exec = |fields: &str| with_user(&format!("{{exec: {{apiVersion: client.authentication.k8s.io/v1, {fields}}}}}"));
    refused([
        (with_user("{exec: {command: aws}}"), "user u: exec.apiVersion: is not a supported version"),
        (
            with_user("{exec: {apiVersion: client.authentication.k8s.io/v1alpha1, command: aws}}"),
            "user u: exec.apiVersion: is not a supported version",
        ),
        (with_user("{exec: canary}"), "user u: exec: must be a mapping"),
        (exec("command: aws"), "user u: exec.interactiveMode: not set"),
        (exec("command: aws, interactiveMode: Always"), "user u: exec.interactiveMode: Always requires a terminal"),
        (exec("command: aws, interactiveMode: canary"), "user u: exec.interactiveMode: is not a valid mode"),
        (exec("interactiveMode: Never"), "user u: exec.command: not set"),
        (exec("interactiveMode: Never, command: [canary]"), "user u: exec.command: must be a string"),
        (exec("interactiveMode: Never, command: a, args: canary"), "user u: exec.args: must be a list"),
        (exec("interactiveMode: Never, command: a, args: [4711]"), "user u: exec.args: must contain only strings"),
        (exec("interactiveMode: Never, command: a, env: [{value: canary}]"), "user u: exec.env: an entry has no valid name"),
        (exec("interactiveMode: Never, command: a, env: [canary]"), "user u: exec.env: an entry has no valid name"),
        (
            exec("interactiveMode: Never, command: a, env: [{name: PORT, value: 4711}]"),
            "exec.env: value must be a string (put it in quotes)",
        ),
        (exec("interactiveMode: Never, command: a, env: [{name: A, value: true}]"), "exec.env: value must be a string (put it in quotes)"),
        (exec("interactiveMode: Never, command: a, provideClusterInfo: canary"), "user u: exec.provideClusterInfo: must be true or false"),
        (with_user("{auth-provider: {name: gcp}}"), "user u: auth-provider: not supported"),
        (with_user("{as: admin, token: canary}"), "user u: as: impersonation is not supported"),
        (with_user("{as-groups: [admins], token: canary}"), "user u: as-groups: impersonation is not supported"),
        (with_user("{as: '', as-uid: canary}"), "user u: as-uid: impersonation is not supported"),
        (with_user("{as-user-extra: {a: [canary]}}"), "user u: as-user-extra: impersonation is not supported"),
        (with_user("{as: [canary]}"), "user u: as: impersonation is not supported"),
        (with_user("{token: canary, username: a, password: canary}"), "user u: username: set together with a token (remove one of them)"),
        (with_user("{tokenFile: canary, username: a}"), "user u: username: set together with a token (remove one of them)"),
        (with_user("{client-certificate-data: Q0VSVA==}"), "user u: client-key: not set"),
        (with_user("{client-key-data: canary!}"), "user u: client-key-data: not valid base64"),
        (with_user("{client-key: absent-file}"), "absent-file: No such file"),
        (with_user("{token: 'can ary'}"), "user u: token: contains characters"),
        (with_user("{token: [canary]}"), "user u: token: must be a string"),
        (with_user("{token: 4711}"), "user u: token: must be a string (put it in quotes)"),
        (with_user("{token: a, token: canary}"), "not a valid kubeconfig: line 3: "),
        (with_user("'canary'"), "not a valid kubeconfig: user u must be a mapping"),
        (with_user("{}}, {name: u, user: {token: canary}"), "not a valid kubeconfig: users: duplicate name u"),
    ]);
}

#[test]
fn errors_about_the_rest_are_so_too() {
    refused([
        (
            with_cluster("{server: 'https://a', proxy-url: 'http://p?canary'}"),
            "cluster c: proxy-url: must contain only scheme, host, port and path",
        ),
        (with_cluster("{server: 'https://u:canary@a'}"), "cluster c: server: must contain only scheme, host, port and path"),
        (with_cluster("{}"), "cluster c: server: not set (set it to https://HOST:PORT)"),
        (with_cluster("{server: 'http://a'}"), "server: the credential would be sent over an unencrypted connection"),
        (
            with_cluster("{server: 'https://a', proxy-url: 'https://u:canary@p'}"),
            "proxy-url: a proxy that is reached over TLS is not supported",
        ),
        (
            with_cluster("{server: 'https://a', insecure-skip-tls-verify: true, certificate-authority-data: UEVN}"),
            "cluster c: insecure-skip-tls-verify: set together with certificate-authority (remove one of them)",
        ),
        (
            with_cluster("{server: 'https://a', insecure-skip-tls-verify: true, certificate-authority: ca.crt}"),
            "cluster c: insecure-skip-tls-verify: set together with certificate-authority (remove one of them)",
        ),
        (with_cluster("{server: 'https://a', proxy-url: 'http//u:canary@p:3'}"), "cluster c: proxy-url: scheme must be http or socks5"),
        (
            with_cluster("{server: 'https://a', proxy-url: 'http:/u:canary@p:3'}"),
            "cluster c: proxy-url: user name or password is not valid",
        ),
        (
            "current-context: x\nclusters: [{name: k, cluster: {}}]\ncontexts: [{name: x, context: {user: u}}]\n".to_owned(),
            "context x: cluster: not set (available: k)",
        ),
        (format!("kind: Pod\n{}", with_user("{}")), "kind: must be Config"),
        (format!("apiVersion: v2\n{}", with_user("{}")), "apiVersion: must be v1"),
        ("current-context: x\n".to_owned(), "context: no context named x (none found)"),
        ("{}".to_owned(), "current-context: not set (use --context NAME)"),
        ("canary".to_owned(), "not a valid kubeconfig: "),
        ("a: [canary".to_owned(), "not a valid kubeconfig: "),
        ("users: 4711".to_owned(), "not a valid kubeconfig: users must be a list"),
        ("users: [canary]".to_owned(), "not a valid kubeconfig: users: an entry is not a mapping"),
        ("users: [{name: 4711}]".to_owned(), "not a valid kubeconfig: users: a name must be a string"),
        ("current-context: 4711".to_owned(), "current-context: must be a string"),
        ("a: \u{0}canary".to_owned(), "not a valid kubeconfig: line 1: "),
        ("\ta: canary".to_owned(), "not a valid kubeconfig: line 1: "),
        ("[".repeat(100_000), "not a valid kubeconfig: line 1: more than 1000 open brackets"),
    ]);
    let dir = TempDir::new();
    let binary = dir.path().join("binary");
    std::fs::write(&binary, [b'a', 0xff, 0xfe]).expect("written");
    for (path, expected) in
        [(binary, "binary: not valid UTF-8"), (dir.path().to_owned(), "Is a directory"), ("/dev/zero".into(), "zero: larger than 8 MiB")]
    {
        let error = load(&[path], None, &bare).expect_err(expected).to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
    let absent = dir.path().join("absent");
    let error = load(&[absent], None, &bare).expect_err("absent").to_string();
    assert!(error.ends_with("absent: no such file (use --kubeconfig FILE or set KUBECONFIG)"), "{error}");
}

#[test]
fn what_kubectl_takes_is_taken() {
    let dir = TempDir::new();
    dir.write("t", "file");
    for (title, text) in [
        ("a byte order mark", format!("\u{feff}{}", with_user("{token: a}"))),
        ("its kind", format!("apiVersion: v1\nkind: Config\n{}", with_user("{token: a}"))),
        ("an empty kind", format!("apiVersion: ''\nkind: null\n{}", with_user("{token: a}"))),
        ("nobody to act as", with_user("{token: a, as: '', as-groups: [], as-uid: '', as-user-extra: {}}")),
        ("an entry without a name", with_user("{token: a}}, {user: {token: b}")),
        ("an empty entry", with_user("{token: a}}, {").replace(", {}", ", null")),
        ("a missing tokenFile beside a token", with_user("{token: a, tokenFile: absent}")),
        ("HTTPS in capitals", with_user("{token: a}").replace("https://", "HTTPS://")),
        ("a proxy in capitals", with_user("{token: a}").replace("'https://a',", "'https://a', proxy-url: 'HTTP://p:1',")),
    ] {
        let config = load(&[dir.write("config", &text)], None, &bare).unwrap_or_else(|error| panic!("{title}: {error}"));
        assert_eq!((config.auth, config.server.https), (Auth::Token("a".to_owned()), true), "{title}");
    }
    let both = load(&[dir.write("config", with_user("{token: a, tokenFile: t}"))], None, &bare).expect("both");
    assert_eq!(both.auth, Auth::TokenFile(dir.path().join("t")));
}

fn plugin_of(dir: &TempDir, user: &str) -> PluginSpec {
    let path = dir.write(
        "config",
        format!(
            "current-context: x\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\nclusters:\n- name: c\n  cluster:\n    server: https://a\n    \
             tls-server-name: b\n    certificate-authority: ca\n    extensions: [{{name: other}}, {{name: client.authentication.k8s.io/exec, \
             extension: {{audience: me}}}}]\nusers: [{{name: u, user: {user}}}]\n"
        ),
    );
    dir.write("ca", "PEM");
    let file = File { content: parse(&path, &std::fs::read_to_string(&path).expect("readable")).expect("valid"), path };
    let files = [file];
    let entry = |kind, name| find(&files, kind, name, &"").expect("is there");
    plugin(&entry("user", "u"), &entry("cluster", "c")).expect("valid").expect("a plugin")
}

#[test]
fn a_plugin_is_read_with_its_path_environment_and_what_it_is_told() {
    let dir = TempDir::new();
    let info = |spec: &PluginSpec| serde_json::from_str::<Value>(&spec.info).expect("JSON");
    let user = "{exec: {apiVersion: client.authentication.k8s.io/v1, command: ./bin/p, args: [a, b], env: [{name: N, value: v}], \
                interactiveMode: IfAvailable, installHint: get it, provideClusterInfo: true}}";
    let spec = plugin_of(&dir, user);
    assert_eq!(Path::new(&spec.command), dir.path().join("./bin/p"));
    assert_eq!((spec.args.join(" "), spec.env.clone()), ("a b".to_owned(), vec![("N".to_owned(), "v".to_owned())]));
    assert_eq!((spec.install_hint.as_str(), spec.field.as_str()), ("get it", "user u: exec"));
    let cluster =
        json!({"server": "https://a", "tls-server-name": "b", "certificate-authority-data": "UEVN", "config": {"audience": "me"}});
    let expected = json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "spec": {"interactive": false, "cluster": cluster}});
    assert_eq!(info(&spec), expected);
    // The older version needs no mode, and without a slash the program is in PATH.
    let spec = plugin_of(&dir, "{exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: p}}");
    assert_eq!(spec.command, "p");
    assert_eq!(info(&spec)["spec"], json!({"interactive": false}));
}

#[test]
fn a_plugin_is_asked_only_without_another_credential() {
    let dir = TempDir::new();
    let auth = |fields: &str| {
        let path = dir.write(
            "config",
            format!(
                "current-context: x\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\nclusters: [{{name: c, cluster: {{server: 'https://a', \
                 insecure-skip-tls-verify: true}}}}]\nusers: [{{name: u, user: {{exec: {{apiVersion: client.authentication.k8s.io/v1beta1, command: p}}{fields}}}}}]\n"
            ),
        );
        format!("{:?}", load(&[path], None, &bare).expect("valid").auth)
    };
    for (fields, expected) in [
        ("", "Exec("),
        (", token: ''", "Exec("),
        (", token: t", "Token("),
        (", tokenFile: t", "TokenFile("),
        (", username: u", "Basic("),
        (", client-certificate-data: Q0VSVA==, client-key-data: S0VZ", "None"),
    ] {
        assert!(auth(fields).starts_with(expected), "{fields}: {}", auth(fields));
    }
}

#[test]
fn of_several_files_each_place_is_told_and_all_missing_is_an_error() {
    let dir = TempDir::new();
    let one = dir.write("one", "contexts: [{name: x, context: {cluster: c}}]\n");
    let two = dir.write("two", "current-context: x\nclusters: [{name: d, cluster: {server: 'https://d'}}]\n");
    let comment = dir.write("comment", "# nothing\n---\n");
    let error = |paths: &[&PathBuf], context| {
        load(&paths.iter().map(|path| (*path).clone()).collect::<Vec<_>>(), context, &bare).expect_err("an error").to_string()
    };
    let (absent, absent2) = (dir.path().join("absent"), dir.path().join("absent2"));
    let text = error(&[&comment, &one, &absent, &two], None);
    assert_eq!(text, format!("{}: cluster: no cluster named c (available: d)", one.display()));
    let text = error(&[&one, &two], Some("y"));
    assert_eq!(text, format!("{}:{}: context: no context named y (available: x)", one.display(), two.display()));
    let text = error(&[&absent, &absent2], None);
    assert_eq!(text, format!("{}: no such file (use --kubeconfig FILE or set KUBECONFIG)", absent.display()));
    let bad = dir.write("bad", "a: [");
    assert!(
        error(&[&one, &bad], Some("x")).starts_with(&bad.display().to_string()),
        "a file that cannot be read is an error even if it is not needed"
    );
}

#[test]
fn without_an_authority_those_of_the_system_count() {
    let dir = TempDir::new();
    let path = dir.write("config", with_cluster("{server: 'https://a'}"));
    let bundle = |name: &str| (name == "SSL_CERT_FILE").then(|| "/bundle.pem".to_owned());
    let load = |env| load(std::slice::from_ref(&path), None, env);
    assert_eq!(load(&bundle).expect("a config").ca, Some(Pem::File("/bundle.pem".into())));
    // Whether there is one of the usual files is this machine's business.
    let usual = SYSTEM_AUTHORITIES.iter().find(|path| Path::new(path).exists());
    match (load(&bare), usual) {
        (Ok(config), Some(usual)) => assert_eq!(config.ca, Some(Pem::File(usual.into()))),
        (Err(error), None) => assert!(error.to_string().contains("certificate-authority: not set, and no authorities"), "{error}"),
        (other, usual) => panic!("{other:?} with {usual:?}"),
    }
}

#[test]
fn the_way_may_go_through_a_proxy() {
    let dir = TempDir::new();
    let url = |cluster: &str, env: Env<'_>| {
        let path = dir.write("config", with_cluster(cluster));
        load(&[path], None, env).map(|config| config.proxy.map(|proxy| proxy.server.authority())).map_err(|error| error.to_string())
    };
    let env = |name: &str| (name == "HTTPS_PROXY").then(|| "http://variable:1".to_owned());
    let by_field = "{server: 'https://a', certificate-authority-data: UEVN, proxy-url: 'socks5://field:1'}";
    let plain = "{server: 'https://a', certificate-authority-data: UEVN}";
    assert_eq!(url(by_field, &env), Ok(Some("field:1".to_owned())));
    assert_eq!(url(plain, &env), Ok(Some("variable:1".to_owned())));
    assert_eq!(url(plain, &bare), Ok(None));
    let bad = |name: &str| (name == "https_proxy").then(|| "ftp://canary".to_owned());
    assert_eq!(url(plain, &bad), Err("https_proxy: scheme must be http or socks5 (use http://HOST:PORT or socks5://HOST:PORT)".to_owned()));
}

#[test]
fn a_file_of_hundreds_of_clusters_is_read() {
    let dir = TempDir::new();
    let certificate = STANDARD.encode([b'x'; 4_000]);
    let mut text = "current-context: c329\nclusters:\n".to_owned();
    for number in 0..330 {
        text += &format!("- {{name: c{number}, cluster: {{server: 'https://a{number}', certificate-authority-data: {certificate}}}}}\n");
    }
    text += "contexts:\n";
    for number in 0..330 {
        text += &format!("- {{name: c{number}, context: {{cluster: c{number}}}}}\n");
    }
    assert!(text.len() > 1_700_000);
    let path = dir.write("config", &text);
    assert_eq!(load(std::slice::from_ref(&path), None, &bare).expect("a config").server.host, "a329");
    // Up to what is read of any file.
    let mut text = with_cluster("{server: 'https://a', certificate-authority-data: UEVN}");
    text += &format!("extra: '{}'\n", "x".repeat(FILE_MAX - text.len() - 10));
    assert!(load(&[dir.write("config", &text)], None, &bare).is_ok());
}
