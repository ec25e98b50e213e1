//! Control groups: finds v1, v2 and hybrid hierarchies, and makes, limits, reads, kills and removes one group per container.
//!
//! Only groups below the configured parent are ever made or changed, and only controllers that are allowed are used. What
//! cannot be used is returned as [`crate::Missing`] with its reason; it is never silently absent.
//! Start reading at [`Cgroups::open`]. Sources: cgroup-v2.rst and cgroup-v1/*.rst of the kernel.

mod convert;
mod detect;
mod group;
mod kill;
mod parent;
mod usage;

pub use convert::{shares_of_cpus, weight_of_shares};
pub use detect::{Controllers, ControllersError, Detected, V1Mount, V2Mount, Version};
pub use group::{CgroupError, Group, Limits, V1Group, V2Group};
pub(crate) use kill::signal_all;
pub use parent::Cgroups;
pub use usage::{ContainerUsage, Oom, UsageReader};
