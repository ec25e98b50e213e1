//! What an agent keeps on disk, version 1.

use super::noun::{AgentId, ContainerId, Duration, Fence, FrameworkBrief, FrameworkId, Task, TaskId, Uuid, WallTime};
use super::status::StatusUpdate;
use super::{Shared, mirror_enum, mirror_struct};

mirror_enum!(JournalEntry, ArchivedJournalEntry = muster_model::record::JournalEntry {
    OrderFloor { fence: Fence, sequence: u64 },
    Admitted { framework: FrameworkBrief, tasks: Vec<(Shared<Task>, ContainerId)>, at: WallTime },
    KillRequested { framework_id: FrameworkId, task_id: TaskId, grace: Option<Duration>, at: WallTime },
    FrameworkShutdown { framework_id: FrameworkId },
    Update(update: StatusUpdate),
    Acknowledged { framework_id: FrameworkId, task_id: TaskId, uuid: Uuid },
    Booted { boot_id: Uuid },
    CompletionTimeReached { framework_id: FrameworkId, task_id: TaskId },
});

mirror_struct!(
    JournalHeader,
    ArchivedJournalHeader = crate::journal::JournalHeader { agent_id: AgentId, position: u64, snapshot_entries: u64 }
);

mirror_struct!(IdentityRecord, ArchivedIdentityRecord = muster_model::record::IdentityRecord {
    agent_id: AgentId,
    highest_fence: Fence,
    ratchet_token: Option<Uuid>,
    addresses: Vec<String>,
});
