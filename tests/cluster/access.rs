//! Kubeconfigs and servers that people have: the program beside kubectl, with the real API server and with servers of openssl.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::case::{Case, quarks_job, until};
use crate::files::{Folder, kubeconfig};
use crate::tunnel::{Tunnel, connect, socks};

const PROGRAM: &str = env!("CARGO_BIN_EXE_quarks-job");

/// openssl in a folder.
fn openssl(folder: &Folder, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder.path()).output().expect("openssl starts");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The cluster's keys, of which only scripts/cluster has files.
fn pki() -> PathBuf {
    let kubeconfig = std::env::var("KUBECONFIG").expect("the cluster's kubeconfig");
    Path::new(&kubeconfig).parent().expect("a folder").join("pki")
}

/// A kubeconfig with other fields of the cluster, or of the user.
fn changed(cluster: &Value, user: &Value) -> Value {
    let mut config = kubeconfig();
    for (part, fields) in [("/clusters/0/cluster", cluster), ("/users/0/user", user)] {
        let own = config.pointer_mut(part).and_then(Value::as_object_mut).expect("a map");
        for (key, value) in fields.as_object().into_iter().flatten() {
            own.insert(key.clone(), value.clone());
        }
        own.retain(|_, value| !value.is_null());
    }
    config
}

fn ended(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().expect("it starts");
    let all = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(all) } else { Err(all) }
}

/// A program on the case's namespace with a kubeconfig and variables.
fn call(program: &str, arguments: &[&str], case: &Case, kubeconfig: &str, variables: &[(&str, &str)]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments).args(["--namespace", &case.namespace, "--kubeconfig", kubeconfig]);
    // Of the shell that has the cluster's settings.
    command.env_remove("KUBECONFIG").env_remove("NO_PROXY").env_remove("no_proxy");
    ended(command.envs(variables.iter().copied()))
}

fn trigger(case: &Case, kubeconfig: &str, variables: &[(&str, &str)]) -> Result<String, String> {
    call(PROGRAM, &["trigger", "q"], case, kubeconfig, variables)
}

fn kubectl_get(case: &Case, kubeconfig: &str, variables: &[(&str, &str)]) -> Result<String, String> {
    call("kubectl", &["get", "quarksjob", "q", "--request-timeout=60s"], case, kubeconfig, variables)
}

/// A certificate of an authority, made as people make them. `extensions` is empty for X.509 version 1.
fn signed(folder: &Folder, name: &str, curve: &str, authority: (&str, &str), subject: &str, extensions: &str) {
    openssl(folder, &format!("ecparam -name {curve} -genkey -noout -out {name}.key"));
    openssl(folder, &format!("req -new -key {name}.key -subj {subject} -out {name}.csr"));
    let file = if extensions.is_empty() { String::new() } else { format!(" -extfile {}", folder.write("extensions", extensions)) };
    let (certificate, key) = authority;
    openssl(
        folder,
        &format!(
            "x509 -req -in {name}.csr -CA {certificate} -CAkey {key} -CAcreateserial -CAserial {name}.serial -days 2 -out {name}.crt{file}"
        ),
    );
}

#[test]
fn kubeconfigs_that_people_have_work_as_with_kubectl_or_say_why_not() {
    let case = Case::new("access");
    case.apply(&quarks_job("q", "manual", "exit 0"));
    let (folder, pki) = (Folder::new("access-kubeconfigs"), pki());
    let file = |name: &str| pki.join(name).display().to_string();
    let (ca, ca_key) = (file("ca.crt"), file("ca.key"));
    let pem = std::fs::read_to_string(&ca).expect("readable");
    signed(&folder, "v1", "prime256v1", (&ca, &ca_key), "/O=system:masters/CN=v1", "");
    signed(&folder, "p521", "secp521r1", (&ca, &ca_key), "/O=system:masters/CN=p521", "basicConstraints=CA:FALSE");
    let client = |name: &str| {
        json!({"client-certificate-data": null, "client-key-data": null,
            "client-certificate": folder.file(&format!("{name}.crt")), "client-key": folder.file(&format!("{name}.key"))})
    };
    let authority = |file: &str| json!({"certificate-authority-data": null, "certificate-authority": file});
    let broken = folder.write("broken.crt", format!("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n{pem}"));
    let (http, socks5) = (Tunnel::start(connect), Tunnel::start(socks));
    let (http_url, socks_url) = (format!("http://127.0.0.1:{}", http.port), format!("socks5://127.0.0.1:{}", socks5.port));
    let mut many = kubeconfig();
    let filler: Vec<Value> = (0..330)
        .map(|number| json!({"name": format!("c{number}"), "cluster": {"server": "https://a", "certificate-authority-data": "eHh4".repeat(1_400)}}))
        .collect();
    many["clusters"].as_array_mut().expect("a list").extend(filler);
    assert!(many.to_string().len() > 1_800_000);
    let (none, no) = (json!({}), &[][..]);
    let no_ca = json!({"certificate-authority-data": null});
    // What, the kubeconfig, variables, what the program says if it cannot work; kubectl works with each.
    for (title, config, variables, expected) in [
        ("as it is", changed(&none, &none), no, None),
        ("a client certificate of X.509 version 1", changed(&none, &client("v1")), no, None),
        ("a P-521 client key", changed(&none, &client("p521")), no, Some("client-key: P-521 is not supported (use a P-256")),
        ("the server's own certificate", changed(&authority(&file("apiserver.crt")), &none), no, None),
        ("one broken block in a bundle", changed(&authority(&broken), &none), no, None),
        ("the authorities of the system", changed(&no_ca, &none), &[("SSL_CERT_FILE", ca.as_str())], None),
        ("proxy-url", changed(&json!({"proxy-url": http_url}), &none), no, None),
        ("proxy-url with SOCKS", changed(&json!({"proxy-url": socks_url}), &none), no, None),
        ("HTTPS_PROXY", changed(&none, &none), &[("HTTPS_PROXY", http_url.as_str())], None),
        ("NO_PROXY", changed(&none, &none), &[("HTTPS_PROXY", "http://127.0.0.1:1"), ("NO_PROXY", "10.0.0.0/8,198.18.0.0/15")], None),
        ("hundreds of clusters", many, no, None),
    ] {
        let path = folder.write("kubeconfig", config.to_string());
        let is_proxied = config["clusters"][0]["cluster"]["proxy-url"].is_string() || variables.iter().any(|(_, value)| *value == http_url);
        let proxied = || http.asked().len() + socks5.asked().len();
        let before = proxied();
        let ours = trigger(&case, &path, variables);
        let between = proxied();
        let kubectls = kubectl_get(&case, &path, variables);
        assert!(kubectls.is_ok(), "{title}: kubectl: {kubectls:?}");
        assert_eq!((before < between, between < proxied()), (is_proxied, is_proxied), "{title}: through the proxy");
        match (&ours, expected) {
            (Ok(out), None) => assert!(out.contains("q: run requested"), "{title}: {out}"),
            (Err(error), Some(expected)) => assert!(error.contains(expected) && error.lines().count() == 1, "{title}: {error}"),
            _ => panic!("{title}: {ours:?} instead of {expected:?}"),
        }
    }
    // Without an authority of the system that knows the server it says what to do; kubectl refuses it, too.
    let path = folder.write("kubeconfig", changed(&no_ca, &none).to_string());
    let other = folder.file("v1.crt");
    let variables = [("SSL_CERT_FILE", other.as_str())];
    let (ours, kubectls) = (trigger(&case, &path, &variables), kubectl_get(&case, &path, &variables));
    assert!(
        kubectls.is_err() && ours.as_ref().is_err_and(|error| error.contains("unknown authority; certificate-authority must hold")),
        "{ours:?}"
    );
}

#[test]
fn a_plugin_that_waits_for_a_person_or_leaves_a_child_works_as_with_kubectl() {
    let case = Case::new("access-plugin");
    case.apply(&quarks_job("q", "manual", "exit 0"));
    let folder = Folder::new("access-plugin");
    let read = |name: &str| std::fs::read_to_string(pki().join(name)).expect("readable");
    let credential = json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
        "status": {"clientCertificateData": read("admin.crt"), "clientKeyData": read("admin.key")}});
    let answer = folder.write("answer", credential.to_string());
    let (done, pid) = (folder.file("done"), folder.file("pid"));
    let program = |script: &str, env: Value| {
        let plugin = folder.write("plugin", format!("#!/bin/sh\n{script}\n"));
        let _ = Command::new("chmod").args(["+x", &plugin]).status();
        let user = json!({"client-certificate-data": null, "client-key-data": null, "exec":
            {"apiVersion": "client.authentication.k8s.io/v1", "command": plugin, "interactiveMode": "Never", "env": env}});
        folder.write("kubeconfig", changed(&json!({}), &user).to_string())
    };
    // The person opens the page once both programs have shown its address.
    let address = format!("https://login.example/device?code={}", "4".repeat(50));
    let path = program(&format!("echo open {address} >&2; while [ ! -e {done} ]; do sleep 0.1; done; cat {answer}"), json!([]));
    let shown = [folder.file("ours"), folder.file("kubectls")];
    let children: Vec<Child> = [(PROGRAM, vec!["trigger", "q"]), ("kubectl", vec!["get", "quarksjob", "q"])]
        .into_iter()
        .zip(&shown)
        .map(|((program, arguments), shown)| {
            let mut command = Command::new(program);
            command.args(arguments).args(["--namespace", &case.namespace, "--kubeconfig", &path]);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(std::fs::File::create(shown).expect("a file"))
                .spawn()
                .expect("it starts")
        })
        .collect();
    until("both to show the address", || {
        shown.iter().all(|file| std::fs::read_to_string(file).is_ok_and(|text| text.contains(&address))).then_some(())
    });
    folder.write("done", "");
    for mut child in children {
        assert!(child.wait().expect("our child").success());
    }
    // A daemon that it starts keeps standard error open; kubectl waits for its end, so it is not asked.
    let path = program(&format!("sleep 1000 & echo $! > {pid}; cat {answer}"), json!([]));
    let ours = ended(Command::new(PROGRAM).args(["trigger", "q", "--namespace", &case.namespace, "--kubeconfig", &path]));
    let _ = Command::new("kill").arg(std::fs::read_to_string(&pid).expect("a pid").trim()).status();
    assert!(ours.as_ref().is_ok_and(|out| out.contains("run requested")), "{ours:?}");
    // Numbers without quotes: neither takes them, and kubectl's sentence names a Go type.
    let path = program(&format!("cat {answer}"), json!([{"name": "PORT", "value": 8080}]));
    let (ours, kubectls) = (trigger(&case, &path, &[]), kubectl_get(&case, &path, &[]));
    assert!(kubectls.is_err(), "{kubectls:?}");
    assert!(ours.as_ref().is_err_and(|error| error.contains("exec.env: value must be a string (put it in quotes)")), "{ours:?}");
}

/// `openssl s_server` with a certificate of the folder; it answers any request with a page.
struct OpenSsl {
    port: u16,
    child: Child,
}

impl OpenSsl {
    fn start(folder: &Folder, name: &str, more: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let (certificate, key, accept) = (format!("{name}.crt"), format!("{name}.key"), format!("127.0.0.1:{port}"));
        let child = Command::new("openssl")
            .args(["s_server", "-quiet", "-www", "-accept", &accept, "-cert", &certificate, "-key", &key])
            .args(more)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl starts");
        until("openssl to listen", || TcpStream::connect(("127.0.0.1", port)).ok());
        Self { port, child }
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn servers_that_kubectl_takes_are_taken_or_named() {
    let folder = Folder::new("access-servers");
    let server = "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE";
    let authority = |name: &str, curve: &str| {
        openssl(
            &folder,
            &format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:{curve} -nodes -keyout {name}.key -out {name}.crt -subj /CN={name} -days 2 -addext subjectAltName=IP:127.0.0.1"
            ),
        );
    };
    authority("ca", "P-256");
    authority("p521-ca", "P-521");
    signed(&folder, "plain", "prime256v1", ("ca.crt", "ca.key"), "/CN=plain", server);
    signed(&folder, "by-p521", "prime256v1", ("p521-ca.crt", "p521-ca.key"), "/CN=by-p521", server);
    signed(&folder, "p521", "secp521r1", ("ca.crt", "ca.key"), "/CN=p521", server);
    // What, the server's certificate, the authority's, more flags, what the program says of it.
    for (title, certificate, given, flags, expected) in [
        ("an ordinary one", "plain", "ca", &[][..], None),
        ("its own certificate", "plain", "plain", &[], None),
        ("self-signed with CA:TRUE", "ca", "ca", &[], None),
        ("an authority with a P-521 key", "by-p521", "p521-ca", &[], Some("signed with a key that is not supported, perhaps P-521")),
        ("a P-521 key", "p521", "ca", &[], Some("key is not supported, perhaps P-521")),
        ("TLS 1.2 only", "plain", "ca", &["-tls1_2"], Some("cannot connect: the server does not speak TLS 1.3")),
    ] {
        let openssl = OpenSsl::start(&folder, certificate, flags);
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "x", "cluster": {"server": format!("https://127.0.0.1:{}", openssl.port), "certificate-authority": format!("{given}.crt")}}],
            "users": [{"name": "x", "user": {"token": "any"}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}]});
        let path = folder.write("kubeconfig", config.to_string());
        let kubectls = ended(Command::new("kubectl").args(["get", "--raw", "/", "--kubeconfig", &path]));
        assert!(kubectls.as_ref().is_ok_and(|page| page.contains("s_server")), "{title}: kubectl: {kubectls:?}");
        // It is no API server, so nothing comes after TLS.
        let ours = ended(Command::new(PROGRAM).args(["trigger", "q", "--wait", "--timeout=2s", "--kubeconfig", &path])).expect_err(title);
        let is_past_tls = !ours.contains("cannot connect") && !ours.contains("not trusted");
        assert!(is_past_tls == expected.is_none() && ours.contains(expected.unwrap_or_default()), "{title}: {ours}");
        assert_eq!(ours.lines().count(), 1, "{title}: {ours}");
    }
}

#[test]
fn what_convert_prints_can_be_applied_in_place_of_the_file() {
    let case = Case::new("access-convert");
    let folder = Folder::new("access-convert");
    let old = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: script}\ndata: {run: exit 0}\n---\n\
               apiVersion: fissile.cloudfoundry.org/v1alpha1\nkind: ExtendedJob\nmetadata: {name: old}\nspec:\n  trigger: {strategy: once}\n  \
               template:\n    spec:\n      restartPolicy: Never\n      volumes: [{name: s, configMap: {name: script}}]\n      \
               containers: [{name: main, image: 'busybox:1.36', command: [/bin/busybox, sh, /s/run], volumeMounts: [{name: s, mountPath: /s}]}]\n";
    let file = folder.write("old.yaml", old);
    let new = Command::new(PROGRAM).args(["convert", "-f", &file]).output().expect("it starts");
    let applied = folder.write("new.yaml", new.stdout);
    case.kubectl(&["apply", "-f", &applied]);
    assert_eq!(case.wait_runs("old", 1)["outcome"], "Succeeded");
}
