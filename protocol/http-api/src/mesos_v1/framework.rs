//! `FrameworkInfo` between the wire and the model.

use std::collections::{BTreeMap, BTreeSet};
use std::num::FpCategory;
use std::sync::Arc;

use muster_model::framework::{Capabilities, FrameworkInfo, MinAllocatable};
use muster_model::resource::ResourceName;
use muster_model::{Duration, FrameworkId, Milli, Role};
use prost::Message;

use super::faults::{role_fault, six_digits};
use super::resource::scalar_from_wire;
use crate::proto;
use crate::proto::framework_info::{Capability, capability};

/// The longest length of time that Mesos can hold: an `i64` of nanoseconds, in seconds.
const DURATION_SECS_MAX: f64 = 9_223_372_036.0;

/// What a framework says of itself, checked by Mesos's rules in Mesos's order.
///
/// Errors: the text of the ERROR event that refuses the subscription.
pub fn framework_info_from_wire(wire: &proto::FrameworkInfo, id: FrameworkId) -> Result<FrameworkInfo, String> {
    let capabilities = capabilities_from_wire(&wire.capabilities);
    let roles = roles(wire, capabilities.multi_role)?;
    Ok(FrameworkInfo {
        id,
        name: Arc::from(wire.name.as_str()),
        user: Arc::from(wire.user.as_str()),
        capabilities,
        min_allocatable: offer_filters(wire)?,
        failover_timeout: failover_timeout(wire.failover_timeout())?,
        is_checkpointing: wire.checkpoint(),
        principal: wire.principal.as_deref().map(Arc::from),
        roles,
        spec: Arc::from(wire.encode_to_vec()),
    })
}

/// What a framework says of itself, as readers get it: its own words, with what the control plane decided.
pub fn framework_info_to_wire(info: &FrameworkInfo) -> proto::FrameworkInfo {
    // The bytes were made by this crate; if they were lost the decided facts remain.
    let mut wire = proto::FrameworkInfo::decode(&*info.spec).unwrap_or_default();
    wire.id = Some(proto::FrameworkId { value: info.id.to_string() });
    wire.name = info.name.to_string();
    wire.user = info.user.to_string();
    wire.principal = info.principal.as_ref().map(ToString::to_string);
    if wire.checkpoint() != info.is_checkpointing {
        wire.checkpoint = Some(info.is_checkpointing);
    }
    wire
}

fn roles(wire: &proto::FrameworkInfo, is_multi_role: bool) -> Result<BTreeSet<Role>, String> {
    if is_multi_role && wire.role.is_some() {
        return Err("'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable".to_owned());
    }
    if !is_multi_role && !wire.roles.is_empty() {
        return Err("'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable".to_owned());
    }
    if !is_multi_role {
        let name = wire.role();
        let role = Role::parse(name)
            .map_err(|error| format!("'FrameworkInfo.role' is not a valid role: {}", role_fault(name, &error)))?;
        return Ok(BTreeSet::from([role]));
    }
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<&String> = wire.roles.iter().filter(|name| !seen.insert(*name)).collect();
    if !twice.is_empty() {
        let names: Vec<&str> = twice.into_iter().map(String::as_str).collect();
        return Err(format!("'FrameworkInfo.roles' contains duplicate items: {{ {} }}", names.join(", ")));
    }
    let parse = |name: &String| {
        Role::parse(name)
            .map_err(|error| format!("'FrameworkInfo.roles' contains invalid role: {}", role_fault(name, &error)))
    };
    wire.roles.iter().map(parse).collect()
}

fn failover_timeout(seconds: f64) -> Result<Duration, String> {
    if !(-DURATION_SECS_MAX..=DURATION_SECS_MAX).contains(&seconds) {
        return Err(format!("The framework failover_timeout ({}) is invalid", six_digits(seconds)));
    }
    Ok(duration_from_secs(seconds))
}

/// A length of time out of seconds that were checked to be in range; below nothing is nothing.
pub(super) fn duration_from_secs(seconds: f64) -> Duration {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, and makes NaN zero")]
    let nanos = (seconds * 1e9) as u64;
    Duration(nanos)
}

fn offer_filters(wire: &proto::FrameworkInfo) -> Result<BTreeMap<Role, MinAllocatable>, String> {
    let mut filters = BTreeMap::new();
    for (name, filter) in &wire.offer_filters {
        let mut alternatives = Vec::new();
        for alternative in filter.min_allocatable_resources.iter().flat_map(|min| &min.quantities) {
            if alternative.quantities.is_empty() {
                return Err("Resource quantities must contain at least one quantity".to_owned());
            }
            let mut amounts = BTreeMap::new();
            for (resource, scalar) in &alternative.quantities {
                amounts.insert(ResourceName::new(resource), quantity(resource, scalar.value)?);
            }
            alternatives.push(amounts);
        }
        // Mesos does not check these names: one that is no role is a filter that is never asked for.
        if let (Ok(role), true) = (Role::parse(name), filter.min_allocatable_resources.is_some()) {
            filters.insert(role, alternatives);
        }
    }
    Ok(filters)
}

fn quantity(name: &str, value: f64) -> Result<Milli, String> {
    let why = match value.classify() {
        FpCategory::Nan => "NaN not supported".to_owned(),
        FpCategory::Infinite => "Infinite values not supported".to_owned(),
        FpCategory::Subnormal => "Subnormal values not supported".to_owned(),
        FpCategory::Zero | FpCategory::Normal if value < 0.0 => "Negative values not supported".to_owned(),
        FpCategory::Zero | FpCategory::Normal => match scalar_from_wire(value) {
            Ok(amount) => return Ok(amount),
            Err(why) => why.to_owned(),
        },
    };
    Err(format!("Invalid resource quantity for '{name}': {why}"))
}

fn capabilities_from_wire(list: &[Capability]) -> Capabilities {
    let mut capabilities = Capabilities::default();
    for kind in list.iter().filter_map(|capability| capability::Type::try_from(capability.r#type?).ok()) {
        match kind {
            capability::Type::Unknown => {}
            capability::Type::RevocableResources => capabilities.revocable_resources = true,
            capability::Type::TaskKillingState => capabilities.task_killing_state = true,
            capability::Type::GpuResources => capabilities.gpu_resources = true,
            capability::Type::SharedResources => capabilities.shared_resources = true,
            capability::Type::PartitionAware => capabilities.partition_aware = true,
            capability::Type::MultiRole => capabilities.multi_role = true,
            capability::Type::ReservationRefinement => capabilities.reservation_refinement = true,
            capability::Type::RegionAware => capabilities.region_aware = true,
        }
    }
    capabilities
}
