//! Why there is no TLS with a server, in words that say what to do. Pure.
//!
//! The library's own words are for who writes a TLS library: `UnknownIssuer`, `CaUsedAsEndEntity`, object identifiers as bytes.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, OtherError, PeerIncompatible};

/// Whether the server's certificate is at fault. Nothing was sent then.
pub(super) fn is_about_certificate(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(_) | Error::NoCertificatesPresented)
}

/// What is wrong, as one sentence.
pub(super) fn explain(error: &Error) -> String {
    let known = match error {
        Error::InvalidCertificate(error) => certificate(error),
        error => handshake(error),
    };
    known.map_or_else(|| error.to_string(), str::to_owned)
}

fn certificate(error: &CertificateError) -> Option<&'static str> {
    let other = |other: &OtherError| match other.0.downcast_ref::<webpki::Error>()? {
        webpki::Error::CaUsedAsEndEntity => {
            Some("it is the certificate of an authority (CA:TRUE), and not the one in certificate-authority")
        }
        webpki::Error::UnsupportedCertVersion => Some("it is X.509 version 1; a server needs version 3, with subjectAltName"),
        _ => None,
    };
    match error {
        CertificateError::UnknownIssuer => {
            Some("unknown authority; certificate-authority must hold the authority that signed it, or this very certificate")
        }
        CertificateError::BadSignature => {
            Some("its authority has the name of the one in certificate-authority, but another key; perhaps that is of an earlier cluster")
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            Some("signed with a key that is not supported, perhaps P-521; supported: P-256, P-384, RSA and Ed25519")
        }
        CertificateError::Other(error) => other(error),
        _ => None,
    }
}

fn handshake(error: &Error) -> Option<&'static str> {
    match error {
        Error::AlertReceived(AlertDescription::ProtocolVersion)
        | Error::PeerIncompatible(
            PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig | PeerIncompatible::ServerDoesNotSupportTls12Or13,
        ) => Some("the server does not speak TLS 1.3, only older versions; enable it there, or on the load balancer in front of it"),
        Error::AlertReceived(AlertDescription::HandshakeFailure) => {
            Some("the server's key is not supported, perhaps P-521; supported: P-256, P-384, RSA and Ed25519")
        }
        Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::UnknownCA,
        ) => Some("the server requires a client certificate, or refuses the one it was given"),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => Some("the server does not speak TLS on this port"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_mended_says_how() {
        let bad = Error::InvalidCertificate;
        let other = |error| bad(CertificateError::Other(OtherError(std::sync::Arc::new(error))));
        let unsupported =
            CertificateError::UnsupportedSignatureAlgorithmContext { signature_algorithm_id: vec![6, 5], supported_algorithms: vec![] };
        for (error, expected) in [
            (bad(CertificateError::UnknownIssuer), "unknown authority"),
            (bad(CertificateError::BadSignature), "of an earlier cluster"),
            (bad(unsupported), "P-521"),
            (other(webpki::Error::CaUsedAsEndEntity), "CA:TRUE"),
            (other(webpki::Error::UnsupportedCertVersion), "version 1"),
            (bad(CertificateError::Revoked), "Revoked"),
            (Error::AlertReceived(AlertDescription::ProtocolVersion), "TLS 1.3"),
            (Error::PeerIncompatible(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig), "TLS 1.3"),
            (Error::AlertReceived(AlertDescription::HandshakeFailure), "P-521"),
            (Error::AlertReceived(AlertDescription::CertificateRequired), "client certificate"),
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), "does not speak TLS"),
            (Error::AlertReceived(AlertDescription::InternalError), "InternalError"),
        ] {
            let text = explain(&error);
            assert!(text.contains(expected) && !text.contains(['[', '\n']), "{error:?}: {text}");
        }
    }
}
