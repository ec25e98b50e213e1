//! Parts of pictures, version 1.

use super::name::{Reading, Writing};
use super::noun::{
    AgentId, AgentInfo, Fence, FrameworkId, FrameworkInfo, Milli, Offer, OfferId, Role, ShardId, Task, TaskId,
    TaskState, WallTime,
};
use super::resource::Resources;
use super::status::TaskStatus;
use super::{Map, Mirror, Shared, Text, mirror_enum, mirror_struct};
use crate::WireError;
use muster_model::view as model;
use rkyv::{Archive, Serialize};
use std::collections::BTreeMap;

mirror_struct!(Happening<'m>, ArchivedHappening = muster_model::view::Happening { at: WallTime, what: Text<'m> });

mirror_struct!(TaskView<'m>, ArchivedTaskView = muster_model::view::TaskView {
    task: Shared<Task<'m>>,
    state: TaskState,
    statuses: Vec<Shared<TaskStatus<'m>>>,
    history: Vec<Happening<'m>>,
});

mirror_enum!(Admission, ArchivedAdmission = muster_model::record::Admission {
    Active,
    Unreachable { since: WallTime },
    Gone { since: WallTime },
});

mirror_enum!(Presence, ArchivedPresence = muster_model::view::Presence {
    Connected,
    Disconnected { since: WallTime },
    Recovered,
});

mirror_struct!(
    ContainerUse<'m>,
    ArchivedContainerUse = muster_model::agent_message::ContainerUse {
        framework_id: FrameworkId,
        task_id: TaskId<'m>,
        cpu_us: u64,
        mem_bytes: u64,
        processes: u32,
    }
);

mirror_struct!(Report<'m>, ArchivedReport = muster_model::agent_message::Report {
    sequence: u64,
    cpu_busy_ms: u64,
    mem_used_kib: u64,
    mem_total_kib: u64,
    disk_used_mib: u64,
    load_milli: u64,
    cpu_pressure_milli: u64,
    mem_pressure_milli: u64,
    containers: Vec<ContainerUse<'m>>,
});

/// An agent without its tasks, which follow in parts of their own.
#[derive(Archive, Serialize)]
pub(crate) struct AgentView<'m> {
    id: AgentId,
    shard: (ShardId, Fence),
    info: Shared<AgentInfo<'m>>,
    admission: Admission,
    is_deactivated: bool,
    is_revoked: bool,
    presence: Presence,
    peer: Option<Text<'m>>,
    registered: WallTime,
    reregistered: Option<WallTime>,
    used: Map<(FrameworkId, Role), Resources<'m>>,
    offered: Map<OfferId, (FrameworkId, Role, Resources<'m>)>,
    report: Option<(WallTime, Shared<Report<'m>>)>,
}

impl<'m> Mirror<'m> for AgentView<'m> {
    type Model = model::AgentView;

    fn to_wire(value: &'m Self::Model, names: &mut Writing<'m>) -> Self {
        // Every field is named, so that a new one is not forgotten here.
        let model::AgentView {
            id,
            shard,
            info,
            admission,
            is_deactivated,
            is_revoked,
            presence,
            peer,
            registered,
            reregistered,
            used,
            offered,
            tasks: _,
            report,
        } = value;
        Self {
            id: Mirror::to_wire(id, names),
            shard: Mirror::to_wire(shard, names),
            info: Mirror::to_wire(info, names),
            admission: Mirror::to_wire(admission, names),
            is_deactivated: *is_deactivated,
            is_revoked: *is_revoked,
            presence: Mirror::to_wire(presence, names),
            peer: Mirror::to_wire(peer, names),
            registered: Mirror::to_wire(registered, names),
            reregistered: Mirror::to_wire(reregistered, names),
            used: Mirror::to_wire(used, names),
            offered: Mirror::to_wire(offered, names),
            report: Mirror::to_wire(report, names),
        }
    }

    fn from_wire(archived: &Self::Archived, names: &Reading<'_>) -> Result<Self::Model, WireError> {
        Ok(model::AgentView {
            id: AgentId::from_wire(&archived.id, names)?,
            shard: <(ShardId, Fence)>::from_wire(&archived.shard, names)?,
            info: Shared::<AgentInfo>::from_wire(&archived.info, names)?,
            admission: Admission::from_wire(&archived.admission, names)?,
            is_deactivated: archived.is_deactivated,
            is_revoked: archived.is_revoked,
            presence: Presence::from_wire(&archived.presence, names)?,
            peer: Option::<Text>::from_wire(&archived.peer, names)?,
            registered: WallTime::from_wire(&archived.registered, names)?,
            reregistered: Option::<WallTime>::from_wire(&archived.reregistered, names)?,
            used: Map::<(FrameworkId, Role), Resources>::from_wire(&archived.used, names)?,
            offered: Map::<OfferId, (FrameworkId, Role, Resources)>::from_wire(&archived.offered, names)?,
            tasks: BTreeMap::new(),
            report: Option::<(WallTime, Shared<Report>)>::from_wire(&archived.report, names)?,
        })
    }
}

/// A framework without its offers, which follow in parts of their own.
#[derive(Archive, Serialize)]
pub(crate) struct FrameworkView<'m> {
    info: Shared<FrameworkInfo<'m>>,
    is_active: bool,
    is_connected: bool,
    is_recovered: bool,
    registered: WallTime,
    reregistered: Option<WallTime>,
    unregistered: Option<WallTime>,
    suppressed: Vec<Role>,
    failover_deadline: Option<WallTime>,
}

impl<'m> Mirror<'m> for FrameworkView<'m> {
    type Model = model::FrameworkView;

    fn to_wire(value: &'m Self::Model, names: &mut Writing<'m>) -> Self {
        let model::FrameworkView {
            info,
            is_active,
            is_connected,
            is_recovered,
            registered,
            reregistered,
            unregistered,
            suppressed,
            offers: _,
            failover_deadline,
        } = value;
        Self {
            info: Mirror::to_wire(info, names),
            is_active: *is_active,
            is_connected: *is_connected,
            is_recovered: *is_recovered,
            registered: Mirror::to_wire(registered, names),
            reregistered: Mirror::to_wire(reregistered, names),
            unregistered: Mirror::to_wire(unregistered, names),
            suppressed: Mirror::to_wire(suppressed, names),
            failover_deadline: Mirror::to_wire(failover_deadline, names),
        }
    }

    fn from_wire(archived: &Self::Archived, names: &Reading<'_>) -> Result<Self::Model, WireError> {
        Ok(model::FrameworkView {
            info: Shared::<FrameworkInfo>::from_wire(&archived.info, names)?,
            is_active: archived.is_active,
            is_connected: archived.is_connected,
            is_recovered: archived.is_recovered,
            registered: WallTime::from_wire(&archived.registered, names)?,
            reregistered: Option::<WallTime>::from_wire(&archived.reregistered, names)?,
            unregistered: Option::<WallTime>::from_wire(&archived.unregistered, names)?,
            suppressed: Vec::<Role>::from_wire(&archived.suppressed, names)?,
            offers: BTreeMap::new(),
            failover_deadline: Option::<WallTime>::from_wire(&archived.failover_deadline, names)?,
        })
    }
}

mirror_struct!(SkipView<'m>, ArchivedSkipView = muster_model::view::SkipView {
    reason: Text<'m>,
    agent_count: u64,
    example: Option<AgentId>,
});

mirror_struct!(DecisionView<'m>, ArchivedDecisionView = muster_model::view::DecisionView {
    at: WallTime,
    offer_count: u64,
    share_ppm: u64,
    skips: Vec<SkipView<'m>>,
});

mirror_struct!(RoleView<'m>, ArchivedRoleView = muster_model::view::RoleView {
    weight: Milli,
    has_weight: bool,
    frameworks: Vec<FrameworkId>,
    allocated: Resources<'m>,
    offered: Resources<'m>,
    reserved: Resources<'m>,
});

mirror_enum!(TaskList, ArchivedTaskList = crate::picture::TaskList {
    Agent(agent_id: AgentId),
    Completed(framework_id: FrameworkId),
    Unreachable(framework_id: FrameworkId),
});

mirror_enum!(PicturePart<'m>, ArchivedPicturePart = crate::picture::PicturePart {
    Agent(agent: Shared<AgentView<'m>>),
    Tasks { list: TaskList, tasks: Vec<Shared<TaskView<'m>>> },
    Framework(framework: Shared<FrameworkView<'m>>),
    Offers { framework_id: FrameworkId, offers: Vec<Shared<Offer<'m>>> },
    CompletedFramework(framework: Shared<FrameworkView<'m>>),
    Allocator { cycles: u64, last_cycle_work: u64 },
    Role { role: Role, view: RoleView<'m> },
    Decision { framework_id: FrameworkId, role: Role, view: DecisionView<'m> },
    End { parts: u64 },
});
