//! A certificate authority of its own for each test server, and the kubeconfig that trusts it.
//! Not for client certificates: tests authenticate with bearer tokens, as pods do.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;

pub struct Identity {
    pub ca_pem: String,
    pub config: Arc<rustls::ServerConfig>,
}

/// A server certificate for 127.0.0.1, localhost and the in-cluster names, signed by a fresh CA.
pub fn identity() -> Identity {
    identity_for(&["127.0.0.1", "localhost", "kubernetes.default.svc"])
}

/// The same for these names and addresses.
pub fn identity_for(names: &[&str]) -> Identity {
    let mut ca = CertificateParams::new(Vec::new()).expect("no names");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "test ca");
    let ca_key = KeyPair::generate().expect("key");
    let issuer = CertifiedIssuer::self_signed(ca, ca_key).expect("self-signed");

    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("valid names");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "test server");
    let key = KeyPair::generate().expect("key");
    let certificate = params.signed_by(&key, &issuer).expect("signed");

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the defaults")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .expect("key fits the certificate");
    Identity { ca_pem: issuer.pem(), config: Arc::new(config) }
}

/// Written as JSON, which is YAML too.
pub fn write_kubeconfig(path: &Path, url: &str, ca_pem: &str, token: &str, namespace: &str) {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url,
            "certificate-authority-data": STANDARD.encode(ca_pem)}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test",
            "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
    });
    fs::write(path, config.to_string()).expect("kubeconfig written");
}

/// The three files a pod finds at its service account path.
pub fn write_service_account(folder: &Path, ca_pem: &str, token: &str, namespace: &str) {
    fs::create_dir_all(folder).expect("folder made");
    for (name, text) in [("ca.crt", ca_pem), ("token", token), ("namespace", namespace)] {
        fs::write(folder.join(name), text).expect("file written");
    }
}

/// TLS settings for a `ureq` client in tests: this CA only, ring, and no roots from the web.
pub fn client(ca_pem: &str, identity: Option<ureq::tls::ClientCert>) -> ureq::tls::TlsConfig {
    let ca = ureq::tls::Certificate::from_pem(ca_pem.as_bytes()).expect("CA in PEM");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ureq::tls::TlsConfig::builder()
        .root_certs(ureq::tls::RootCerts::new_with_certs(&[ca]))
        .client_cert(identity)
        .unversioned_rustls_crypto_provider(provider)
        .build()
}
