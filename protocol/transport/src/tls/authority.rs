//! The cluster's certificate authority as its peers see it: one certificate, and the pin of it in a join token.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::identity::pem_block;

/// SHA-256 of the cluster authority's certificate (its DER bytes): what a join token carries instead of the certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthorityPin([u8; 32]);

/// A text that is not a pin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "pin of the cluster's authority must be 64 hexadecimal digits, got {got} characters; copy the join token again"
)]
pub struct PinError {
    got: usize,
}

impl AuthorityPin {
    /// Takes the 32 bytes of the digest.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes of the digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for AuthorityPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for AuthorityPin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let wrong = PinError { got: text.chars().count() };
        if text.len() != 64 || !text.is_ascii() {
            return Err(wrong);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong.clone())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong.clone())?;
        }
        Ok(Self(bytes))
    }
}

/// The certificate of a cluster's authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    certificate: CertificateDer<'static>,
}

/// Bytes that are not a certificate of an authority.
#[derive(Debug, thiserror::Error)]
#[error("not a certificate of a cluster authority; fetch it again from a node")]
pub struct AuthorityError {
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl Authority {
    /// Takes the certificate's DER bytes.
    pub fn from_der(der: Vec<u8>) -> Result<Self, AuthorityError> {
        let certificate = CertificateDer::from(der);
        webpki::anchor_from_trusted_cert(&certificate).map_err(|source| AuthorityError { source: source.into() })?;
        Ok(Self { certificate })
    }

    /// Takes the first certificate of a PEM text.
    pub fn from_pem(pem: &[u8]) -> Result<Self, AuthorityError> {
        let der = CertificateDer::from_pem_slice(pem).map_err(|source| AuthorityError { source: source.into() })?;
        Self::from_der(der.to_vec())
    }

    /// Returns the certificate as PEM text.
    pub fn to_pem(&self) -> String {
        pem_block("CERTIFICATE", &self.certificate)
    }

    /// Returns the certificate's DER bytes.
    pub fn as_der(&self) -> &[u8] {
        &self.certificate
    }

    /// Returns the pin for join tokens.
    pub fn pin(&self) -> AuthorityPin {
        pin_of(&self.certificate)
    }

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(super) fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        // `from_der` has parsed these bytes as a trust anchor, so nothing is left out here.
        roots.add_parsable_certificates([self.certificate.clone()]);
        Arc::new(roots)
    }
}

pub(super) fn pin_of(certificate: &CertificateDer<'_>) -> AuthorityPin {
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(digest(&SHA256, certificate).as_ref()).for_each(|(to, from)| *to = *from);
    AuthorityPin(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pin_is_read_back_from_its_text() {
        let pin = AuthorityPin::from_bytes(std::array::from_fn(|index| u8::try_from(index * 7).unwrap()));
        assert_eq!(pin.to_string().parse(), Ok(pin));
    }

    #[test]
    fn bad_pins_are_refused_with_their_length() {
        for (text, got) in [("", 0), ("abc", 3), (&"é".repeat(32) as &str, 32), (&"zz".repeat(32), 64)] {
            assert_eq!(text.parse::<AuthorityPin>(), Err(PinError { got }), "case: {text}");
        }
    }

    #[test]
    fn bytes_that_are_no_certificate_are_refused() {
        assert!(Authority::from_der(vec![0x30, 0x03, 1, 2, 3]).is_err());
        assert!(Authority::from_pem(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
        assert!(Authority::from_pem(b"hello").is_err());
    }
}
