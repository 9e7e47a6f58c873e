//! Who we are: the client certificate with its key, from PEM.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::config::ClientCertPem;
use super::crypto;

/// Object identifier of the curve P-521 in DER (1.3.132.0.35, SEC 2).
const P_521: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];

/// Why a client certificate cannot be used. Quotes nothing of the key.
#[derive(Debug)]
pub(super) struct Unusable {
    /// The key is at fault, not the certificate.
    pub(super) is_key: bool,
    pub(super) reason: &'static str,
    /// What to do.
    pub(super) hint: &'static str,
}

/// The certificates, and the key of the first.
pub(super) fn read(pair: &ClientCertPem) -> Result<Arc<SingleCertAndKey>, Unusable> {
    let certificate = |reason| Unusable { is_key: false, reason, hint: "it must start with -----BEGIN CERTIFICATE-----" };
    let key = |reason, hint| Unusable { is_key: true, reason, hint };
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&pair.certificate).collect::<Result<_, _>>().map_err(|_| certificate("is not valid PEM"))?;
    let first = chain.first().ok_or_else(|| certificate("contains no PEM certificate"))?.clone();
    if contains(&pair.key, b"ENCRYPTED") {
        return Err(key("encrypted keys are not supported", "decrypt it: openssl pkey -in KEY"));
    }
    let private = PrivateKeyDer::from_pem_slice(&pair.key)
        .map_err(|_| key("contains no PEM private key", "it must start with -----BEGIN PRIVATE KEY-----, or EC or RSA PRIVATE KEY"))?;
    let is_p_521 = contains(private.secret_der(), &P_521);
    let private = crypto::provider().key_provider.load_private_key(private).map_err(|_| match is_p_521 {
        true => key("P-521 is not supported", "use a P-256, P-384, RSA or Ed25519 key, with a certificate for it"),
        false => {
            let hint = "use a P-256, P-384, Ed25519 or RSA key, RSA from 2048 to 8192 bits, with a certificate for it";
            key("not a supported private key", hint)
        }
    })?;
    // The library's own check reads the certificate, and takes version 3 only. The public key stands in each version as it is.
    if private.public_key().is_some_and(|public| !contains(&first, &public)) {
        return Err(key("does not match the certificate", "use the key of the certificate"));
    }
    Ok(Arc::new(CertifiedKey::new(chain, private).into()))
}

fn contains(all: &[u8], part: &[u8]) -> bool {
    all.windows(part.len()).any(|piece| piece == part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::scripted::testdata;

    #[test]
    fn a_certificate_goes_with_its_key_whatever_its_version() {
        let (junk, broken) = (&b"canary"[..], &b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"[..]);
        let rsa_1024 = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for (certificate, key, expected) in [
            (testdata::CLIENT, testdata::CLIENT_KEY, None),
            (testdata::V1, testdata::V1_KEY, None),
            (testdata::CLIENT, testdata::SERVER_KEY, Some("does not match the certificate")),
            (testdata::V1, testdata::CLIENT_KEY, Some("does not match the certificate")),
            (testdata::P_521, testdata::P_521_KEY, Some("P-521 is not supported")),
            (testdata::CLIENT, junk, Some("contains no PEM private key")),
            (testdata::CLIENT, rsa_1024, Some("not a supported private key")),
            (junk, testdata::CLIENT_KEY, Some("contains no PEM certificate")),
            (broken, testdata::CLIENT_KEY, Some("is not valid PEM")),
        ] {
            let result = read(&ClientCertPem { certificate: certificate.to_vec(), key: key.to_vec() });
            match (result, expected) {
                (Ok(_), None) => {}
                (Err(error), Some(expected)) => assert_eq!(error.reason, expected),
                (result, expected) => panic!("{result:?} instead of {expected:?}"),
            }
        }
    }
}
