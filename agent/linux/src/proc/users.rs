//! Users and groups from /etc/passwd and /etc/group. A static C library has no name service switch, so these files are all
//! there is; users of LDAP and the like are named by number (`1000` or `1000:1000`).

use std::path::{Path, PathBuf};

use crate::limits::USER_FILE_BYTES_MAX;

/// A user that a task runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Name, or the number when it has none.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// All groups, the primary one included.
    pub groups: Vec<u32>,
    /// Home directory, empty when unknown.
    pub home: String,
}

/// Why a user could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// A file could not be read.
    #[error("cannot read {} to look up user {user}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// For which user.
        user: String,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// There is no such user on this machine.
    #[error("user {user} is not in {}; create it on this machine or name a numeric user id", path.display())]
    Unknown {
        /// Which user.
        user: String,
        /// Where was looked.
        path: PathBuf,
    },
}

/// Where users are looked up; the files are read at each look-up, since they change while the agent runs.
#[derive(Clone, Debug)]
pub struct Users {
    passwd: PathBuf,
    group: PathBuf,
}

impl Default for Users {
    fn default() -> Self {
        Self::at("/etc")
    }
}

impl Users {
    /// Looks in `passwd` and `group` below `dir`.
    pub fn at(dir: impl AsRef<Path>) -> Self {
        Self { passwd: dir.as_ref().join("passwd"), group: dir.as_ref().join("group") }
    }

    /// Finds a user by name, by `uid` or by `uid:gid`.
    ///
    /// Errors: [`UserError::Unknown`] for a name that is not there; a number always resolves.
    pub fn find(&self, user: &str) -> Result<User, UserError> {
        let (number_part, gid_part) = user.split_once(':').unwrap_or((user, ""));
        let by_number: Option<u32> = number_part.parse().ok();
        let passwd = self.read(&self.passwd, user)?;
        let mut found = passwd.split(|byte| *byte == b'\n').filter_map(parse_passwd).find(|entry| match by_number {
            Some(uid) => entry.uid == uid,
            None => entry.name == user,
        });
        if found.is_none() {
            found = by_number.map(|uid| User {
                name: uid.to_string(),
                uid,
                gid: gid_part.parse().unwrap_or(uid),
                groups: Vec::new(),
                home: String::new(),
            });
        }
        let Some(mut entry) = found else {
            return Err(UserError::Unknown { user: user.to_owned(), path: self.passwd.clone() });
        };
        if let (Some(_), Ok(gid)) = (by_number, gid_part.parse()) {
            entry.gid = gid;
        }
        let group = self.read(&self.group, user).unwrap_or_default();
        entry.groups = vec![entry.gid];
        for gid in group.split(|byte| *byte == b'\n').filter_map(|line| group_of(line, &entry.name)) {
            if !entry.groups.contains(&gid) {
                entry.groups.push(gid);
            }
        }
        Ok(entry)
    }

    fn read(&self, path: &Path, user: &str) -> Result<Vec<u8>, UserError> {
        let mut bytes = std::fs::read(path).map_err(|source| UserError::Read {
            path: path.to_path_buf(),
            user: user.to_owned(),
            source,
        })?;
        bytes.truncate(USER_FILE_BYTES_MAX);
        Ok(bytes)
    }
}

// root:x:0:0:root:/root:/bin/bash
// nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
fn parse_passwd(line: &[u8]) -> Option<User> {
    let line = std::str::from_utf8(line).ok()?;
    let mut parts = line.split(':');
    let name = parts.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
    let uid = parts.nth(1)?.parse().ok()?;
    let gid = parts.next()?.parse().ok()?;
    let home = parts.nth(1).unwrap_or_default();
    Some(User { name: name.to_owned(), uid, gid, groups: Vec::new(), home: home.to_owned() })
}

// adm:x:4:syslog,ubuntu
// users:x:100:
fn group_of(line: &[u8], user: &str) -> Option<u32> {
    let line = std::str::from_utf8(line).ok()?;
    let mut parts = line.split(':');
    let gid = parts.nth(2)?.parse().ok()?;
    parts.next()?.split(',').any(|member| member == user).then_some(gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> (tempfile::TempDir, Users) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("passwd"),
            "root:x:0:0:root:/root:/bin/bash\n# note\n:x:9:9::/:\nbad:x:y:0::/:\nada:x:1000:1001:Ada,,,:/home/ada:/bin/sh",
        )
        .unwrap();
        std::fs::write(dir.path().join("group"), "adm:x:4:bob,ada\nada:x:1001:\nadaman:x:7:adam\ndup:x:4:ada\n")
            .unwrap();
        let users = Users::at(dir.path());
        (dir, users)
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let (_dir, users) = users();
        for (name, uid, gid, groups, home) in [
            ("root", 0, 0, vec![0], "/root"),
            ("ada", 1000, 1001, vec![1001, 4], "/home/ada"),
            ("1000", 1000, 1001, vec![1001, 4], "/home/ada"),
            ("1000:4", 1000, 4, vec![4], "/home/ada"),
            ("4242", 4242, 4242, vec![4242], ""),
            ("4242:7", 4242, 7, vec![7], ""),
        ] {
            let user = users.find(name).unwrap();
            assert_eq!((user.uid, user.gid, user.groups, user.home.as_str()), (uid, gid, groups, home), "case: {name}");
        }
    }

    #[test]
    fn unknown_users_are_refused_by_name() {
        let (dir, users) = users();
        for name in ["eve", "", "bad", "root:0", "-1", "# note"] {
            let error = users.find(name).unwrap_err().to_string();
            assert!(error.contains(name), "case: {name}: {error}");
        }
        std::fs::remove_file(dir.path().join("passwd")).unwrap();
        assert!(matches!(users.find("root"), Err(UserError::Read { .. })));
    }
}
