//! Certificates and keys from PEM, checked before anything is built on them.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// ring, handed over explicitly: there is no process-wide default.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Certificate authorities; at least one of them is usable.
pub(crate) fn read_roots(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = read_certificates(pem)?;
    let (usable, _) = RootCertStore::empty().add_parsable_certificates(certificates.iter().cloned());
    if usable == 0 { Err("holds no usable certificate".to_owned()) } else { Ok(certificates) }
}

/// The client's certificate chain, whose key must belong to it.
pub(crate) fn read_identity(certificate: &[u8], key: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = read_certificates(certificate)?;
    // The error could quote the key's bytes, so it is not passed on.
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|_| "holds no private key in PEM (encrypted keys are not supported)".to_owned())?;
    CertifiedKey::from_der(chain.clone(), key, &ring::default_provider()).map_err(|error| error.to_string())?;
    Ok(chain)
}

fn read_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates =
        CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|_| "holds no readable PEM".to_owned())?;
    if certificates.is_empty() { Err("holds no certificate in PEM".to_owned()) } else { Ok(certificates) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::scripted::testdata;

    #[test]
    fn roots_and_identities_are_checked() {
        assert_eq!(read_roots(testdata::CA).map(|roots| roots.len()), Ok(1));
        for bad in ["", "junk", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\n!!"] {
            assert!(read_roots(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(read_identity(testdata::CLIENT, testdata::CLIENT_KEY).is_ok());
        assert!(read_identity(testdata::CLIENT, testdata::SERVER_KEY).is_err());
        assert!(read_identity(testdata::CLIENT, b"junk").is_err());
    }
}
