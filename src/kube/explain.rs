//! Why there is no TLS with a server, in words that say what to do. Pure.
//!
//! The library's own words are for who writes a TLS library: `UnknownIssuer`, `CaUsedAsEndEntity`, object identifiers as bytes.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

use crate::text::one_line;

use super::trust::time_text;

/// Whether the server's certificate is at fault. Nothing was sent then.
pub(super) fn is_about_certificate(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(_) | Error::NoCertificatesPresented)
}

/// What is wrong, as one sentence.
pub(super) fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => certificate(error),
        error => handshake(error).map(str::to_owned),
    }
    .unwrap_or_else(|| error.to_string())
}

fn certificate(error: &CertificateError) -> Option<String> {
    let text = match error {
        CertificateError::UnknownIssuer => {
            "unknown authority; certificate-authority must hold the authority that signed it, or this very certificate"
        }
        CertificateError::BadSignature => {
            "a signature does not fit; perhaps the authority in certificate-authority is of an earlier cluster, or an RSA key has less than \
             2048 bits"
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "signed with a key that is not supported, perhaps P-521; supported: P-256, P-384, RSA and Ed25519"
        }
        CertificateError::BadEncoding => "it is malformed; issue another one",
        CertificateError::ExpiredContext { not_after, .. } => return Some(format!("it expired at {}; renew it", time_text(*not_after))),
        CertificateError::NotValidYetContext { not_before, .. } => {
            return Some(format!("it is not valid yet, but from {}; check the clocks", time_text(*not_before)));
        }
        CertificateError::NotValidForNameContext { expected, presented } => return Some(other_name(&expected.to_str(), presented)),
        CertificateError::InvalidPurposeContext { .. } => {
            "it may not be used by servers (extendedKeyUsage without serverAuth); issue one that may"
        }
        CertificateError::Other(other) => {
            let Some(error) = other.0.downcast_ref::<webpki::Error>() else { return Some(other.0.to_string()) };
            return Some(rules(error));
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// The library has the certificate's names as `DnsName("a")` and `IpAddress(10.0.0.1)`.
fn other_name(expected: &str, presented: &[String]) -> String {
    let bare = |name: &String| {
        let name = name.split_once('(').map_or(name.as_str(), |(_, name)| name).trim_end_matches(')');
        name.trim_matches('"').to_owned()
    };
    let names: Vec<_> = presented.iter().map(bare).collect();
    let wildcard = expected.split_once('.').map(|(_, domain)| format!("*.{domain}")).filter(|wildcard| names.contains(wildcard));
    match wildcard {
        _ if names.is_empty() => format!("not valid for name {expected}; it has no subjectAltName, and needs one"),
        Some(wildcard) => {
            format!("not valid for name {expected}: wildcards like {wildcard} are not supported; issue one with the name itself")
        }
        None => {
            format!("not valid for name {expected}, only for {}; set tls-server-name to one of them", one_line(&names.join(", "), 150))
        }
    }
}

/// What RFC 5280 has against it, or against one between it and the authority.
fn rules(error: &webpki::Error) -> String {
    let text = match error {
        webpki::Error::CaUsedAsEndEntity => "it is the certificate of an authority (CA:TRUE), and not the one in certificate-authority",
        webpki::Error::UnsupportedCertVersion => "it is X.509 version 1; a server needs version 3, with subjectAltName",
        webpki::Error::UnsupportedCriticalExtension => {
            "it has a critical extension that is not supported, or its authority has; issue one without"
        }
        webpki::Error::NameConstraintViolation => "its authority may not sign for this name (name constraints); use another authority",
        webpki::Error::EndEntityUsedAsCa => "one of the certificates that the server sends with it may not sign others (no CA:TRUE)",
        webpki::Error::PathLenConstraintViolated => {
            "there are more authorities between it and the first than that allows (pathLenConstraint)"
        }
        error => return format!("it breaks a rule for certificates ({error}); issue another one"),
    };
    text.to_owned()
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
    use rustls::OtherError;

    #[test]
    fn what_can_be_mended_says_how() {
        let bad = Error::InvalidCertificate;
        let other = |error| bad(CertificateError::Other(OtherError(std::sync::Arc::new(error))));
        let unsupported =
            CertificateError::UnsupportedSignatureAlgorithmContext { signature_algorithm_id: vec![6, 5], supported_algorithms: vec![] };
        for (error, expected) in [
            (bad(CertificateError::UnknownIssuer), "unknown authority"),
            (bad(CertificateError::BadSignature), "of an earlier cluster, or an RSA key has less than 2048 bits"),
            (bad(unsupported), "P-521"),
            (other(webpki::Error::CaUsedAsEndEntity), "CA:TRUE"),
            (other(webpki::Error::UnsupportedCertVersion), "version 1"),
            (other(webpki::Error::PathLenConstraintViolated), "pathLenConstraint"),
            (other(webpki::Error::BadDerTime), "issue another one"),
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
