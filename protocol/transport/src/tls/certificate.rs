//! Reads what we need from a certificate: whose it is, its number, and until when it holds.
//!
//! webpki has checked the signature and the shape before anything here is believed; validity is not in its API, so a
//! small reader of DER is here, for that field only.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;

use super::name::PeerName;

/// The time between which a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub not_before: SystemTime,
    /// Last moment.
    pub not_after: SystemTime,
}

/// A peer's certificate, checked against the cluster's authority. The caller decides about revocation.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Whose it is.
    pub name: PeerName,
    /// SHA-256 of the whole certificate.
    pub fingerprint: [u8; 32],
    /// Serial number, as the authority gave it, most significant byte first.
    pub serial: Vec<u8>,
    /// When it holds.
    pub validity: Validity,
}

/// A certificate that is not one of a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not parsable.
    #[error("certificate is malformed; join again to get a new one")]
    Malformed,
    /// Parsable, but it names neither an agent nor a node.
    #[error("certificate names neither an agent nor a node of a cluster; join again to get a new one")]
    NoPeerName,
}

impl PeerCertificate {
    /// Reads a certificate that TLS has checked, or that is our own.
    pub fn read(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = CertificateDer::from(der);
        let parsed = webpki::EndEntityCert::try_from(&certificate).map_err(|_| CertificateError::Malformed)?;
        let name = parsed.valid_dns_names().find_map(PeerName::from_dns).ok_or(CertificateError::NoPeerName)?;
        let validity = read_validity(der).ok_or(CertificateError::Malformed)?;
        let mut fingerprint = [0; 32];
        fingerprint.iter_mut().zip(digest(&SHA256, der).as_ref()).for_each(|(to, from)| *to = *from);
        Ok(Self { name, fingerprint, serial: parsed.serial().to_vec(), validity })
    }

    /// Returns the fingerprint in hexadecimal.
    pub fn fingerprint_hex(&self) -> String {
        self.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerCertificate({}, sha256 {})", self.name, self.fingerprint_hex())
    }
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const EXPLICIT_VERSION: u8 = 0xa0;

/// Walks to `tbsCertificate.validity` (RFC 5280, 4.1): version?, serial, signature, issuer, validity.
fn read_validity(der: &[u8]) -> Option<Validity> {
    let (tag, certificate, _) = element(der)?;
    let (inner_tag, mut rest, _) = element(certificate)?;
    if tag != SEQUENCE || inner_tag != SEQUENCE {
        return None;
    }
    if rest.first() == Some(&EXPLICIT_VERSION) {
        rest = element(rest)?.2;
    }
    for expected in [INTEGER, SEQUENCE, SEQUENCE] {
        let (tag, _, after) = element(rest)?;
        if tag != expected {
            return None;
        }
        rest = after;
    }
    let (_, validity, _) = element(rest)?;
    let (before_tag, before, after_before) = element(validity)?;
    let (after_tag, after, _) = element(after_before)?;
    Some(Validity { not_before: read_time(before_tag, before)?, not_after: read_time(after_tag, after)? })
}

/// Splits off the first element: its tag, its content and what follows it. Lengths up to 65535, enough for validity's
/// predecessors and the certificate itself.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&length, rest) = rest.split_first()?;
            (usize::from(length), rest)
        }
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// Reads `YYMMDDHHMMSSZ` (1950 to 2049) or `YYYYMMDDHHMMSSZ`.
fn read_time(tag: u8, text: &[u8]) -> Option<SystemTime> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year = digits(year)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (digits(year)?, rest)
        }
        _ => return None,
    };
    if rest.len() != 10 {
        return None;
    }
    let mut fields = [0; 5];
    for (index, field) in fields.iter_mut().enumerate() {
        *field = digits(rest.get(index * 2..index * 2 + 2)?)?;
    }
    let [month, day, hour, minute, second] = fields;
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    if !in_range {
        return None;
    }
    let seconds =
        days_since_epoch(year, month, day)?.checked_mul(86_400)?.checked_add(hour * 3600 + minute * 60 + second)?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`. `None` before 1970.
fn days_since_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let era = year / 400;
    let year_of_era = year % 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_certificates_are_read_as_seconds() {
        for (tag, text, expected) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "261121093000Z", Some(1_795_253_400)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000)),
            (GENERALIZED_TIME, "20000229000000Z", Some(951_782_400)),
            (GENERALIZED_TIME, "19500101000000Z", None),
            (GENERALIZED_TIME, "20501301000000Z", None),
            (UTC_TIME, "2611210930Z", None),
            (UTC_TIME, "261121093000+0100", None),
            (0x16, "261121093000Z", None),
        ] {
            let read = read_time(tag, text.as_bytes());
            assert_eq!(read, expected.map(|secs| UNIX_EPOCH + Duration::from_secs(secs)), "case: {text}");
        }
    }

    #[test]
    fn cut_certificates_are_refused() {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = PeerName::agent("a-S1").unwrap().certificate_names();
        let made = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let read = PeerCertificate::read(made.der()).unwrap();
        assert!(read.name.is(super::super::PeerKind::Agent, "a-S1"));
        assert!(read.validity.not_after > read.validity.not_before);
        for length in 0..made.der().len() {
            assert_eq!(PeerCertificate::read(&made.der()[..length]), Err(CertificateError::Malformed));
            assert_eq!(read_validity(&made.der()[..length]), None);
        }
    }

    #[test]
    fn certificate_without_our_name_is_refused() {
        let key = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::new(["example.org".to_owned()]).unwrap().self_signed(&key).unwrap();
        assert_eq!(PeerCertificate::read(made.der()), Err(CertificateError::NoPeerName));
    }
}
