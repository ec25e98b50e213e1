//! A peer's own key and certificate: made, signed by the cluster, kept in one file that only its owner may read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::certificate::{CertificateError, PeerCertificate};
use super::provider;
use crate::limits::{CHAIN_CERTIFICATES_MAX, IDENTITY_FILE_BYTES_MAX};

/// A private key and the certificates that vouch for it, leaf first.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    peer: PeerCertificate,
}

/// A key that waits for its certificate, with the request to send to the cluster.
#[derive(Debug)]
pub struct PendingIdentity {
    key: KeyPair,
    request: Vec<u8>,
}

/// An identity that cannot be made, read or kept.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error("cannot {action} identity file {}; check that its directory exists and belongs to this user", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Others may read the private key.
    #[error("identity file {} has mode {mode:04o}, so others can read its private key; run `chmod 600` on it", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file does not hold one key and its certificates.
    #[error("identity file {} is damaged: {what}; remove it and join again", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A key could not be made.
    #[error("cannot make a key and a certificate request")]
    Key(#[source] rcgen::Error),
    /// The certificates do not fit the key, or are not a peer's.
    #[error("certificate does not fit: {what}; join again")]
    Misfit {
        /// What is wrong.
        what: String,
    },
}

impl PendingIdentity {
    /// Makes a key (ECDSA P-256) and a request for a certificate. The request carries no name: the cluster gives it.
    pub fn generate() -> Result<Self, IdentityError> {
        let key = KeyPair::generate().map_err(IdentityError::Key)?;
        let params = CertificateParams::default();
        let request = params.serialize_request(&key).map_err(IdentityError::Key)?;
        Ok(Self { request: request.der().to_vec(), key })
    }

    /// Returns the request (PKCS #10, DER) to send to the cluster.
    pub fn request_der(&self) -> &[u8] {
        &self.request
    }

    /// Joins the key with the certificates that the cluster answered, leaf first.
    pub fn complete(self, chain: Vec<Vec<u8>>) -> Result<Identity, IdentityError> {
        Identity::from_der(chain, self.key.serialize_der())
    }
}

impl Identity {
    /// Joins certificates (DER, leaf first) and their private key (PKCS #8, DER); checks that they belong together.
    pub fn from_der(chain: Vec<Vec<u8>>, key_pkcs8: Vec<u8>) -> Result<Self, IdentityError> {
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        Self::new(chain, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key_pkcs8)))
    }

    fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, IdentityError> {
        let misfit = |what: String| IdentityError::Misfit { what };
        if chain.len() > CHAIN_CERTIFICATES_MAX {
            return Err(misfit(format!("{} certificates, at most {CHAIN_CERTIFICATES_MAX}", chain.len())));
        }
        let leaf = chain.first().ok_or_else(|| misfit("there is no certificate".to_owned()))?;
        let peer = PeerCertificate::read(leaf).map_err(|error: CertificateError| misfit(error.to_string()))?;
        let identity = Self { key, peer, chain };
        identity.certified_key(&[]).map_err(|error| misfit(error.to_string()))?;
        Ok(identity)
    }

    /// Reads an identity from the PEM file that [`Identity::save`] wrote.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let failed = |source| IdentityError::File { action: "read", path: path.to_owned(), source };
        let damaged = |what: String| IdentityError::Damaged { path: path.to_owned(), what };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Exposed { path: path.to_owned(), mode });
        }
        let mut pem = Vec::new();
        file.take(IDENTITY_FILE_BYTES_MAX + 1).read_to_end(&mut pem).map_err(failed)?;
        if u64::try_from(pem.len()).unwrap_or(u64::MAX) > IDENTITY_FILE_BYTES_MAX {
            return Err(damaged(format!("larger than {IDENTITY_FILE_BYTES_MAX} bytes")));
        }
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| damaged(format!("private key: {error}")))?;
        let chain = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| damaged(format!("certificate: {error}")))?;
        Self::new(chain, key).map_err(|error| damaged(error.to_string()))
    }

    /// Writes key and certificates to one PEM file of mode 0600. After a crash the file is the old or the new one.
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        let failed = |source| IdentityError::File { action: "write", path: path.to_owned(), source };
        let mut pem = pem_block("PRIVATE KEY", self.key.secret_der());
        self.chain.iter().for_each(|certificate| pem.push_str(&pem_block("CERTIFICATE", certificate)));
        write_durably(path, pem.as_bytes(), 0o600).map_err(failed)
    }

    /// Returns what the certificate says about us.
    pub fn peer(&self) -> &PeerCertificate {
        &self.peer
    }

    /// Key and certificates for rustls, with `extra` certificates at the end of the chain.
    pub(super) fn certified_key(&self, extra: &[CertificateDer<'static>]) -> Result<CertifiedKey, rustls::Error> {
        let chain = self.chain.iter().chain(extra).cloned().collect();
        CertifiedKey::from_der(chain, self.key.clone_key(), &provider())
    }

    pub(super) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    pub(super) fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }
}

/// Writes a file so that a crash leaves the old or the new content: temporary file, fsync, rename, fsync of the directory.
fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    // A left-over of a crash may have another mode; `mode` only counts for a file that is made now.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

/// Writes one PEM block (RFC 7468), 64 characters a line.
pub(super) fn pem_block(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at_checked(64).unwrap_or((rest, ""));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}
