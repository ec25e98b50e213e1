//! The cluster's internal certificate authority: made once, kept sealed in the store, signs agents and nodes.
//!
//! The sealing key is the cluster secret, a file of mode 0600 that each node holds; the store alone opens nothing.

use muster_transport::tls::{Authority, Identity, PeerKind, PeerName, PendingIdentity};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// The authority outlives every certificate that it signs.
const AUTHORITY_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// Agents and nodes get a new certificate long before this ends.
const PEER_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
const NONCE_BYTES: usize = 12;
const SEAL_VERSION: u8 = 1;

/// What can go wrong with the authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The cluster secret's file.
    #[error("cluster secret {path}: {why}")]
    Secret {
        /// The file.
        path: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// The record in the store does not open.
    #[error(
        "the authority in the store does not open with this node's cluster secret; copy the file `cluster-secret` of a node of this cluster"
    )]
    Sealed,
    /// Signing.
    #[error("cannot sign a certificate for {name}: {why}")]
    Sign {
        /// Whose.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// The secret that seals the authority's key.
pub struct ClusterSecret([u8; 32]);

impl ClusterSecret {
    /// Reads the file, or makes it (mode 0600) when it does not exist and `may_create`.
    pub fn load_or_create(path: &Path, may_create: bool) -> Result<Self, AuthorityError> {
        let fault = |why: String| AuthorityError::Secret { path: path.display().to_string(), why };
        match fs::read(path) {
            Ok(bytes) => {
                let mode = fs::metadata(path).map_err(|error| fault(error.to_string()))?.permissions().mode();
                if mode & 0o077 != 0 {
                    return Err(fault(format!(
                        "its mode is {:o}; make it readable by its owner only (chmod 600)",
                        mode & 0o777
                    )));
                }
                let secret = bytes.try_into().map_err(|bytes: Vec<u8>| {
                    fault(format!("it holds {} bytes instead of 32; copy it again from another node", bytes.len()))
                })?;
                Ok(Self(secret))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && may_create => {
                let mut secret = [0; 32];
                getrandom::fill(&mut secret).map_err(|error| fault(error.to_string()))?;
                let mut file = fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path)
                    .map_err(|error| fault(error.to_string()))?;
                file.write_all(&secret).and_then(|()| file.sync_all()).map_err(|error| fault(error.to_string()))?;
                Ok(Self(secret))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(fault("it is missing, but the cluster exists; copy it from another node of the cluster".to_owned()))
            }
            Err(error) => Err(fault(error.to_string())),
        }
    }

    /// A key of its own for one purpose, that outlives the process.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), purpose.as_bytes());
        let mut key = [0; 32];
        key.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        key
    }

    fn key(&self) -> Result<LessSafeKey, AuthorityError> {
        Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &self.0).map_err(|_| AuthorityError::Sealed)?))
    }
}

/// The authority with its key: what can admit machines.
pub struct SigningAuthority {
    issuer: Issuer<'static, KeyPair>,
    public: Authority,
}

impl SigningAuthority {
    /// Makes a new authority for the cluster of this id.
    pub fn create(cluster_id: &str) -> Result<(Self, Vec<u8>), AuthorityError> {
        let fault = |why: String| AuthorityError::Sign { name: "the authority".to_owned(), why };
        let key = KeyPair::generate().map_err(|error| fault(error.to_string()))?;
        let certificate = authority_params(cluster_id).self_signed(&key).map_err(|error| fault(error.to_string()))?;
        let der = certificate.der().to_vec();
        // Certificate, then key: two length-prefixed pieces, to be sealed together.
        let mut plain = Vec::new();
        for piece in [&der, &key.serialize_der()] {
            plain.extend_from_slice(&u32::try_from(piece.len()).unwrap_or(u32::MAX).to_be_bytes());
            plain.extend_from_slice(piece);
        }
        let public = Authority::from_der(der).map_err(|error| fault(error.to_string()))?;
        Ok((Self { issuer: Issuer::new(authority_params(cluster_id), key), public }, plain))
    }

    /// Seals what [`Self::create`] returned, for the store.
    pub fn seal(secret: &ClusterSecret, plain: Vec<u8>) -> Result<Vec<u8>, AuthorityError> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| AuthorityError::Sealed)?;
        let mut body = plain;
        secret
            .key()?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from([SEAL_VERSION]), &mut body)
            .map_err(|_| AuthorityError::Sealed)?;
        let mut sealed = vec![SEAL_VERSION];
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut body);
        Ok(sealed)
    }

    /// Opens the store's record.
    pub fn open(secret: &ClusterSecret, sealed: &[u8], cluster_id: &str) -> Result<Self, AuthorityError> {
        let (version, rest) = sealed.split_first().ok_or(AuthorityError::Sealed)?;
        if *version != SEAL_VERSION {
            return Err(AuthorityError::Sealed);
        }
        let (nonce, body) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(AuthorityError::Sealed)?;
        let mut body = body.to_vec();
        let plain = secret
            .key()?
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from([SEAL_VERSION]), &mut body)
            .map_err(|_| AuthorityError::Sealed)?;
        let (certificate, rest) = split_piece(plain).ok_or(AuthorityError::Sealed)?;
        let (key, _) = split_piece(rest).ok_or(AuthorityError::Sealed)?;
        let key = KeyPair::try_from(key).map_err(|_| AuthorityError::Sealed)?;
        let public = Authority::from_der(certificate.to_vec()).map_err(|_| AuthorityError::Sealed)?;
        Ok(Self { issuer: Issuer::new(authority_params(cluster_id), key), public })
    }

    /// What peers know of it.
    pub fn public(&self) -> &Authority {
        &self.public
    }

    /// A fresh identity for this node.
    pub fn node_identity(&self, name: &str) -> Result<Identity, AuthorityError> {
        let fault = |why: String| AuthorityError::Sign { name: name.to_owned(), why };
        let pending = PendingIdentity::generate().map_err(|error| fault(error.to_string()))?;
        let leaf = self.sign(pending.request_der(), PeerKind::Node, name)?;
        pending.complete(vec![leaf]).map_err(|error| fault(error.to_string()))
    }

    /// Signs a request. The name is ours to give: whatever the request asks for is ignored.
    pub fn sign(&self, request_der: &[u8], kind: PeerKind, name: &str) -> Result<Vec<u8>, AuthorityError> {
        let fault = |why: String| AuthorityError::Sign { name: name.to_owned(), why };
        let peer = PeerName::new(kind, name).map_err(|error| fault(error.to_string()))?;
        let request = CertificateSigningRequestParams::from_der(&request_der.into())
            .map_err(|error| fault(format!("the request is malformed or not signed by its own key ({error})")))?;
        let mut params = CertificateParams::default();
        for dns in peer.certificate_names() {
            let dns = dns.try_into().map_err(|error: rcgen::Error| fault(error.to_string()))?;
            params.subject_alt_names.push(SanType::DnsName(dns));
        }
        params.distinguished_name = named(peer.name());
        params.extended_key_usages = match kind {
            PeerKind::Agent => vec![ExtendedKeyUsagePurpose::ClientAuth],
            PeerKind::Node => vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth],
        };
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, PEER_LIFE);
        let signed = CertificateSigningRequestParams { params, public_key: request.public_key }
            .signed_by(&self.issuer)
            .map_err(|error| fault(error.to_string()))?;
        Ok(signed.der().to_vec())
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// The same parameters every time: a reopened authority must sign under the name in its certificate.
fn authority_params(cluster_id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&format!("Muster authority {cluster_id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, AUTHORITY_LIFE);
    params
}

/// Backdated by a day, so that a machine whose clock is behind is not locked out.
fn set_validity(params: &mut CertificateParams, life: Duration) {
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + life).into();
}

fn split_piece(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_authority_opens_with_its_secret_only_and_signs_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let secret = ClusterSecret::load_or_create(&dir.path().join("a"), true).unwrap();
        let other = ClusterSecret::load_or_create(&dir.path().join("b"), true).unwrap();
        let (made, plain) = SigningAuthority::create("c1").unwrap();
        let mut sealed = SigningAuthority::seal(&secret, plain).unwrap();
        assert!(matches!(SigningAuthority::open(&other, &sealed, "c1"), Err(AuthorityError::Sealed)));
        let opened = SigningAuthority::open(&secret, &sealed, "c1").unwrap();
        assert_eq!(opened.public().pin(), made.public().pin());
        let identity = opened.node_identity("node-1").unwrap();
        assert!(identity.peer().name.is(PeerKind::Node, "node-1"));
        let last = sealed.len() - 1;
        sealed[last] ^= 1;
        assert!(matches!(SigningAuthority::open(&secret, &sealed, "c1"), Err(AuthorityError::Sealed)));
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster-secret");
        ClusterSecret::load_or_create(&path, true).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = ClusterSecret::load_or_create(&path, true).err().unwrap().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }
}
