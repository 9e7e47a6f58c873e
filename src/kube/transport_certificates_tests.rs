//! Certificates that people have: those of servers, and ours.

use super::*;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, NameConstraints, date_time_ymd,
};

/// A server's certificate and key in PEM, signed by itself.
fn self_signed(change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("parameters");
    change(&mut params);
    (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
}

/// What a certificate that signs others has, changed; and the certificate and key of a server that it has signed, changed.
fn signed(authority: impl FnOnce(&mut CertificateParams), server: impl FnOnce(&mut CertificateParams)) -> [String; 3] {
    let issuer_key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "the authority");
    authority(&mut params);
    let ca = params.self_signed(&issuer_key).expect("a certificate").pem();
    let [certificate, key] = signed_by(&Issuer::new(params, issuer_key), server);
    [ca, certificate, key]
}

fn signed_by(issuer: &Issuer<'_, KeyPair>, change: impl FnOnce(&mut CertificateParams)) -> [String; 2] {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("parameters");
    change(&mut params);
    [params.signed_by(&key, issuer).expect("a certificate").pem(), key.serialize_pem()]
}

/// A server that does not check its own certificate.
fn unchecked_tls(certificate: &str, key: &str) -> Tls {
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    let key = provider().key_provider.load_private_key(key).expect("a key");
    let resolver = rustls::sign::SingleCertAndKey::from(rustls::sign::CertifiedKey::new(chain, key));
    let builder = rustls::ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().expect("versions");
    Some(Arc::new(builder.with_no_client_auth().with_cert_resolver(Arc::new(resolver))))
}

fn unchanged(_: &mut CertificateParams) {}

fn is_authority(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
}

fn expect_error(title: &str, error: Option<String>, expected: Option<&str>) {
    match (error, expected) {
        (None, None) => {}
        (Some(error), Some(expected)) => {
            assert!(error.contains("server certificate not trusted: ") && error.contains(expected), "{title}: {error}");
        }
        (error, expected) => panic!("{title}: {error:?} instead of {expected:?}"),
    }
}

fn error_of(tls: Tls, ca: &[u8]) -> Option<String> {
    let peer = Peer::start(tls, echo);
    let config = peer.tls_config(Pem::Data(ca.to_vec()));
    let create = Request::create(Resource::JOBS, "ns", &serde_json::json!({}));
    let error = client(&config, WAIT).call::<String>(&create).err()?;
    assert!(!error.maybe_applied(), "nothing was sent: {error}");
    Some(error.to_string()).inspect(|text| assert!(!text.contains(['\n', '[']), "one line without bytes: {text}"))
}

#[test]
fn the_authority_may_be_the_servers_own_certificate() {
    let authority = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (plain, plain_key) = self_signed(|_| {});
    let (ca, ca_key) = self_signed(authority);
    let (expired, expired_key) = self_signed(|params| {
        authority(params);
        params.not_after = date_time_ymd(2020, 1, 1);
    });
    let (early, early_key) = self_signed(|params| params.not_before = date_time_ymd(3020, 1, 1));
    let (named, named_key) = self_signed(|params| {
        authority(params);
        params.subject_alt_names = vec![rcgen::SanType::DnsName("kubernetes".try_into().expect("a name"))];
    });
    let text = |bytes: &'static [u8]| std::str::from_utf8(bytes).expect("text").to_owned();
    let (server, server_key, test_ca) = (text(testdata::SERVER), text(testdata::SERVER_KEY), text(testdata::CA));
    let (old, old_key) = {
        // By the authority of the tests it would be valid, if its time were not over.
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("parameters");
        params.not_after = date_time_ymd(2020, 1, 1);
        let issuer_key = KeyPair::generate().expect("a key");
        let issuer = rcgen::Issuer::new(CertificateParams::default(), issuer_key);
        (params.signed_by(&key, &issuer).expect("a certificate").pem(), key.serialize_pem())
    };
    for (title, certificate, key, given, expected) in [
        ("self-signed", &plain, &plain_key, &plain, None),
        ("self-signed, CA:TRUE", &ca, &ca_key, &ca, None),
        ("signed by an authority that is not given", &server, &server_key, &server, None),
        ("its authority", &server, &server_key, &test_ca, None),
        ("both, and others", &ca, &ca_key, &format!("{test_ca}{plain}{ca}"), None),
        ("self-signed, CA:TRUE, not the given one", &ca, &ca_key, &test_ca, Some("CA:TRUE")),
        ("self-signed, not the given one", &plain, &plain_key, &test_ca, Some("unknown authority")),
        ("expired, CA:TRUE", &expired, &expired_key, &expired, Some("expired")),
        ("expired, signed by an authority that is not given", &old, &old_key, &old, Some("expired")),
        ("not valid yet", &early, &early_key, &early, Some("not valid yet")),
        ("another name, CA:TRUE", &named, &named_key, &named, Some("not valid for name")),
    ] {
        let error = error_of(server_tls(certificate.as_bytes(), key.as_bytes(), None), given.as_bytes());
        expect_error(title, error, expected);
    }
}

#[test]
fn only_an_authority_vouches_for_others() {
    let not_one: fn(&mut CertificateParams) = |params| params.is_ca = IsCa::ExplicitNoCa;
    let may_not_sign: fn(&mut CertificateParams) = |params| {
        is_authority(params);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    };
    let may_sign: fn(&mut CertificateParams) = |params| {
        is_authority(params);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    };
    let refused = Some("its authority \"the authority\" in certificate-authority may not sign certificates");
    for (title, change, expected) in [
        ("an authority", is_authority as fn(&mut CertificateParams), None),
        ("an authority that may sign", may_sign, None),
        ("version 3 without basicConstraints", unchanged, refused),
        ("CA:FALSE", not_one, refused),
        ("an authority that may not sign", may_not_sign, refused),
    ] {
        let [ca, certificate, key] = signed(change, unchanged);
        let error = |given: &str| error_of(server_tls(certificate.as_bytes(), key.as_bytes(), None), given.as_bytes());
        expect_error(title, error(&ca), expected);
        expect_error(title, error(&format!("{ca}{certificate}")), None);
    }
    // Of version 1, where certificates do not say whether they are authorities.
    let text = |bytes: &'static [u8]| std::str::from_utf8(bytes).expect("text");
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "client");
    let issuer = Issuer::new(params, KeyPair::from_pem(text(testdata::V1_KEY)).expect("a key"));
    let [certificate, key] = signed_by(&issuer, unchanged);
    expect_error("version 1", error_of(server_tls(certificate.as_bytes(), key.as_bytes(), None), testdata::V1), None);
}

#[test]
fn an_authority_whose_time_is_over_vouches_for_nobody() {
    let expired: fn(&mut CertificateParams) = |params| {
        is_authority(params);
        params.not_after = date_time_ymd(2020, 1, 1);
    };
    let early: fn(&mut CertificateParams) = |params| {
        is_authority(params);
        params.not_before = date_time_ymd(3020, 1, 1);
    };
    for (title, change, expected) in [
        ("expired", expired, "its authority \"the authority\" in certificate-authority expired at 2020-01-01T00:00:00Z"),
        ("early", early, "its authority \"the authority\" in certificate-authority is not valid before 3020-01-01T00:00:00Z"),
    ] {
        let [ca, certificate, key] = signed(change, unchanged);
        let other = std::str::from_utf8(testdata::CA).expect("text");
        expect_error(
            title,
            error_of(server_tls(certificate.as_bytes(), key.as_bytes(), None), (other.to_owned() + &ca).as_bytes()),
            Some(expected),
        );
    }
    // Renewed with the same key, and both are given.
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    expired(&mut params);
    let old = params.self_signed(&key).expect("a certificate").pem();
    params.not_after = date_time_ymd(3020, 1, 1);
    let new = params.self_signed(&key).expect("a certificate").pem();
    let [certificate, server_key] = signed_by(&Issuer::new(params, key), unchanged);
    let error = error_of(server_tls(certificate.as_bytes(), server_key.as_bytes(), None), (old + &new).as_bytes());
    expect_error("renewed", error, None);
}

#[test]
fn what_is_wrong_with_a_server_certificate_is_told_in_words() {
    let critical: fn(&mut CertificateParams) = |params| {
        let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions = vec![extension];
    };
    let constrained: fn(&mut CertificateParams) = |params| {
        is_authority(params);
        let subtree = GeneralSubtree::IpAddress(CidrSubnet::V4([10, 0, 0, 0], [255, 0, 0, 0]));
        params.name_constraints = Some(NameConstraints { permitted_subtrees: vec![subtree], excluded_subtrees: Vec::new() });
    };
    let of_others: fn(&mut CertificateParams) = |params| {
        let name = |text: &str| rcgen::SanType::DnsName(text.try_into().expect("a name"));
        params.subject_alt_names = vec![name("other"), name("another"), rcgen::SanType::IpAddress([10, 0, 0, 1].into())];
    };
    let expired: fn(&mut CertificateParams) = |params| params.not_after = date_time_ymd(2020, 1, 1);
    let early: fn(&mut CertificateParams) = |params| params.not_before = date_time_ymd(3020, 1, 1);
    let for_clients: fn(&mut CertificateParams) = |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let any: fn(&mut CertificateParams) = |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
    let of_an_authority: fn(&mut CertificateParams) = is_authority;
    let names = "not valid for name 127.0.0.1, only for other, another, 10.0.0.1; set tls-server-name to one of them";
    for (authority, server, expected) in [
        (is_authority as fn(&mut CertificateParams), critical, "it has a critical extension that is not supported"),
        (constrained, unchanged, "its authority may not sign for this name (name constraints)"),
        (is_authority, of_others, names),
        (is_authority, expired, "it expired at 2020-01-01T00:00:00Z; renew it"),
        (is_authority, early, "it is not valid yet, but from 3020-01-01T00:00:00Z; check the clocks"),
        (is_authority, for_clients, "it may not be used by servers (extendedKeyUsage without serverAuth)"),
        (is_authority, any, "it may not be used by servers (extendedKeyUsage without serverAuth)"),
        (is_authority, of_an_authority, "CA:TRUE"),
    ] {
        let [ca, certificate, key] = signed(authority, server);
        expect_error(expected, error_of(unchecked_tls(&certificate, &key), ca.as_bytes()), Some(expected));
    }
}

#[test]
fn a_wildcard_needs_a_domain_of_two_names() {
    for (name, expected) in [("*.lan", Some("name k3s.lan: wildcards like *.lan are not supported")), ("k3s.lan", None)] {
        let [ca, certificate, key] =
            signed(is_authority, |params| params.subject_alt_names = vec![rcgen::SanType::DnsName(name.try_into().expect("a name"))]);
        let peer = Peer::start(server_tls(certificate.as_bytes(), key.as_bytes(), None), echo);
        let mut config = peer.tls_config(Pem::Data(ca.into_bytes()));
        config.tls_server_name = Some("k3s.lan".to_owned());
        expect_error(
            name,
            client(&config, WAIT).call::<String>(&Request::get_path("/version")).err().map(|error| error.to_string()),
            expected,
        );
    }
}

#[test]
fn an_unusable_client_certificate_is_told_with_its_place() {
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n".as_bytes();
    let legacy =
        b"-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
    let rsa_1024 = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let dir = TempDir::new();
    for (certificate, key, expected) in [
        (testdata::CLIENT, encrypted, "key: user u: client-key: encrypted keys are not supported (decrypt it: openssl pkey -in KEY)"),
        (testdata::CLIENT, legacy, "key: user u: client-key: encrypted keys are not supported (decrypt it: openssl pkey -in KEY)"),
        (
            testdata::CLIENT,
            b"canary",
            "key: user u: client-key: contains no PEM private key (it must start with -----BEGIN PRIVATE KEY-----",
        ),
        (testdata::P_521, testdata::P_521_KEY, "key: user u: client-key: P-521 is not supported (use a P-256, P-384, RSA or Ed25519 key"),
        (testdata::CLIENT, rsa_1024, "key: user u: client-key: not a supported private key (use a P-256, P-384, Ed25519 or RSA key"),
        (
            testdata::CLIENT,
            testdata::SERVER_KEY,
            "key: user u: client-key: does not match the certificate (use the key of the certificate)",
        ),
        (
            b"canary",
            testdata::CLIENT_KEY,
            "crt: user u: client-certificate: contains no PEM certificate (it must start with -----BEGIN CERT",
        ),
    ] {
        let mut config = Peer::start(None, echo).config();
        let [file, data] = [
            ClientCert {
                certificate: Pem::File(dir.write("crt", certificate)),
                key: Pem::File(dir.write("key", key)),
                user: "user u: ".to_owned(),
            },
            ClientCert { certificate: Pem::Data(certificate.to_vec()), key: Pem::Data(key.to_vec()), user: "user u: ".to_owned() },
        ];
        config.client_cert = Some(file);
        let error = Client::new(&config, ClientOptions::default()).expect_err(expected).to_string();
        assert!(error.starts_with(&format!("{}/{expected}", dir.path().display())) && !error.contains("canary"), "{error}");
        config.client_cert = Some(data);
        let error = Client::new(&config, ClientOptions::default()).expect_err(expected).to_string();
        assert!(error.starts_with(&format!("test: {}", &expected[5..])) && !error.contains("canary"), "{error}");
    }
}

#[test]
fn a_server_needs_the_key_of_the_certificate_that_we_trust_as_it_is() {
    let (certificate, _) = self_signed(|_| {});
    let (_, key) = self_signed(|_| {});
    let error = error_of(unchecked_tls(&certificate, &key), certificate.as_bytes()).expect("an impostor");
    assert!(error.contains("server certificate not trusted"), "{error}");
}

#[test]
fn what_cannot_work_is_told_in_one_line() {
    let error = error_of(server_tls(testdata::BY_P_521, testdata::BY_P_521_KEY, None), testdata::P_521).expect("not supported");
    assert!(error.contains("server certificate not trusted: signed with a key that is not supported, perhaps P-521"), "{error}");

    let old =
        rustls::ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS12]).expect("a version");
    let chain = vec![CertificateDer::from_pem_slice(testdata::SERVER).expect("PEM")];
    let old = old.with_no_client_auth().with_single_cert(chain, PrivateKeyDer::from_pem_slice(testdata::SERVER_KEY).expect("a key"));
    let error = error_of(Some(Arc::new(old.expect("a pair"))), testdata::CA).expect("too old");
    assert!(error.contains("cannot connect: the server does not speak TLS 1.3"), "{error}");

    // What a server with a P-521 key sends, and one that does not speak TLS.
    for (bytes, expected) in
        [(&b"\x15\x03\x03\x00\x02\x02\x28"[..], "perhaps P-521"), (b"HTTP/1.0 400 Bad Request\r\n\r\n", "does not speak TLS on this port")]
    {
        let peer = Peer::start(None, move |_, stream| {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(bytes);
        });
        let create = Request::create(Resource::JOBS, "ns", &serde_json::json!({}));
        let error = client(&peer.tls_config(Pem::Data(testdata::CA.to_vec())), WAIT).call_unit(&create).expect_err("no TLS");
        assert!(!error.maybe_applied() && error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn what_is_broken_in_a_bundle_is_left_out() {
    let ca = std::str::from_utf8(testdata::CA).expect("text");
    let block = |content: &str| format!("-----BEGIN CERTIFICATE-----\n{content}\n-----END CERTIFICATE-----\n");
    let (garbage, empty, no_certificate) = (block("!!!"), block(""), block("AAAA"));
    for (title, bundle, is_good) in [
        ("base64 before", format!("{garbage}{ca}"), true),
        ("base64 after", format!("{ca}{garbage}"), true),
        ("no certificate", format!("{no_certificate}{ca}"), true),
        ("nothing in it", format!("{empty}{ca}"), true),
        ("without an end", format!("{ca}-----BEGIN CERTIFICATE-----\nAAAA"), true),
        ("without an end before", format!("-----BEGIN CERTIFICATE-----\nAAAA\n{ca}"), true),
        ("text around", format!("# our authority\n{ca}\nend\n"), true),
        ("all of it", format!("{garbage}{no_certificate}"), false),
        ("nothing", String::new(), false),
    ] {
        let peer = Peer::start(server_tls(testdata::SERVER, testdata::SERVER_KEY, None), echo);
        let client = Client::new(&peer.tls_config(Pem::Data(bundle.into_bytes())), ClientOptions::default());
        match client {
            Ok(client) => assert!(is_good && client.call::<String>(&Request::get_path("/version")).is_ok(), "{title}"),
            Err(error) => {
                assert!(!is_good && error.to_string().starts_with("test: certificate authority: contains no "), "{title}: {error}")
            }
        }
    }
}

fn version() -> HttpRequest<'static> {
    HttpRequest {
        method: Method::Get,
        path_and_query: "/version".to_owned(),
        accept: "application/json",
        authorization: None,
        body: None,
        limit: Limit::Call,
    }
}

#[test]
fn a_client_certificate_file_that_is_replaced_is_read_again() {
    // Answers with the length of the certificate that it was given.
    let peer = Peer::start(server_tls(testdata::SERVER, testdata::SERVER_KEY, Some(testdata::CA)), echo);
    let dir = TempDir::new();
    let (certificate, key) = (dir.write("crt", testdata::V1), dir.write("key", testdata::V1_KEY));
    let mut config = peer.tls_config(Pem::Data(testdata::CA.to_vec()));
    config.client_cert = Some(ClientCert { certificate: Pem::File(certificate), key: Pem::File(key), user: String::new() });
    let settings = ClientOptions::default();
    let patience = PluginPatience { silent: WAIT, talking: WAIT, tell: |_| {} };
    let transport = HttpTransport::new(&config, &settings.user_agent, WAIT, 4, patience).expect("a transport");
    let old = || transport.lock().identity_read = Instant::now().checked_sub(IDENTITY_FOR).expect("the machine runs long enough");
    let is_taken = |transport: &HttpTransport| {
        let mut body = String::new();
        transport.send(&version()).is_ok_and(|mut answer| answer.body.read_to_string(&mut body).is_ok())
    };
    assert!(!is_taken(&transport), "the server does not know the first one");
    dir.write("crt", testdata::CLIENT);
    assert!(!is_taken(&transport), "not due yet");
    old();
    assert!(!is_taken(&transport), "the key is still that of the other");
    dir.write("key", testdata::CLIENT_KEY);
    old();
    assert!(is_taken(&transport), "now both are there");
    dir.write("crt", "");
    old();
    assert!(is_taken(&transport), "the last good one is kept");
}

/// Lines of the one test that looks at them, in order.
static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Keeper;

impl log::Log for Keeper {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        std::thread::current().name().is_some_and(|name| name.ends_with("are_logged_once"))
    }

    fn log(&self, record: &log::Record<'_>) {
        struct Values(String);
        impl<'kvs> log::kv::VisitSource<'kvs> for Values {
            fn visit_pair(&mut self, key: log::kv::Key<'kvs>, value: log::kv::Value<'kvs>) -> Result<(), log::kv::Error> {
                self.0 += &format!(" {key}={value}");
                Ok(())
            }
        }
        if self.enabled(record.metadata()) {
            let mut values = Values(String::new());
            let _ = record.key_values().visit(&mut values);
            LOGGED.lock().expect("no panic").push(format!("{} {}{}", record.level(), record.args(), values.0));
        }
    }

    fn flush(&self) {}
}

/// The lines that this transport and its forks log about the files when they are due, twice, without the folder's name.
fn logged(transport: &HttpTransport, dir: &TempDir) -> Vec<String> {
    for _ in 0..2 {
        transport.lock().identity_read = Instant::now().checked_sub(IDENTITY_FOR).expect("the machine runs long enough");
        // Both look at the files, and share what was told of them.
        let fork = transport.fork();
        transport.renew_identity();
        fork.send(&version()).expect("with a good certificate, perhaps the last one");
    }
    let folder = dir.path().display().to_string();
    LOGGED.lock().expect("no panic").drain(..).map(|line| line.replace(&folder, "DIR")).collect()
}

#[test]
fn files_of_a_client_certificate_that_go_bad_are_logged_once() {
    log::set_logger(&Keeper).expect("no other logger in these tests");
    log::set_max_level(log::LevelFilter::Info);
    // A server that takes any certificate.
    let peer = Peer::start(server_tls(testdata::SERVER, testdata::SERVER_KEY, None), echo);
    let dir = TempDir::new();
    let (certificate, key) = (dir.write("crt", testdata::CLIENT), dir.write("key", testdata::CLIENT_KEY));
    let mut config = peer.tls_config(Pem::Data(testdata::CA.to_vec()));
    config.client_cert = Some(ClientCert { certificate: Pem::File(certificate), key: Pem::File(key), user: "user u: ".to_owned() });
    let patience = PluginPatience { silent: WAIT, talking: WAIT, tell: |_| {} };
    let transport = HttpTransport::new(&config, "test", WAIT, 4, patience).expect("a transport");
    let (bad, nothing) = ("WARN client certificate not usable; keeping the last one error=", Vec::<String>::new());
    assert_eq!(logged(&transport, &dir), nothing);

    std::fs::remove_file(dir.path().join("crt")).expect("removed");
    let missing = format!("{bad}DIR/crt: user u: client-certificate: No such file or directory (os error 2) (check the path)");
    assert_eq!(logged(&transport, &dir), [missing]);
    assert_eq!(logged(&transport, &dir), nothing, "told already");
    for (content, expected) in [
        (&b"-----BEGIN CERTIFICATE-----\nMII"[..], "DIR/crt: user u: client-certificate: is not valid PEM"),
        (testdata::V1, "DIR/key: user u: client-key: does not match the certificate"),
    ] {
        dir.write("crt", content);
        let lines = logged(&transport, &dir);
        assert!(lines.len() == 1 && lines[0].starts_with(&format!("{bad}{expected}")), "{lines:?}");
    }
    dir.write("crt", testdata::CLIENT);
    assert_eq!(logged(&transport, &dir), ["INFO client certificate usable again"]);
    dir.write("crt", testdata::V1);
    dir.write("key", testdata::V1_KEY);
    let lines = logged(&transport, &dir);
    assert!(!lines.is_empty() && lines.iter().all(|line| line == "INFO client certificate changed, read again"), "{lines:?}");
}

#[test]
fn an_unauthorized_certificate_is_told_what_may_be_wrong() {
    let refuse = |_: usize, stream: &mut dyn Stream| {
        let _ = read_request(stream);
        let body = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}"#;
        answer(stream, &format!("HTTP/1.1 401 Unauthorized\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    };
    let peer = Peer::start(server_tls(testdata::SERVER, testdata::SERVER_KEY, None), refuse);
    let mut config = peer.tls_config(Pem::Data(testdata::CA.to_vec()));
    let hint = "get version: 401 Unauthorized: Unauthorized (the client certificate may have expired, or be of another cluster)";
    for (certificate, auth, expected) in [
        (Some(pair(testdata::CLIENT, testdata::CLIENT_KEY)), Auth::None, hint),
        (Some(pair(testdata::CLIENT, testdata::CLIENT_KEY)), Auth::Token("t".to_owned()), "get version: 401 Unauthorized: Unauthorized"),
        (None, Auth::None, "get version: 401 Unauthorized: Unauthorized"),
    ] {
        (config.client_cert, config.auth) = (certificate, auth);
        let error = client(&config, WAIT).ping().expect_err("unauthorized");
        assert_eq!(error.to_string(), expected);
        assert!(error.answer() == crate::kube::Answer::Unauthorized, "{error}");
    }
}
