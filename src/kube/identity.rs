//! Who we are: the client certificate with its key, from PEM.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::config::ClientCertPem;
use super::crypto;

/// Object identifier of the curve P-521 in DER (1.3.132.0.35, SEC 2).
const P_521: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];

/// The certificates, and the key of the first. The error is one sentence and quotes nothing of the key.
pub(super) fn read(pair: &ClientCertPem) -> Result<Arc<SingleCertAndKey>, String> {
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&pair.certificate).collect::<Result<_, _>>().map_err(|_| "is not valid PEM".to_owned())?;
    let certificate = chain.first().ok_or("contains no PEM certificate")?.clone();
    let key = PrivateKeyDer::from_pem_slice(&pair.key)
        .map_err(|_| "key: contains no PEM private key (encrypted keys are not supported)".to_owned())?;
    let is_p_521 = contains(key.secret_der(), &P_521);
    let key = crypto::provider().key_provider.load_private_key(key).map_err(|_| match is_p_521 {
        true => "key: P-521 is not supported; use a P-256, P-384, RSA or Ed25519 key".to_owned(),
        false => "key: not a supported private key; use a P-256, P-384, RSA (2048 to 8192 bits) or Ed25519 key".to_owned(),
    })?;
    // The library's own check reads the certificate, and takes version 3 only. The public key stands in each version as it is.
    if key.public_key().is_some_and(|public| !contains(&certificate, &public)) {
        return Err("certificate and key do not match".to_owned());
    }
    Ok(Arc::new(CertifiedKey::new(chain, key).into()))
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
            (testdata::CLIENT, testdata::SERVER_KEY, Some("certificate and key do not match")),
            (testdata::V1, testdata::CLIENT_KEY, Some("certificate and key do not match")),
            (testdata::P_521, testdata::P_521_KEY, Some("key: P-521 is not supported; use")),
            (testdata::CLIENT, junk, Some("key: contains no PEM private key")),
            (testdata::CLIENT, rsa_1024, Some("key: not a supported private key; use")),
            (junk, testdata::CLIENT_KEY, Some("contains no PEM certificate")),
            (broken, testdata::CLIENT_KEY, Some("is not valid PEM")),
        ] {
            let result = read(&ClientCertPem { certificate: certificate.to_vec(), key: key.to_vec() });
            match (result, expected) {
                (Ok(_), None) => {}
                (Err(reason), Some(expected)) => assert!(reason.starts_with(expected) && !reason.contains("canary"), "{reason}"),
                (result, expected) => panic!("{result:?} instead of {expected:?}"),
            }
        }
    }
}
