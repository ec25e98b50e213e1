//! Builds what tests need in few words, and drives an engine.

use muster_allocator::AllocatorEngine;
use muster_allocator::io::{AllocatorConfig, Input, Output};
use muster_model::agent::AgentInfo;
use muster_model::attribute::{Attribute, AttributeValue};
use muster_model::fence::Fence;
use muster_model::framework::{Capabilities, FrameworkInfo};
use muster_model::node_message::{AgentBook, ClosedGrant, NodeMessage, Target, ToAllocator, ToHome, ToOwner};
use muster_model::offer::{Grant, Offer, Refusal, RescindReason};
use muster_model::record::{Record, RoleRecord};
use muster_model::resource::{
    Ranges, Reservation, ReservationKind, Resource, ResourceKey, ResourceName, Resources, Value,
};
use muster_model::store_op::{Key, Stored};
use muster_model::time::Now;
use muster_model::{AgentId, Duration, FrameworkId, Milli, OfferId, Rng, Role, ShardId, Timestamp, WallTime};
use std::collections::BTreeSet;
use std::sync::Arc;

pub(crate) fn agent_id(text: &str) -> AgentId {
    AgentId::parse(text).unwrap()
}

pub(crate) fn framework_id(text: &str) -> FrameworkId {
    FrameworkId::parse(text).unwrap()
}

pub(crate) fn role(text: &str) -> Role {
    Role::parse(text).unwrap()
}

pub(crate) fn basic(cpus: u64, mem: u64) -> Resources {
    Resources::basic(Milli::whole(cpus), Milli::whole(mem), Milli::ZERO)
}

/// Resources such as `cpus:4`, `mem(eng):10`, `ports:1-5`, `gpus:1`, `cpus{REV}:2`, separated by blanks.
pub(crate) fn resources(text: &str) -> Resources {
    let entries = text.split_whitespace().map(|entry| {
        let (key, value) = entry.split_once(':').unwrap();
        let is_revocable = key.ends_with("{REV}");
        let key = key.trim_end_matches("{REV}");
        let (name, roles) = key.split_once('(').unwrap_or((key, ""));
        let reservation = |role: &str| Reservation {
            kind: ReservationKind::Dynamic,
            role: Role::parse(role).unwrap(),
            principal: None,
            labels: Vec::new(),
        };
        let reservations =
            roles.trim_end_matches(')').split(',').filter(|role| !role.is_empty()).map(reservation).collect();
        let value = match value.split_once('-') {
            Some((begin, end)) => Value::Ranges(Ranges::new([(begin.parse().unwrap(), end.parse().unwrap())]).unwrap()),
            None => Value::Scalar(Milli::whole(value.parse().unwrap())),
        };
        Resource { key: ResourceKey { name: ResourceName::new(name), reservations, is_revocable }, value }
    });
    Resources::collect(entries).unwrap()
}

pub(crate) fn agent_info(total: Resources) -> Arc<AgentInfo> {
    Arc::new(AgentInfo {
        hostname: "host".into(),
        ip: "127.0.0.1".into(),
        port: 5051,
        total,
        attributes: Vec::new(),
        version: "1".into(),
        missing_isolation: Vec::new(),
    })
}

pub(crate) fn with_attribute(info: &AgentInfo, text: &str) -> Arc<AgentInfo> {
    let attribute = Attribute { name: "rack".into(), value: AttributeValue::Text(text.into()) };
    Arc::new(AgentInfo { attributes: vec![attribute], ..info.clone() })
}

pub(crate) fn framework(id: &str, roles: &[&str]) -> FrameworkInfo {
    FrameworkInfo {
        id: framework_id(id),
        name: id.into(),
        user: "root".into(),
        roles: roles.iter().map(|text| role(text)).collect(),
        capabilities: Capabilities { multi_role: true, reservation_refinement: true, ..Capabilities::default() },
        failover_timeout: Duration::ZERO,
        is_checkpointing: true,
        principal: None,
        min_allocatable: Default::default(),
        spec: Arc::from([]),
    }
}

pub(crate) fn fence(epoch: u64) -> Fence {
    Fence { generation: 1, epoch, incarnation: epoch }
}

pub(crate) fn at(millis: u64) -> Now {
    Now { mono: Timestamp::ZERO.after(Duration::from_millis(millis)), wall: WallTime(millis * 1000) }
}

pub(crate) fn weight(name: &str, milli: u64) -> Stored {
    Stored { key: Key::Role(role(name)), revision: 1, record: Record::Role(RoleRecord { weight: Milli(milli) }) }
}

pub(crate) fn book(id: &str, total: &str) -> AgentBook {
    AgentBook {
        agent_id: agent_id(id),
        shard: (ShardId(0), fence(1)),
        info: agent_info(resources(total)),
        is_active: true,
        used: Vec::new(),
        grants: Vec::new(),
    }
}

pub(crate) fn demand(info: FrameworkInfo) -> ToAllocator {
    demand_with(info, 1, &[], true)
}

pub(crate) fn demand_with(
    info: FrameworkInfo,
    session_version: u64,
    suppressed: &[&str],
    is_active: bool,
) -> ToAllocator {
    ToAllocator::Demand {
        info: Arc::new(info),
        home_fence: fence(1),
        session_version,
        suppressed: suppressed.iter().map(|text| role(text)).collect(),
        is_active,
    }
}

/// An engine and what it said.
pub(crate) struct World {
    pub(crate) engine: AllocatorEngine,
    pub(crate) now: Now,
    pub(crate) outputs: Vec<Output>,
}

impl World {
    pub(crate) fn new(seed: u64, weights: Vec<Stored>) -> Self {
        let config = AllocatorConfig {
            allocation_interval: Duration::from_secs(1),
            min_cpus: Milli(10),
            min_mem: Milli::whole(32),
        };
        let mut world = Self { engine: AllocatorEngine::new(config, Rng::new(seed)), now: at(0), outputs: Vec::new() };
        world.input(Input::Took { fence: fence(1), roles: weights });
        world
    }

    pub(crate) fn input(&mut self, input: Input) {
        self.engine.handle(input, self.now);
        self.drain();
    }

    pub(crate) fn tell(&mut self, message: ToAllocator) {
        self.input(Input::FromNode(message));
    }

    pub(crate) fn drain(&mut self) {
        self.outputs.extend(std::iter::from_fn(|| self.engine.poll_output()));
        self.engine.check().unwrap();
    }

    /// Moves time on to `millis`, runs what is due and says what was offered: (framework, agent, role, resources).
    pub(crate) fn run_at(&mut self, millis: u64) -> Vec<(String, String, String, String)> {
        self.now = at(millis);
        self.outputs.clear();
        self.engine.handle_deadline(self.now);
        self.drain();
        offers(&self.outputs).iter().map(|offer| row(&offer.grant)).collect()
    }

    /// What the last step offered.
    pub(crate) fn offers(&self) -> Vec<Arc<Offer>> {
        offers(&self.outputs)
    }

    pub(crate) fn close(&mut self, offer: &Grant, used: &str, refusal: Refusal) {
        self.close_because(offer, used, refusal, None);
    }

    pub(crate) fn close_because(&mut self, offer: &Grant, used: &str, refusal: Refusal, reason: Option<RescindReason>) {
        self.tell(ToAllocator::Closed(vec![ClosedGrant {
            offer_id: offer.offer_id,
            agent_id: offer.agent_id.clone(),
            used: resources(used),
            refusal,
            reason,
        }]));
    }

    pub(crate) fn revive(&mut self, id: &str, roles: &[&str]) {
        let roles: BTreeSet<Role> = roles.iter().map(|text| role(text)).collect();
        self.tell(ToAllocator::Revive { framework_id: framework_id(id), home_fence: fence(1), roles });
    }
}

pub(crate) fn row(grant: &Grant) -> (String, String, String, String) {
    let text = |it: &dyn std::fmt::Display| it.to_string();
    (text(&grant.framework_id), text(&grant.agent_id), text(&grant.role), text(&grant.resources))
}

/// All offers sent to homes, by number.
pub(crate) fn offers(outputs: &[Output]) -> Vec<Arc<Offer>> {
    let mut all: Vec<Arc<Offer>> = Vec::new();
    for Output::Send { to, message } in outputs {
        if let NodeMessage::ToHome(ToHome::Offers { framework_id, offers, .. }) = message {
            assert_eq!(*to, Target::HomeOf(framework_id.clone()));
            assert!(offers.iter().all(|offer| offer.grant.framework_id == *framework_id));
            all.extend(offers.iter().cloned());
        }
    }
    all.sort_by_key(|offer| offer.grant.offer_id);
    all
}

pub(crate) fn rescinds(outputs: &[Output]) -> Vec<(OfferId, RescindReason)> {
    let rescinded = outputs.iter().filter_map(|Output::Send { message, .. }| match message {
        NodeMessage::ToHome(ToHome::Rescinded { offers, .. }) => Some(offers.clone()),
        _ => None,
    });
    rescinded.flatten().collect()
}

pub(crate) fn revokes(outputs: &[Output]) -> Vec<OfferId> {
    let revoked = outputs.iter().filter_map(|Output::Send { message, .. }| match message {
        NodeMessage::ToOwner(ToOwner::Revoke { offers, .. }) => Some(offers.clone()),
        _ => None,
    });
    revoked.flatten().map(|(_, offer_id)| offer_id).collect()
}
