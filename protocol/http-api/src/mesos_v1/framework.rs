//! `FrameworkInfo` between the wire and the model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_model::framework::{Capabilities, FrameworkInfo, MinAllocatable};
use muster_model::resource::ResourceName;
use muster_model::{Duration, FrameworkId, Role};
use prost::Message;

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
    let mut roles = BTreeSet::new();
    let (field, names) = if is_multi_role {
        ("roles", wire.roles.iter().map(String::as_str).collect())
    } else {
        ("role", vec![wire.role()])
    };
    for name in names {
        let role =
            Role::parse(name).map_err(|error| format!("'FrameworkInfo.{field}' contains invalid role: {error}"))?;
        if !roles.insert(role) {
            return Err(format!("'FrameworkInfo.roles' contains duplicate items: {{ {name} }}"));
        }
    }
    Ok(roles)
}

fn failover_timeout(seconds: f64) -> Result<Duration, String> {
    if !(-DURATION_SECS_MAX..=DURATION_SECS_MAX).contains(&seconds) {
        return Err(format!(
            "The framework failover_timeout ({seconds:?}) is invalid: it is not between -{DURATION_SECS_MAX} and {DURATION_SECS_MAX} seconds"
        ));
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
        let refused = |why: &str| format!("'FrameworkInfo.offer_filters' for role '{name}' is invalid: {why}");
        let role = Role::parse(name).map_err(|error| refused(&error.to_string()))?;
        let Some(min) = &filter.min_allocatable_resources else { continue };
        let mut alternatives = Vec::with_capacity(min.quantities.len());
        for alternative in &min.quantities {
            if alternative.quantities.is_empty() {
                return Err(refused("an alternative has no quantities"));
            }
            let mut amounts = BTreeMap::new();
            for (resource, scalar) in &alternative.quantities {
                if scalar.value.is_subnormal() {
                    return Err(refused("a quantity is subnormal"));
                }
                let amount = scalar_from_wire(scalar.value).map_err(refused)?;
                amounts.insert(ResourceName::new(resource), amount);
            }
            alternatives.push(amounts);
        }
        filters.insert(role, alternatives);
    }
    Ok(filters)
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
