//! Generated messages of the Mesos v1 API; see `cargo xtask gen`.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::disallowed_types, reason = "generated")]

include!("mesos.v1.rs");
include!("mesos.v1.json.rs");

pub mod agent {
    include!("mesos.v1.agent.rs");
    include!("mesos.v1.agent.json.rs");
}

pub mod allocator {
    include!("mesos.v1.allocator.rs");
    include!("mesos.v1.allocator.json.rs");
}

pub mod executor {
    include!("mesos.v1.executor.rs");
    include!("mesos.v1.executor.json.rs");
}

pub mod maintenance {
    include!("mesos.v1.maintenance.rs");
    include!("mesos.v1.maintenance.json.rs");
}

pub mod master {
    include!("mesos.v1.master.rs");
    include!("mesos.v1.master.json.rs");
}

pub mod quota {
    include!("mesos.v1.quota.rs");
    include!("mesos.v1.quota.json.rs");
}

pub mod resource_provider {
    include!("mesos.v1.resource_provider.rs");
    include!("mesos.v1.resource_provider.json.rs");
}

pub mod scheduler {
    include!("mesos.v1.scheduler.rs");
    include!("mesos.v1.scheduler.json.rs");
}
