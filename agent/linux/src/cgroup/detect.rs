//! Which hierarchies are mounted where, with which controllers, and which of them the operator allows.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// Which cgroup interface the machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// No hierarchy is mounted.
    None,
    /// Only v1 hierarchies.
    V1,
    /// Only the unified hierarchy.
    V2,
    /// v1 hierarchies and the unified one beside them.
    Hybrid,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
        })
    }
}

/// One mounted v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V1Mount {
    /// Its controllers, in the kernel's order; several when they are mounted together.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The agent's own group in it, as /proc/self/cgroup says.
    pub own_group: String,
}

/// The mounted unified hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V2Mount {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The agent's own group in it.
    pub own_group: String,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Detected {
    /// v1 hierarchies with at least one controller (named ones such as systemd's are not listed).
    pub v1: Vec<V1Mount>,
    /// The unified hierarchy.
    pub v2: Option<V2Mount>,
}

impl Detected {
    /// Reads /proc/self/mountinfo and /proc/self/cgroup.
    ///
    /// Errors: when /proc is not mounted.
    pub fn read() -> std::io::Result<Self> {
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")?;
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Ok(Self::parse(&mountinfo, &own))
    }

    /// The same from the texts of both files. A controller that is mounted twice counts where it is mounted first.
    pub fn parse(mountinfo: &str, own: &str) -> Self {
        let mut detected = Self::default();
        let mut seen = BTreeSet::new();
        for mount in mountinfo.lines().filter_map(parse_mount) {
            match mount.kind {
                Kind::V2 if detected.v2.is_none() => {
                    detected.v2 = Some(V2Mount { mount: mount.path, own_group: own_group(own, "") });
                }
                Kind::V2 => {}
                Kind::V1 => {
                    let named: Vec<String> =
                        mount.options.split(',').filter(|option| is_controller(option)).map(str::to_owned).collect();
                    let Some(first) = named.first() else { continue };
                    if seen.insert(first.clone()) {
                        let own_group = own_group(own, first);
                        detected.v1.push(V1Mount { controllers: named, mount: mount.path, own_group });
                    }
                }
            }
        }
        detected
    }

    /// Which interface that is.
    pub fn version(&self) -> Version {
        match (self.v1.is_empty(), self.v2.is_some()) {
            (true, false) => Version::None,
            (false, false) => Version::V1,
            (true, true) => Version::V2,
            (false, true) => Version::Hybrid,
        }
    }
}

/// Every v1 controller the kernel ever had; other mount options (`rw`, `xattr`, `clone_children`, `name=…`) are none.
const V1_CONTROLLERS: [&str; 14] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "debug",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "misc",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
];

fn is_controller(option: &str) -> bool {
    V1_CONTROLLERS.contains(&option) || option == "rdma"
}

enum Kind {
    V1,
    V2,
}

struct Mount {
    kind: Kind,
    path: PathBuf,
    options: String,
}

// 32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
// 41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw
// Any number of optional fields stands before the lone "-" (proc(5)).
fn parse_mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut right = right.split(' ');
    let kind = match right.next()? {
        "cgroup" => Kind::V1,
        "cgroup2" => Kind::V2,
        _ => return None,
    };
    let options = right.nth(1).unwrap_or_default().to_owned();
    let path = PathBuf::from(unescape(left.split(' ').nth(4)?));
    Some(Mount { kind, path, options })
}

/// mountinfo writes blank, tab, newline and backslash as `\040` and so on.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                plain.push('\\');
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    plain
}

// 4:memory:/process_api/12a466f99e47fb52571cd342881c0281
// 0::/user.slice/user-1000.slice/session-2.scope
fn own_group(own: &str, controller: &str) -> String {
    let group = own.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, group) = rest.split_once(':')?;
        let matches = if controller.is_empty() {
            controllers.is_empty()
        } else {
            controllers.split(',').any(|name| name == controller)
        };
        matches.then(|| group.to_owned())
    });
    group.unwrap_or_else(|| "/".to_owned())
}

/// Which controllers the operator allows.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Controllers {
    allowed: Option<BTreeSet<String>>,
}

/// Why a controller list was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown cgroup controller {name:?}; known are {}, io and rdma", V1_CONTROLLERS.join(", "))]
pub struct ControllersError {
    /// The name nobody knows.
    pub name: String,
}

impl Controllers {
    /// Everything that is found.
    pub fn all() -> Self {
        Self { allowed: None }
    }

    /// Only those named in a comma-separated list; `none` or an empty list allows none. `io` and `blkio` are the same.
    ///
    /// Errors: [`ControllersError`] for a name that is no controller, since a typing error would silently lift a limit.
    pub fn parse(list: &str) -> Result<Self, ControllersError> {
        let mut allowed = BTreeSet::new();
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty() && *name != "none") {
            if name != "io" && !is_controller(name) {
                return Err(ControllersError { name: name.to_owned() });
            }
            allowed.insert(canonical(name).to_owned());
        }
        Ok(Self { allowed: Some(allowed) })
    }

    /// Whether `name` may be used.
    pub fn allows(&self, name: &str) -> bool {
        self.allowed.as_ref().is_none_or(|allowed| allowed.contains(canonical(name)))
    }
}

impl fmt::Display for Controllers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.allowed {
            None => f.write_str("all"),
            Some(allowed) if allowed.is_empty() => f.write_str("none"),
            Some(allowed) => f.write_str(&allowed.iter().map(String::as_str).collect::<Vec<_>>().join(",")),
        }
    }
}

fn canonical(name: &str) -> &str {
    if name == "io" { "blkio" } else { name }
}

/// Whether `parent` is a usable path below a hierarchy: relative or absolute, no `.` and `..`.
pub(super) fn parent_components(parent: &str) -> Option<Vec<&str>> {
    let components: Vec<&str> = parent.split('/').filter(|part| !part.is_empty()).collect();
    let sound = components.iter().all(|part| *part != "." && *part != ".." && !part.contains('\0'));
    (sound && !components.is_empty() && Path::new(parent).as_os_str().len() < 1024).then_some(components)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = include_str!("../../testdata/mountinfo-hybrid.txt");
    const HYBRID_OWN: &str = include_str!("../../testdata/self-cgroup-hybrid.txt");

    #[test]
    fn a_hybrid_machine_is_recognised() {
        let detected = Detected::parse(HYBRID, HYBRID_OWN);
        assert_eq!(detected.version(), Version::Hybrid);
        let names: Vec<&str> =
            detected.v1.iter().flat_map(|mount| mount.controllers.iter().map(String::as_str)).collect();
        assert_eq!(names, ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"]);
        assert_eq!(detected.v1[3].own_group, "/process_api/12a466f99e47fb52571cd342881c0281");
        assert_eq!(detected.v2.unwrap().mount, Path::new("/sys/fs/cgroup/unified"));
    }

    #[test]
    fn other_machines_are_recognised() {
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 master:2 - cgroup2 cgroup2 rw,nsdelegate";
        let detected = Detected::parse(v2, "0::/system.slice/muster-agent.service\n");
        assert_eq!(detected.version(), Version::V2);
        assert_eq!(detected.v2.unwrap().own_group, "/system.slice/muster-agent.service");
        let v1 = "33 25 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                  34 25 0:28 / /other rw - cgroup cgroup rw,cpu,cpuacct\n\
                  35 25 0:29 / /sys/fs/cgroup/systemd rw - cgroup systemd rw,xattr,name=systemd";
        let detected = Detected::parse(v1, "3:cpu,cpuacct:/a\n");
        assert_eq!(detected.version(), Version::V1);
        assert_eq!(detected.v1.len(), 1);
        assert_eq!((detected.v1[0].controllers.len(), detected.v1[0].own_group.as_str()), (2, "/a"));
        assert_eq!(Detected::parse("garbage\n1 2 3 - \n - cgroup", "x").version(), Version::None);
    }

    #[test]
    fn escaped_mount_points_are_read() {
        assert_eq!(unescape(r"/a\040b\134c\"), r"/a b\c\");
    }

    #[test]
    fn the_allow_list_is_strict() {
        let list = Controllers::parse("cpu, pids,io").unwrap();
        assert!(list.allows("cpu"));
        assert!(list.allows("blkio"));
        assert!(!list.allows("memory"));
        assert!(Controllers::all().allows("memory"));
        assert!(!Controllers::parse("none").unwrap().allows("cpu"));
        assert_eq!(Controllers::parse("cpu,memroy").unwrap_err().name, "memroy");
    }

    #[test]
    fn parents_stay_inside_the_hierarchy() {
        for (parent, expected) in
            [("muster", true), ("/a/b", true), ("", false), ("/", false), ("a/../b", false), (".", false)]
        {
            assert_eq!(parent_components(parent).is_some(), expected, "parent: {parent:?}");
        }
    }
}
