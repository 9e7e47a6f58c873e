//! Whom we trust: the servers with a certificate that an authority of ours has signed, and the one whose very certificate we were given.
//!
//! The library's own check of a server knows authorities only, and lists of revoked certificates that nobody gives us.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};

use crate::text::one_line;

use super::crypto::SIGNATURES;

/// Which servers are taken.
#[derive(Debug)]
pub(super) enum Trust {
    /// Those that these vouch for.
    Listed(Authorities),
    /// Any server, by the user's wish.
    Anybody,
}

/// The certificates of a CA field: authorities, or a server's own.
#[derive(Debug)]
pub(super) struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<(TrustAnchor<'static>, Facts)>,
}

/// An authority that has signed the server's certificate, and whose own time is over or has not come. For people.
#[derive(Debug)]
pub(super) struct UnfitAuthority(String);

impl fmt::Display for UnfitAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UnfitAuthority {}

impl Authorities {
    /// From PEM. What cannot be read in it is left out, as kubectl does, as long as there is one that can; the error is one sentence.
    pub(super) fn read(pem: &[u8]) -> Result<Self, String> {
        let blocks: Vec<_> = pem_blocks(pem).flat_map(CertificateDer::pem_slice_iter).collect();
        let certificates: Vec<_> = blocks.iter().flatten().cloned().collect();
        let read = |certificate| {
            let anchor = webpki::anchor_from_trusted_cert(certificate).ok()?.to_owned();
            Some((anchor, Facts::read(certificate)?))
        };
        let anchors: Vec<_> = certificates.iter().filter_map(read).collect();
        let usable = anchors.len();
        match (usable, blocks.is_empty()) {
            (0, true) => return Err("contains no PEM certificate".to_owned()),
            (0, false) => return Err("contains no usable certificate".to_owned()),
            (_, _) if usable < blocks.len() => {
                log::warn!(unusable = blocks.len() - usable, usable; "some certificates of the authorities cannot be read; left out");
            }
            (_, _) => {}
        }
        Ok(Self { certificates, anchors })
    }

    fn check(&self, server: &CertificateDer<'_>, chain: &[CertificateDer<'_>], name: &ServerName<'_>, now: UnixTime) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(server)?;
        let verify = |roots| verify_server_cert_signed_by_trust_anchor(&parsed, &RootCertStore { roots }, chain, now, SIGNATURES.all);
        let (fit, unfit): (Vec<_>, Vec<_>) = self.anchors.iter().partition(|(_, facts)| facts.unfit(now).is_none());
        let vouch = verify(fit.iter().map(|(anchor, _)| anchor.clone()).collect());
        match vouch {
            // Its times have been checked before: that comes first (a test holds it).
            Err(error) if is_about_its_issuer(&error) && self.certificates.contains(server) => {}
            Err(error) => {
                let signer = unfit.iter().find(|(anchor, _)| verify(vec![anchor.clone()]).is_ok());
                let Some(reason) = signer.and_then(|(_, facts)| facts.unfit(now)) else { return Err(error) };
                return Err(CertificateError::Other(OtherError(Arc::new(UnfitAuthority(reason)))).into());
            }
            Ok(()) => {}
        }
        verify_server_name(&parsed, name)
    }
}

/// What is between two headers is read alone: a block without an end does not spoil the next one.
fn pem_blocks(pem: &[u8]) -> impl Iterator<Item = &[u8]> {
    const HEADER: &[u8] = b"-----BEGIN ";
    let mut rest = Some(pem);
    std::iter::from_fn(move || {
        let all = rest?;
        let next = all.windows(HEADER.len()).skip(1).position(|piece| piece == HEADER).map(|at| at + 1);
        let (block, after) = all.split_at(next.unwrap_or(all.len()));
        rest = next.map(|_| after);
        Some(block)
    })
}

/// Nothing is wrong with the certificate itself, for someone who trusts it as it is.
fn is_about_its_issuer(error: &Error) -> bool {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => true,
        Error::InvalidCertificate(CertificateError::Other(other)) => {
            matches!(other.0.downcast_ref::<webpki::Error>(), Some(webpki::Error::CaUsedAsEndEntity))
        }
        _ => false,
    }
}

/// What a certificate says of itself as an authority. The library takes every root for one, for ever.
#[derive(Debug)]
struct Facts {
    /// Its common name.
    name: String,
    /// RFC 3339, UTC.
    starts: String,
    ends: String,
    /// By the rules of Go, which are kubectl's: CA:TRUE, and a key usage, if there is one, with keyCertSign. A certificate of version 1
    /// says nothing about it.
    may_sign: bool,
}

impl Facts {
    /// RFC 5280, section 4.1.
    fn read(certificate: &[u8]) -> Option<Self> {
        const VERSION: u8 = 0xa0;
        const EXTENSIONS: u8 = 0xa3;
        const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
        const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
        let (_, mut signed) = element(&mut element(&mut { certificate })?.1)?;
        let (tag, _) = element(&mut signed)?;
        if tag == VERSION {
            element(&mut signed)?;
        }
        let (_algorithm, _issuer) = (element(&mut signed)?, element(&mut signed)?);
        let (_, mut validity) = element(&mut signed)?;
        let (starts, ends) = (time(element(&mut validity)?)?, time(element(&mut validity)?)?);
        let (_, subject) = element(&mut signed)?;
        let _key = element(&mut signed)?;
        let mut may_sign = tag != VERSION;
        let mut forbidden = false;
        while let Some((tag, mut extensions)) = element(&mut signed) {
            if tag != EXTENSIONS {
                continue;
            }
            let (_, mut extensions) = element(&mut extensions)?;
            while let Some((_, mut extension)) = element(&mut extensions) {
                let (_, id) = element(&mut extension)?;
                // Last, after whether it is critical.
                let value = std::iter::from_fn(|| element(&mut extension)).last();
                let content = value.and_then(|(_, mut value)| element(&mut value)).map(|(_, content)| content).unwrap_or_default();
                match id {
                    BASIC_CONSTRAINTS => may_sign = matches!(element(&mut { content }), Some((1, &[flag])) if flag != 0),
                    // After the number of unused bits; keyCertSign is bit 5.
                    KEY_USAGE => forbidden = content.get(1).is_none_or(|bits| bits & 0x04 == 0),
                    _ => {}
                }
            }
        }
        Some(Self { name: common_name(subject).unwrap_or_default(), starts, ends, may_sign: may_sign && !forbidden })
    }

    /// Why it vouches for nobody now.
    fn unfit(&self, now: UnixTime) -> Option<String> {
        let Self { name, starts, ends, may_sign } = self;
        let authority = || format!("its authority \"{}\" in certificate-authority", one_line(name, 100));
        if !may_sign {
            return Some(format!(
                "{} may not sign certificates (basicConstraints, keyUsage); set one that may, or the server's own certificate",
                authority()
            ));
        }
        let now = time_text(now);
        if *ends < now {
            return Some(format!("{} expired at {ends}; renew it, or set the one that is in use now", authority()));
        }
        (now < *starts).then(|| format!("{} is not valid before {starts}; check the clocks", authority()))
    }
}

/// A time as the certificates' are kept.
pub(super) fn time_text(time: UnixTime) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time.as_secs())).to_string()
}

/// Tag and content of the element that is next (X.690, lengths below 64 KiB).
fn element<'a>(input: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let bytes = *input;
    let (length, rest) = match bytes {
        [_, short @ 0..=0x7f, rest @ ..] => (usize::from(*short), rest),
        [_, 0x81, length, rest @ ..] => (usize::from(*length), rest),
        [_, 0x82, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    let tag = *bytes.first()?;
    let (content, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some((tag, content))
}

/// `UTCTime`, which has two digits for its year, or `GeneralizedTime`.
fn time((tag, text): (u8, &[u8])) -> Option<String> {
    let digits = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let digits = match tag {
        0x17 => format!("{}{digits}", if digits < "50" { "20" } else { "19" }),
        _ => digits.to_owned(),
    };
    if digits.len() != 14 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part = |from, to| &digits[from..to];
    Some(format!("{}-{}-{}T{}:{}:{}Z", part(0, 4), part(4, 6), part(6, 8), part(8, 10), part(10, 12), part(12, 14)))
}

/// The last of a subject's names that is one.
fn common_name(mut subject: &[u8]) -> Option<String> {
    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    let mut found = None;
    while let Some((_, mut parts)) = element(&mut subject) {
        while let Some((_, mut part)) = element(&mut parts) {
            if element(&mut part)?.1 == COMMON_NAME {
                found = Some(String::from_utf8_lossy(element(&mut part)?.1).into_owned());
            }
        }
    }
    found
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self {
            Self::Listed(authorities) => authorities.check(end_entity, intermediates, name, now)?,
            Self::Anybody => {}
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not supported".to_owned()))
    }

    /// Also of a server that is not checked otherwise: its certificate counts only with its key.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &SIGNATURES)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SIGNATURES.supported_schemes()
    }
}
