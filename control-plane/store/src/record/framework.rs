//! The records of a framework that is there and of one that was removed.

use std::sync::Arc;

use muster_model::framework::{Capabilities, FrameworkInfo};
use muster_model::record::{FrameworkRecord, TombstoneRecord};
use muster_model::resource::ResourceName;
use muster_model::{Duration, FrameworkId, Milli, Role, WallTime};
use rkyv::{Archive, Deserialize, Serialize};

use super::RecordError;
use super::cluster::Part;

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct Framework {
    info: Info,
    home: Part,
    registered: u64,
    reregistered: Option<u64>,
    failover_deadline: Option<u64>,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct Tombstone {
    info: Info,
    registered: u64,
    removed: u64,
    why: String,
}

/// Amounts by name: one alternative of what is large enough to be offered.
type Amounts = Vec<(String, u64)>;

#[derive(Archive, Serialize, Deserialize)]
struct Info {
    id: String,
    name: String,
    user: String,
    roles: Vec<String>,
    revocable_resources: bool,
    task_killing_state: bool,
    gpu_resources: bool,
    shared_resources: bool,
    partition_aware: bool,
    multi_role: bool,
    reservation_refinement: bool,
    region_aware: bool,
    failover_timeout: u64,
    is_checkpointing: bool,
    principal: Option<String>,
    min_allocatable: Vec<(String, Vec<Amounts>)>,
    spec: Vec<u8>,
}

impl From<&FrameworkRecord> for Framework {
    fn from(record: &FrameworkRecord) -> Self {
        Self {
            info: Info::from(&*record.info),
            home: Part::from(&record.home),
            registered: record.registered.0,
            reregistered: record.reregistered.map(|at| at.0),
            failover_deadline: record.failover_deadline.map(|at| at.0),
        }
    }
}

impl Framework {
    pub(super) fn into_model(self) -> Result<FrameworkRecord, RecordError> {
        Ok(FrameworkRecord {
            info: Arc::new(self.info.into_model()?),
            home: self.home.into_model()?,
            registered: WallTime(self.registered),
            reregistered: self.reregistered.map(WallTime),
            failover_deadline: self.failover_deadline.map(WallTime),
        })
    }
}

impl From<&TombstoneRecord> for Tombstone {
    fn from(record: &TombstoneRecord) -> Self {
        Self {
            info: Info::from(&*record.info),
            registered: record.registered.0,
            removed: record.removed.0,
            why: record.why.to_string(),
        }
    }
}

impl Tombstone {
    pub(super) fn into_model(self) -> Result<TombstoneRecord, RecordError> {
        Ok(TombstoneRecord {
            info: Arc::new(self.info.into_model()?),
            registered: WallTime(self.registered),
            removed: WallTime(self.removed),
            why: self.why.into(),
        })
    }
}

impl From<&FrameworkInfo> for Info {
    fn from(info: &FrameworkInfo) -> Self {
        let Capabilities {
            revocable_resources,
            task_killing_state,
            gpu_resources,
            shared_resources,
            partition_aware,
            multi_role,
            reservation_refinement,
            region_aware,
        } = info.capabilities;
        let amounts = |alternative: &std::collections::BTreeMap<ResourceName, Milli>| {
            alternative.iter().map(|(name, amount)| (name.as_str().to_owned(), amount.0)).collect()
        };
        Self {
            id: info.id.as_str().to_owned(),
            name: info.name.to_string(),
            user: info.user.to_string(),
            roles: info.roles.iter().map(|role| role.as_str().to_owned()).collect(),
            revocable_resources,
            task_killing_state,
            gpu_resources,
            shared_resources,
            partition_aware,
            multi_role,
            reservation_refinement,
            region_aware,
            failover_timeout: info.failover_timeout.0,
            is_checkpointing: info.is_checkpointing,
            principal: info.principal.as_deref().map(str::to_owned),
            min_allocatable: info
                .min_allocatable
                .iter()
                .map(|(role, alternatives)| (role.as_str().to_owned(), alternatives.iter().map(amounts).collect()))
                .collect(),
            spec: info.spec.to_vec(),
        }
    }
}

impl Info {
    fn into_model(self) -> Result<FrameworkInfo, RecordError> {
        let role = |text: &str| Role::parse(text).map_err(RecordError::damaged);
        let amounts = |alternative: Amounts| {
            alternative.into_iter().map(|(name, amount)| (ResourceName::new(&name), Milli(amount))).collect()
        };
        Ok(FrameworkInfo {
            id: FrameworkId::parse(&self.id).map_err(RecordError::damaged)?,
            name: self.name.into(),
            user: self.user.into(),
            roles: self.roles.iter().map(|text| role(text)).collect::<Result<_, _>>()?,
            capabilities: Capabilities {
                revocable_resources: self.revocable_resources,
                task_killing_state: self.task_killing_state,
                gpu_resources: self.gpu_resources,
                shared_resources: self.shared_resources,
                partition_aware: self.partition_aware,
                multi_role: self.multi_role,
                reservation_refinement: self.reservation_refinement,
                region_aware: self.region_aware,
            },
            failover_timeout: Duration(self.failover_timeout),
            is_checkpointing: self.is_checkpointing,
            principal: self.principal.map(Arc::from),
            min_allocatable: self
                .min_allocatable
                .into_iter()
                .map(|(text, alternatives)| Ok((role(&text)?, alternatives.into_iter().map(amounts).collect())))
                .collect::<Result<_, RecordError>>()?,
            spec: self.spec.into(),
        })
    }
}
