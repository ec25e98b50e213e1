//! Identities on disk: made by a request, kept by owner only, and clear about damage.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use muster_transport::tls::{Identity, IdentityError, PeerKind, PeerName, PendingIdentity};

use crate::cluster::Cluster;

#[test]
fn request_becomes_an_identity_that_survives_the_disk() {
    let cluster = Cluster::new();
    let pending = PendingIdentity::generate().unwrap();
    let leaf = cluster.sign_request(pending.request_der(), &PeerName::agent("9f-S1").unwrap());
    let identity = pending.complete(vec![leaf]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("identity.pem");
    identity.save(&path).unwrap();
    identity.save(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let loaded = Identity::load(&path).unwrap();
    assert_eq!(loaded.peer(), identity.peer());
    assert!(loaded.peer().name.is(PeerKind::Agent, "9f-S1"));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn certificate_for_another_key_is_refused() {
    let cluster = Cluster::new();
    let name = PeerName::agent("9f-S1").unwrap();
    let (mine, other) = (PendingIdentity::generate().unwrap(), PendingIdentity::generate().unwrap());
    let leaf = cluster.sign_request(other.request_der(), &name);
    assert!(matches!(mine.complete(vec![leaf]), Err(IdentityError::Misfit { .. })));
    assert!(matches!(other.complete(Vec::new()), Err(IdentityError::Misfit { .. })));
}

#[test]
fn bad_files_are_named_in_the_error() {
    let identity = Cluster::new().identity(&PeerName::agent("9f-S1").unwrap());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("identity.pem");
    identity.save(&path).unwrap();
    let good = fs::read(&path).unwrap();
    let write = |bytes: &[u8], mode| {
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    write(&good, 0o640);
    assert!(matches!(Identity::load(&path), Err(IdentityError::Exposed { mode: 0o640, .. })));
    let mut flipped = good.clone();
    let middle = good.len() / 2;
    flipped[middle] ^= 1;
    for (name, bytes) in [
        ("empty", Vec::new()),
        ("cut", good[..good.len() - 40].to_vec()),
        ("no key", good[good.len() / 4..].to_vec()),
        ("huge", vec![b'a'; 70_000]),
        ("bit flipped", flipped),
    ] {
        write(&bytes, 0o600);
        // A flipped bit inside the signature still loads: the peer finds it. All else must not.
        match Identity::load(&path) {
            Err(error) => assert!(error.to_string().contains("identity.pem"), "case: {name}: {error}"),
            Ok(_) => assert_eq!(name, "bit flipped"),
        }
    }
    let missing = directory.path().join("none.pem");
    assert!(matches!(Identity::load(&missing), Err(IdentityError::File { action: "read", .. })));
    let error = identity.save(&directory.path().join("no/such/dir.pem")).unwrap_err();
    assert!(matches!(error, IdentityError::File { action: "write", .. }));
}
