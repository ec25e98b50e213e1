//! The configured parent group in each usable hierarchy: made, checked and handed its controllers.

use std::path::{Path, PathBuf};

use super::detect::{Controllers, Detected, V1Mount, V2Mount, parent_components};
use super::group::{CgroupError, Group, Limits, V1Group, V2Group, make_group_dir, write_value};
use crate::missing::Missing;
use crate::runtime_dir::ContainerId;

/// What each controller is for, in the operator's words.
const V1_USED: [(&str, &str); 8] = [
    ("cpu", "cpu shares and quota"),
    ("cpuacct", "cpu usage of containers"),
    ("cpuset", "cpu pinning"),
    ("memory", "memory limits and out-of-memory reports"),
    ("pids", "limits on the number of processes"),
    ("freezer", "race-free killing of containers"),
    ("devices", "device access rules"),
    ("blkio", "disk io usage of containers"),
];
const V2_USED: [(&str, &str); 5] = [
    ("cpu", "cpu weight and quota"),
    ("cpuset", "cpu pinning"),
    ("memory", "memory limits and out-of-memory reports"),
    ("pids", "limits on the number of processes"),
    ("io", "disk io usage of containers"),
];

/// The parent groups below which every container's group is made.
#[derive(Clone, Debug, Default)]
pub struct Cgroups {
    v1: Vec<V1Group>,
    v2: Option<V2Group>,
    missing: Vec<Missing>,
    /// Groups that [`Self::open`] made because they were not there, each after those above it.
    made: Vec<PathBuf>,
}

impl Cgroups {
    /// Makes the group `parent` in every allowed hierarchy. `own_pids` are the agent and its launcher: when the parent is the
    /// group they were started in (a delegated systemd unit), they move to a child `agent`, as v2 demands; nothing else moves.
    ///
    /// Errors: only for an unusable `parent`. What the machine or the user's rights forbid is in [`Self::missing`].
    pub fn open(
        detected: &Detected,
        allowed: &Controllers,
        parent: &str,
        own_pids: &[i32],
    ) -> Result<Self, CgroupError> {
        let Some(components) = parent_components(parent) else {
            return Err(CgroupError::BadParent { parent: parent.to_owned() });
        };
        let mut cgroups = Self::default();
        let mut covered: Vec<String> = Vec::new();
        for mount in &detected.v1 {
            covered.extend(mount.controllers.iter().cloned());
            cgroups.open_v1(mount, allowed, &components);
        }
        if let Some(mount) = &detected.v2 {
            cgroups.open_v2(mount, allowed, &components, &covered, own_pids);
        }
        if detected.v2.is_none() || !detected.v1.is_empty() {
            for (name, use_of) in V1_USED {
                let in_v2 = cgroups.v2.as_ref().is_some_and(|group| group.has(v2_name(name)));
                if !covered.iter().any(|known| known == name) && !in_v2 && allowed.allows(name) {
                    cgroups.missing.push(Missing::new(use_of, format!("no cgroup hierarchy with {name} is mounted")));
                }
            }
        }
        Ok(cgroups)
    }

    /// No cgroups at all; containers are followed by session and descent only.
    pub fn none(why: &'static str) -> Self {
        Self { missing: vec![Missing::new("all resource limits", why)], ..Self::default() }
    }

    /// Removes the parent groups that [`Self::open`] made, where nothing is in them: at an orderly end of an agent without
    /// containers. The kernel refuses to remove a group with processes or with groups inside (cgroup-v2.rst, "Organizing
    /// Processes and Threads"), so a container that runs on keeps its group and those above it. Groups that were there before
    /// are never removed: whoever made them may have given them limits, or to another user.
    pub fn remove_empty_parents(&self) {
        for dir in self.made.iter().rev() {
            let _in_use_or_gone = std::fs::remove_dir(dir);
        }
    }

    /// What is left out, and why.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Whether any hierarchy has `controller` (v2 names count: `io` for `blkio`).
    pub fn has(&self, controller: &str) -> bool {
        self.v1.iter().any(|group| group.has(controller)) || self.v2.as_ref().is_some_and(|group| group.has(controller))
    }

    /// Makes the groups of one container and sets its limits. Nothing is left behind on an error.
    ///
    /// Errors: [`CgroupError`] naming the file and value that the kernel refused.
    pub fn create(&self, id: &ContainerId, limits: &Limits) -> Result<Group, CgroupError> {
        let group = self.group_of(id);
        let made = self.make(&group).and_then(|()| group.limit(limits));
        match made {
            Ok(()) => Ok(group),
            Err(error) => {
                let _best_effort = group.remove();
                Err(error)
            }
        }
    }

    /// The groups that a container has, or would have, by its id.
    pub fn group_of(&self, id: &ContainerId) -> Group {
        let below = |dir: &Path| dir.join(id.as_str());
        Group {
            v1: self
                .v1
                .iter()
                .map(|parent| V1Group { controllers: parent.controllers.clone(), dir: below(&parent.dir) })
                .collect(),
            v2: self
                .v2
                .as_ref()
                .map(|parent| V2Group { controllers: parent.controllers.clone(), dir: below(&parent.dir) }),
        }
    }

    /// Ids of all groups below the parents that may be containers', for recovery. The agent's own group is not listed.
    pub fn list(&self) -> Vec<ContainerId> {
        let parents = self.v1.iter().map(|group| &group.dir).chain(self.v2.iter().map(|group| &group.dir));
        let mut ids: Vec<ContainerId> = parents
            .filter_map(|dir| std::fs::read_dir(dir).ok())
            .flatten()
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| ContainerId::new(entry.file_name().to_str()?).ok())
            .filter(|id| id.as_str() != AGENT_GROUP)
            .collect();
        ids.sort();
        ids.dedup();
        ids
    }

    fn make(&self, group: &Group) -> Result<(), CgroupError> {
        for v1 in &group.v1 {
            make_group_dir(&v1.dir)?;
            if v1.has("cpuset") {
                inherit_cpuset(&v1.dir)?;
            }
        }
        if let Some(v2) = &group.v2 {
            make_group_dir(&v2.dir)?;
        }
        Ok(())
    }

    fn open_v1(&mut self, mount: &V1Mount, allowed: &Controllers, components: &[&str]) {
        let used: Vec<(&str, &str)> =
            V1_USED.into_iter().filter(|(name, _)| mount.controllers.iter().any(|known| known == name)).collect();
        if used.is_empty() {
            return;
        }
        let refused: Vec<&str> =
            mount.controllers.iter().map(String::as_str).filter(|name| !allowed.allows(name)).collect();
        if !refused.is_empty() {
            for (_, use_of) in used {
                let why = format!("the cgroup-controllers setting does not allow {}", refused.join(","));
                self.missing.push(Missing::new(use_of, why));
            }
            return;
        }
        match make_v1_parent(mount, components, &mut self.made) {
            Ok(dir) => self.v1.push(V1Group { controllers: mount.controllers.clone(), dir }),
            Err(error) => {
                for (_, use_of) in used {
                    self.missing.push(Missing::new(use_of, error.brief()));
                }
            }
        }
    }

    fn open_v2(
        &mut self,
        mount: &V2Mount,
        allowed: &Controllers,
        components: &[&str],
        in_v1: &[String],
        own_pids: &[i32],
    ) {
        let mut wanted = Vec::new();
        for (name, use_of) in V2_USED {
            // On a hybrid machine a controller that is bound to v1 cannot appear here.
            if in_v1.iter().any(|known| v2_name(known) == name) {
                continue;
            }
            if allowed.allows(name) {
                wanted.push((name, use_of));
            } else {
                let why = format!("the cgroup-controllers setting does not allow {name}");
                self.missing.push(Missing::new(use_of, why));
            }
        }
        let dir = match make_v2_chain(&mount.mount, components, &wanted, &mut self.made) {
            Ok(dir) => dir,
            Err(error) => {
                self.missing.push(Missing::new("killing containers through cgroup v2", error.brief()));
                for (_, use_of) in wanted {
                    self.missing.push(Missing::new(use_of, error.brief()));
                }
                return;
            }
        };
        let mut controllers = Vec::new();
        if !wanted.is_empty()
            && let Err(error) = step_aside(&dir, own_pids)
        {
            self.missing.push(Missing::new("a group of the agent's own", error.brief()));
        }
        for (name, use_of) in wanted {
            match hand_down(&dir, name) {
                Ok(()) => controllers.push(name.to_owned()),
                Err(why) => self.missing.push(Missing::new(use_of, why)),
            }
        }
        self.v2 = Some(V2Group { controllers, dir });
    }
}

/// Where the agent and its launcher sit when the parent is the group that they were started in.
const AGENT_GROUP: &str = "agent";

fn v2_name(name: &str) -> &str {
    if name == "blkio" { "io" } else { name }
}

fn make_v1_parent(mount: &V1Mount, components: &[&str], made: &mut Vec<PathBuf>) -> Result<PathBuf, CgroupError> {
    let mut dir = mount.mount.clone();
    for component in components {
        dir.push(component);
        let is_new = make_parent(&dir, made)?;
        if is_new && mount.controllers.iter().any(|name| name == "cpuset") {
            inherit_cpuset(&dir)?;
        }
    }
    Ok(dir)
}

/// Makes one of the groups above the containers' and notes it if it is new.
fn make_parent(dir: &Path, made: &mut Vec<PathBuf>) -> Result<bool, CgroupError> {
    let is_new = make_group_dir(dir)?;
    if is_new {
        made.push(dir.to_path_buf());
    }
    Ok(is_new)
}

/// A new v1 cpuset group is empty and takes no process until it has cpus and memory nodes.
fn inherit_cpuset(dir: &Path) -> Result<(), CgroupError> {
    let Some(parent) = dir.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let have = std::fs::read_to_string(dir.join(file)).unwrap_or_default();
        let above = std::fs::read_to_string(parent.join(file)).unwrap_or_default();
        if have.trim().is_empty() && !above.trim().is_empty() {
            write_value(&dir.join(file), above.trim())?;
        }
    }
    Ok(())
}

/// Makes the missing groups of the chain. A group that this call made gets the controllers its parent has; one that was
/// there before is left as it is, whoever made it.
fn make_v2_chain(
    mount: &Path,
    components: &[&str],
    wanted: &[(&str, &str)],
    made: &mut Vec<PathBuf>,
) -> Result<PathBuf, CgroupError> {
    let mut dir = mount.to_path_buf();
    let last = components.len().saturating_sub(1);
    for (index, component) in components.iter().enumerate() {
        dir.push(component);
        if make_parent(&dir, made)? && index < last {
            for (name, _) in wanted {
                // What cannot be handed down here is noticed, with its reason, at the parent itself.
                let _noticed_later = hand_down(&dir, name);
            }
        }
    }
    Ok(dir)
}

/// Puts `controller` into the group's cgroup.subtree_control so that containers' groups have it.
fn hand_down(dir: &Path, controller: &str) -> Result<(), String> {
    let list = |file: &str| std::fs::read_to_string(dir.join(file)).unwrap_or_default();
    let has = |text: &str| text.split_whitespace().any(|name| name == controller);
    if has(&list("cgroup.subtree_control")) {
        return Ok(());
    }
    if !has(&list("cgroup.controllers")) {
        let above = dir.parent().unwrap_or(dir).join("cgroup.subtree_control");
        let above = above.display();
        return Err(format!(
            "{controller} is not handed down to {}; to allow it: echo +{controller} > {above}",
            dir.display()
        ));
    }
    write_value(&dir.join("cgroup.subtree_control"), &format!("+{controller}")).map_err(|error| error.brief())
}

/// v2 allows no processes in a group whose children have controllers; those of ours go one level down.
fn step_aside(parent: &Path, own_pids: &[i32]) -> Result<(), CgroupError> {
    let inside = std::fs::read_to_string(parent.join("cgroup.procs")).unwrap_or_default();
    for pid in inside.lines().filter_map(|line| line.trim().parse::<i32>().ok()) {
        if own_pids.contains(&pid) {
            let aside = parent.join(AGENT_GROUP);
            make_group_dir(&aside)?;
            write_value(&aside.join("cgroup.procs"), &pid.to_string())?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "parent/tests.rs"]
mod tests;
