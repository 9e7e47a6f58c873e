use crate::kube::scripted::TempDir;

use super::*;

const V1: &str = "client.authentication.k8s.io/v1";
const LIMIT: PluginPatience = PluginPatience { silent: Duration::from_secs(60), talking: Duration::from_secs(60), tell: |_| {} };

fn plugin(script: &str) -> Plugin {
    Plugin::new(PluginSpec {
        command: "/bin/sh".into(),
        args: vec!["-c".to_owned(), script.to_owned()],
        api_version: V1.to_owned(),
        place: "file".to_owned(),
        field: "user u: exec".to_owned(),
        ..PluginSpec::default()
    })
}

fn answer(status: &str) -> String {
    format!("echo '{{\"apiVersion\": \"{V1}\", \"kind\": \"ExecCredential\", \"status\": {status}}}'")
}

#[test]
fn a_credential_is_kept_until_it_ends_or_is_refused() {
    let dir = TempDir::new();
    let count = dir.path().join("runs").display().to_string();
    let counted = |status: &str| plugin(&format!("echo x >> {count}; n=$(wc -l < {count}); {}", answer(status).replace('N', "'$n'")));
    let token = |issued: Arc<Issued>| issued.token.clone().expect("a token");
    for (ends, expected) in [
        ("", ["t1", "t1"]),
        (r#", "expirationTimestamp": "2999-01-01T00:00:00Z""#, ["t1", "t1"]),
        (r#", "expirationTimestamp": "2001-01-01T01:00:00+01:00""#, ["t1", "t2"]),
    ] {
        let _ = std::fs::remove_file(&count);
        let plugin = counted(&format!(r#"{{"token": "tN"{ends}}}"#));
        let first = plugin.current(LIMIT).expect("a credential");
        let second = plugin.current(LIMIT).expect("a credential");
        assert_eq!([token(Arc::clone(&first)), token(Arc::clone(&second))], expected, "{ends}");
        let third = plugin.after_rejection(&second, LIMIT).expect("another one");
        assert_ne!(token(Arc::clone(&third)), token(Arc::clone(&second)));
        // Whoever was refused with the old one is given the new one.
        let fourth = plugin.after_rejection(&second, LIMIT).expect("the same");
        assert!(Arc::ptr_eq(&third, &fourth));
    }
}

#[test]
fn the_plugin_is_told_and_its_certificate_is_taken() {
    let mut plugin = plugin(&format!(
        "test \"$A\" = b && test \"$KUBERNETES_EXEC_INFO\" = '{{}}' && ! read x && {}",
        answer(r#"{"clientCertificateData": "C", "clientKeyData": "K"}"#)
    ));
    plugin.spec.env = vec![("A".to_owned(), "b".to_owned())];
    plugin.spec.info = "{}".to_owned();
    let issued = plugin.current(LIMIT).expect("a credential");
    assert_eq!(issued.identity, Some(ClientCertPem { certificate: b"C".to_vec(), key: b"K".to_vec() }));
    assert!(issued.token.is_none() && !format!("{issued:?} {plugin:?}").contains("\"C\""));
}

#[test]
fn whatever_goes_wrong_is_one_line_without_a_secret() {
    let long = "canary".repeat(20);
    let cases = [
        ("exit 3".to_owned(), "/bin/sh: failed, exit status: 3 (run it by hand"),
        ("kill -KILL $$".to_owned(), "failed, signal: 9"),
        (format!("echo one >&2; echo 'no login {long}' >&2; echo >&2; exit 1"), "exit status: 1: no login (hidden) (run"),
        ("yes canary-canary | head -c 9000000 >&2; echo >&2; echo last >&2; exit 1".to_owned(), "exit status: 1: last (run"),
        (format!("printf '%s ' {long} $(yes ab | head -n 1357) >&2; exit 1"), "exit status: 1: ab ab ab"),
        ("yes canary".to_owned(), "printed more than 1048576 bytes"),
        (String::new(), "did not print valid JSON"),
        ("echo canary".to_owned(), "did not print valid JSON"),
        ("head -c 100 /dev/urandom".to_owned(), "did not print valid JSON"),
        ("echo '\"canary\"'".to_owned(), "printed something other than an ExecCredential"),
        (answer("{}").replace("/v1", "/v1beta1"), "other than an ExecCredential of client.authentication.k8s.io/v1"),
        (answer("null"), "neither a token nor a certificate"),
        (answer(r#"{"token": 4711}"#), "status.token must be a string"),
        (answer(r#"{"token": "canary canary"}"#), "status.token contains characters"),
        (answer(r#"{"token": "canary", "clientKeyData": "canary"}"#), "only one of"),
        (answer(r#"{"token": "canary", "expirationTimestamp": "canary"}"#), "expirationTimestamp is not a valid time"),
    ];
    for (script, expected) in cases {
        let error = plugin(&script).current(LIMIT).expect_err(expected).to_string();
        assert!(error.starts_with("file: user u: exec: /bin/sh: ") && error.contains(expected), "{error}");
        assert!(!error.contains("canary") && !error.contains("4711") && !error.contains('\n') && error.len() < 500, "{error}");
    }
}

#[test]
fn a_plugin_that_does_not_end_is_ended() {
    for script in ["exec sleep 1000", "exec >&- 2>&-; exec sleep 1000"] {
        let error =
            plugin(script).current(PluginPatience { silent: Duration::from_millis(200), ..LIMIT }).expect_err("an error").to_string();
        assert!(error.contains("/bin/sh: no answer in 0 s (run it by hand"), "{error}");
    }
}

#[test]
fn a_missing_program_is_told_with_its_hint() {
    for (hint, expected) in [("", "not found (install the credential plugin"), ("get it\nfrom \u{1b}[1mx", "not found (get it from  [1mx)")]
    {
        let mut plugin = plugin("");
        plugin.spec.command = "/nonexistent/plugin".into();
        plugin.spec.install_hint = hint.to_owned();
        let error = plugin.current(LIMIT).expect_err("an error").to_string();
        assert!(error.starts_with("file: user u: exec: /nonexistent/plugin: ") && error.contains(expected), "{error}");
    }
    let mut plugin = plugin("");
    plugin.spec.command = "/etc/passwd".into();
    assert!(plugin.current(LIMIT).expect_err("an error").to_string().contains("Permission denied"));
}

/// What plugins have said, in order of their lines; each test has words of its own.
static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn keep(line: &str) {
    SAID.lock().expect("no panic").push(line.to_owned());
}

fn said(word: &str) -> Vec<String> {
    SAID.lock().expect("no panic").iter().filter(|line| line.contains(word)).cloned().collect()
}

#[test]
fn what_it_says_is_passed_on_while_it_waits_for_a_person() {
    let dir = TempDir::new();
    let logged_in = dir.path().join("logged-in");
    let good = answer(r#"{"token": "t"}"#);
    let address = format!("https://login.example/authorize?state={}", "s".repeat(80));
    let script = format!(
        "echo 'open {address} apple {}' >&2; printf 'code: apple' >&2; while [ ! -e {} ]; do sleep 0.01; done; echo apple done >&2; {good}",
        "k".repeat(60),
        logged_in.display()
    );
    let patience = PluginPatience { silent: Duration::from_millis(100), talking: LIMIT.talking, tell: keep };
    let plugin = plugin(&script);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| plugin.current(PluginPatience { silent: Duration::from_secs(5), ..patience }));
        while said("apple").len() < 2 {
            assert!(!waiting.is_finished(), "it waits for the person");
            std::thread::sleep(LOOK);
        }
        std::fs::write(&logged_in, "").expect("written");
        assert_eq!(waiting.join().expect("no panic").expect("a credential").token.as_deref(), Some("t"));
    });
    assert_eq!(said("apple"), [format!("open {address} apple (hidden)"), "code: apple".to_owned(), "apple done".to_owned()]);
}

#[test]
fn addresses_are_passed_on_without_what_is_secret_in_them() {
    let long = "canary".repeat(10);
    let said_by = |line: &str, patience: PluginPatience| {
        let script = format!("cat >&2 <<'E'\n{line}\nE\n{}", answer(r#"{"token": "t"}"#));
        plugin(&script).current(patience).expect("a credential");
    };
    // What the plugin says, what a person at the command line is shown, and what the log of the operator holds.
    for (number, (line, shown, logged)) in [
        (
            format!("open https://x/cb?state={}&code=1#frag", "s".repeat(43)),
            format!("open https://x/cb?state={}&code=1#frag", "s".repeat(43)),
            "open https://x/cb?(hidden)".to_owned(),
        ),
        ("see https://x/a#canary".to_owned(), "see https://x/a#canary".to_owned(), "see https://x/a?(hidden)".to_owned()),
        (
            r#"{"proxy-url":"http://u:canary@host:1"}"#.to_owned(),
            r#"{"proxy-url":"http://(hidden)@host:1"}"#.to_owned(),
            r#"{"proxy-url":"http://(hidden)@host:1"}"#.to_owned(),
        ),
        (
            "a=http://u:can@ary@h/x?mail=me@b,b=http://canary@i".to_owned(),
            "a=http://(hidden)@h/x?mail=me@b,b=http://(hidden)@i".to_owned(),
            "a=http://(hidden)@h/x?(hidden)".to_owned(),
        ),
        (format!("t={long},u=https://h/p"), "(hidden)https://h/p".to_owned(), "(hidden)https://h/p".to_owned()),
        (format!(r#"u="https://h/p","{long}""#), r#"u="https://h/p(hidden)"#.to_owned(), r#"u="https://h/p(hidden)"#.to_owned()),
        (format!("https://h/{long}/p"), format!("https://h/{long}/p"), "https://h/(hidden)/p".to_owned()),
        ("a :// b".to_owned(), "a :// b".to_owned(), "a :// b".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        let mark = |mode: &str| format!("cherry{number}{mode}");
        said_by(&format!("{} {line}", mark("p")), PluginPatience { tell: keep, ..LIMIT });
        said_by(&format!("{} {line}", mark("l")), PluginPatience { tell: keep, talking: Duration::ZERO, ..LIMIT });
        assert_eq!(said(&mark("p")), [format!("{} {shown}", mark("p"))]);
        assert_eq!(said(&mark("l")), [format!("{} {logged}", mark("l"))]);
    }
    // An error may end in a log wherever it was met.
    let error = plugin("echo 'no: https://u:canary@h/p?canary' >&2; exit 1").current(LIMIT).expect_err("it failed").to_string();
    assert!(error.contains("exit status: 1: no: https://(hidden)@h/p?(hidden) (run"), "{error}");
}

#[test]
fn an_answer_may_start_with_a_byte_order_mark() {
    let script = format!("printf '\\357\\273\\277'; {}", answer(r#"{"token": "t"}"#));
    assert_eq!(plugin(&script).current(LIMIT).expect("a credential").token.as_deref(), Some("t"));
}

#[test]
fn one_that_has_said_something_may_take_longer() {
    let script = "echo pear >&2; sleep 1000";
    let patience = PluginPatience { silent: Duration::from_secs(2), talking: Duration::from_secs(3), tell: keep };
    let error = plugin(&format!("exec 2>&1; {script}")).current(PluginPatience { silent: Duration::from_millis(50), ..patience });
    assert!(error.expect_err("silent on standard error").to_string().contains("no answer in 0 s"));
    let error = plugin(script).current(patience).expect_err("nobody logs in").to_string();
    assert!(error.contains("no answer in 3 s"), "{error}");
    assert_eq!(said("pear"), ["pear"]);
}

#[test]
fn what_it_said_before_it_failed_is_passed_on_and_the_last_line_is_the_reason() {
    let patience = PluginPatience { tell: keep, ..LIMIT };
    let error = plugin("echo plum one >&2; echo plum two >&2; exit 1").current(patience).expect_err("it failed").to_string();
    assert!(error.contains("failed, exit status: 1: plum two"), "{error}");
    assert_eq!(said("plum"), ["plum one"]);
}

#[test]
fn a_child_that_keeps_the_pipes_open_is_not_waited_for() {
    let dir = TempDir::new();
    let pid = dir.path().join("pid");
    let good = answer(r#"{"token": "t"}"#);
    // Both pipes; standard error alone; and one that fails.
    for (child, end) in [("sleep 1000 &", good.as_str()), ("sleep 1000 >&- &", &good), ("sleep 1000 &", "echo no >&2; exit 1")] {
        let plugin = plugin(&format!("{child} echo $! > {}; {end}", pid.display()));
        let start = Instant::now();
        let result = plugin.current(LIMIT);
        assert!(start.elapsed() < LIMIT.silent / 2);
        match result {
            Ok(issued) => assert_eq!(issued.token.as_deref(), Some("t")),
            Err(error) => assert!(error.to_string().contains("exit status: 1: no"), "{error}"),
        }
        let _ = Command::new("kill").arg(std::fs::read_to_string(&pid).expect("a pid").trim()).status();
    }
}
