//! Resources and attributes between the wire and the model.
//!
//! Mesos keeps scalars with three decimals, the model as integers in thousandths, so conversion is exact both ways.
//! Reservations come in two forms: `role` with `reservation` (the older one) or the stack `reservations`; both are read,
//! and each reader gets the one it can handle.

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_model::attribute::{Attribute, AttributeValue};
use muster_model::resource::{
    Ranges, Reservation, ReservationKind, Resource, ResourceKey, ResourceName, Resources, Value,
};
use muster_model::{Milli, Role};

use super::faults::{role_fault, six_digits};
use crate::proto;
use crate::proto::resource::{AllocationInfo, ReservationInfo, RevocableInfo, reservation_info};
use crate::proto::value;

/// Which form of reservations a reader can handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `role` and `reservation`; resources with a longer stack are left out.
    PreRefinement,
    /// Only `reservations`.
    PostRefinement,
    /// Both where the older one can express it, as read endpoints show it.
    Endpoint,
}

/// Why resources of a client can't be used; in the words of Mesos where it has the same rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceRefusal {
    /// One resource breaks a rule.
    #[error("Resource '{resource}' is invalid: {why}")]
    Invalid {
        /// The resource as `name:amount`.
        resource: String,
        /// The broken rule.
        why: String,
    },
    /// Resources of one task are allocated to several roles.
    #[error(
        "Invalid task resources: The resources have multiple allocation roles ('{first}' and '{second}') but only one \
         allocation role is allowed"
    )]
    MixedRoles {
        /// One role.
        first: String,
        /// Another.
        second: String,
    },
    /// Parts of processors.
    #[error("Task uses invalid resources: Invalid 'gpus' resource: The 'gpus' resource must be an unsigned integer")]
    PartOfGpu,
    /// The same port or item twice.
    #[error("Task uses invalid resources: {0}")]
    Sum(muster_model::resource::ResourceError),
}

/// The largest scalar: Mesos allows 10^12 units; with three decimals this still fits a `u64` many times over.
const SCALAR_MAX: f64 = 1e12;

/// Resources of a client and the role that they say they are allocated to.
///
/// Errors: see [`ResourceRefusal`]; values are checked by Mesos's rules, and what this version does not support yet
/// (volumes, disk sources, resource providers, shared resources) is refused by name.
pub fn resources_from_wire(list: &[proto::Resource]) -> Result<(Resources, Option<Role>), ResourceRefusal> {
    let mut sum = Resources::new();
    let mut allocated: Option<Role> = None;
    for resource in list {
        let refused = |why: String| ResourceRefusal::Invalid { resource: shown(resource), why };
        let entry = entry(resource).map_err(refused)?;
        if let (ResourceName::Gpus, Value::Scalar(Milli(amount))) = (&entry.key.name, &entry.value)
            && amount % 1000 != 0
        {
            return Err(ResourceRefusal::PartOfGpu);
        }
        sum.add_entry(entry).map_err(ResourceRefusal::Sum)?;
        if let Some(role) = resource.allocation_info.as_ref().and_then(|info| info.role.as_deref()) {
            let role = Role::parse(role).map_err(|error| refused(role_fault(role, &error)))?;
            match &allocated {
                Some(other) if *other != role => {
                    let (first, second) = if *other < role { (other, &role) } else { (&role, other) };
                    let (first, second) = (first.to_string(), second.to_string());
                    return Err(ResourceRefusal::MixedRoles { first, second });
                }
                _ => allocated = Some(role),
            }
        }
    }
    Ok((sum, allocated))
}

/// A resource of a client as people read it, whatever is wrong with it.
fn shown(resource: &proto::Resource) -> String {
    let value = match (&resource.scalar, &resource.ranges, &resource.set) {
        (Some(scalar), ..) => six_digits(scalar.value),
        (None, Some(ranges), _) => {
            let ranges: Vec<String> =
                ranges.range.iter().map(|range| format!("{}-{}", range.begin, range.end)).collect();
            format!("[{}]", ranges.join(", "))
        }
        (None, None, Some(set)) => format!("{{{}}}", set.item.join(", ")),
        (None, None, None) => "0".to_owned(),
    };
    format!("{}:{value}", resource.name)
}

fn entry(resource: &proto::Resource) -> Result<Resource, String> {
    if resource.name.is_empty() {
        return Err("Empty resource name".to_owned());
    }
    if resource.provider_id.is_some() {
        return Err("resource providers are not supported yet".to_owned());
    }
    if resource.shared.is_some() {
        return Err("shared resources are not supported yet".to_owned());
    }
    if resource.disk.is_some() {
        return Err("volumes and disk sources are not supported yet".to_owned());
    }
    let name = ResourceName::new(&resource.name);
    let value = amount(resource)?;
    let reservations = reservations(resource)?;
    let is_revocable = resource.revocable.is_some();
    if is_revocable && reservations.iter().any(|level| level.kind == ReservationKind::Dynamic) {
        return Err("revocable resources can't be reserved dynamically".to_owned());
    }
    Ok(Resource { key: ResourceKey { name, reservations, is_revocable }, value })
}

fn amount(resource: &proto::Resource) -> Result<Value, String> {
    match (value::Type::try_from(resource.r#type), &resource.scalar, &resource.ranges, &resource.set) {
        (Ok(value::Type::Scalar), Some(scalar), None, None) => {
            scalar_from_wire(scalar.value).map(Value::Scalar).map_err(|why| format!("Invalid scalar resource: {why}"))
        }
        (Ok(value::Type::Ranges), None, Some(ranges), None) => {
            ranges_from_wire(ranges).map(Value::Ranges).map_err(|why| format!("Invalid ranges resource: {why}"))
        }
        (Ok(value::Type::Set), None, None, Some(set)) => {
            let items: BTreeSet<Arc<str>> = set.item.iter().map(|item| Arc::from(item.as_str())).collect();
            if items.len() != set.item.len() {
                return Err("Invalid set resource: duplicated elements".to_owned());
            }
            Ok(Value::Set(items))
        }
        (Ok(value::Type::Scalar), ..) => Err("Invalid scalar resource".to_owned()),
        (Ok(value::Type::Ranges), ..) => Err("Invalid ranges resource".to_owned()),
        (Ok(value::Type::Set), ..) => Err("Invalid set resource".to_owned()),
        (Ok(value::Type::Text) | Err(_), ..) => Err("Unsupported resource type".to_owned()),
    }
}

/// A scalar in thousandths, rounded to the nearest. Errors: a rule as a phrase.
pub(super) fn scalar_from_wire(value: f64) -> Result<Milli, &'static str> {
    if !value.is_finite() {
        return Err("value is not a finite number");
    }
    if value < 0.0 {
        return Err("value <= 0");
    }
    if value > SCALAR_MAX {
        return Err("value is larger than 10^12");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 <= value <= 10^12 was checked")]
    Ok(Milli((value * 1000.0).round() as u64))
}

/// The double nearest to a scalar; exact to three decimals.
pub(super) fn scalar_to_wire(amount: Milli) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "sums beyond 2^53 thousandths are shown rounded")]
    let thousandths = amount.0 as f64;
    thousandths / 1000.0
}

fn ranges_from_wire(ranges: &value::Ranges) -> Result<Ranges, &'static str> {
    let mut pairs: Vec<(u64, u64)> = ranges.range.iter().map(|range| (range.begin, range.end)).collect();
    if pairs.iter().any(|(begin, end)| begin > end) {
        return Err("begin > end");
    }
    pairs.sort_unstable();
    if pairs.iter().zip(pairs.iter().skip(1)).any(|((_, end), (begin, _))| begin <= end) {
        return Err("overlapping ranges");
    }
    Ranges::new(pairs).ok_or("begin > end")
}

/// The reservation stack of a resource in either form.
fn reservations(resource: &proto::Resource) -> Result<Vec<Reservation>, String> {
    if !resource.reservations.is_empty() {
        if resource.role.is_some() || resource.reservation.is_some() {
            return Err("'reservations' must not stand beside 'role' or 'reservation'; use one form".to_owned());
        }
        return stack(&resource.reservations);
    }
    let role = resource.role.as_deref().unwrap_or("*");
    match (&resource.reservation, role) {
        (None, "*") => Ok(Vec::new()),
        (None, role) => stack(&[ReservationInfo {
            r#type: Some(reservation_info::Type::Static.into()),
            role: Some(role.to_owned()),
            principal: None,
            labels: None,
        }]),
        (Some(_), "*") => Err("Invalid reservation: role \"*\" cannot be dynamically reserved".to_owned()),
        (Some(info), role) => {
            if info.r#type.is_some() || info.role.is_some() {
                return Err("'reservation' beside 'role' must not hold a type or a role".to_owned());
            }
            stack(&[ReservationInfo {
                r#type: Some(reservation_info::Type::Dynamic.into()),
                role: Some(role.to_owned()),
                ..ReservationInfo::clone(info)
            }])
        }
    }
}

fn stack(levels: &[ReservationInfo]) -> Result<Vec<Reservation>, String> {
    let mut stack: Vec<Reservation> = Vec::with_capacity(levels.len());
    for level in levels {
        let kind = match level.r#type.map(reservation_info::Type::try_from) {
            Some(Ok(reservation_info::Type::Static)) => ReservationKind::Static,
            Some(Ok(reservation_info::Type::Dynamic)) => ReservationKind::Dynamic,
            Some(Ok(reservation_info::Type::Unknown) | Err(_)) | None => {
                return Err("a reservation has no known type".to_owned());
            }
        };
        let name = level.role.as_deref().unwrap_or_default();
        let role = Role::parse(name).map_err(|error| role_fault(name, &error))?;
        if role == Role::star() {
            return Err("role '*' can't be reserved for".to_owned());
        }
        if let Some(outer) = stack.last() {
            if kind == ReservationKind::Static {
                return Err("only the first reservation of a stack may be STATIC".to_owned());
            }
            if role == outer.role || !role.is_within(&outer.role) {
                return Err(format!("the reservation for '{role}' does not refine the one for '{}'", outer.role));
            }
        }
        if kind == ReservationKind::Static && (level.principal.is_some() || level.labels.is_some()) {
            return Err("a STATIC reservation can't carry a principal or labels".to_owned());
        }
        let labels = level.labels.iter().flat_map(|labels| &labels.labels);
        stack.push(Reservation {
            kind,
            role,
            principal: level.principal.as_deref().map(Arc::from),
            labels: labels
                .map(|label| (Arc::from(label.key.as_str()), label.value.as_deref().map(Arc::from)))
                .collect(),
        });
    }
    Ok(stack)
}

/// Resources as a reader gets them; `allocated_to` is shown as `allocation_info` in each.
pub fn resources_to_wire(resources: &Resources, allocated_to: Option<&Role>, form: Form) -> Vec<proto::Resource> {
    let mut list = Vec::with_capacity(resources.iter().len());
    append_resources(&mut list, resources, allocated_to, form);
    list
}

/// Like [`resources_to_wire`], to the end of a list.
pub(super) fn append_resources(
    list: &mut Vec<proto::Resource>,
    resources: &Resources,
    allocated_to: Option<&Role>,
    form: Form,
) {
    for resource in resources.iter() {
        let mut wire = proto::Resource { name: resource.key.name.as_str().to_owned(), ..Default::default() };
        match &resource.value {
            Value::Scalar(amount) => {
                wire.r#type = value::Type::Scalar.into();
                wire.scalar = Some(value::Scalar { value: scalar_to_wire(*amount) });
            }
            Value::Ranges(ranges) => {
                wire.r#type = value::Type::Ranges.into();
                wire.ranges = Some(ranges_to_wire(ranges));
            }
            Value::Set(items) => {
                wire.r#type = value::Type::Set.into();
                wire.set = Some(value::Set { item: items.iter().map(ToString::to_string).collect() });
            }
        }
        let stack = &resource.key.reservations;
        if form != Form::PostRefinement {
            match stack.as_slice() {
                [] => wire.role = Some("*".to_owned()),
                [only] => {
                    wire.role = Some(only.role.to_string());
                    wire.reservation = (only.kind == ReservationKind::Dynamic)
                        .then(|| Box::new(ReservationInfo { r#type: None, role: None, ..reservation_to_wire(only) }));
                }
                _ if form == Form::PreRefinement => continue,
                _ => {}
            }
        }
        if form != Form::PreRefinement {
            wire.reservations = stack.iter().map(reservation_to_wire).collect();
        }
        wire.allocation_info = allocated_to.map(|role| AllocationInfo { role: Some(role.to_string()) });
        wire.revocable = resource.key.is_revocable.then_some(RevocableInfo {});
        list.push(wire);
    }
}

fn ranges_to_wire(ranges: &Ranges) -> value::Ranges {
    value::Ranges {
        range: ranges.pairs().iter().map(|(begin, end)| value::Range { begin: *begin, end: *end }).collect(),
    }
}

fn reservation_to_wire(level: &Reservation) -> ReservationInfo {
    let kind = match level.kind {
        ReservationKind::Static => reservation_info::Type::Static,
        ReservationKind::Dynamic => reservation_info::Type::Dynamic,
    };
    let labels = level
        .labels
        .iter()
        .map(|(key, value)| proto::Label { key: key.to_string(), value: value.as_ref().map(ToString::to_string) });
    ReservationInfo {
        r#type: Some(kind.into()),
        role: Some(level.role.to_string()),
        principal: level.principal.as_ref().map(ToString::to_string),
        labels: (!level.labels.is_empty()).then(|| proto::Labels { labels: labels.collect() }),
    }
}

/// Attributes as offers and agents show them.
pub fn attributes_to_wire(attributes: &[Attribute]) -> Vec<proto::Attribute> {
    attributes
        .iter()
        .map(|attribute| {
            let mut wire = proto::Attribute { name: attribute.name.to_string(), ..Default::default() };
            match &attribute.value {
                AttributeValue::Scalar(thousandths) => {
                    wire.r#type = value::Type::Scalar.into();
                    wire.scalar = Some(value::Scalar { value: signed_thousandths(*thousandths) });
                }
                AttributeValue::Ranges(ranges) => {
                    wire.r#type = value::Type::Ranges.into();
                    wire.ranges = Some(ranges_to_wire(ranges));
                }
                AttributeValue::Text(text) => {
                    wire.r#type = value::Type::Text.into();
                    wire.text = Some(value::Text { value: text.to_string() });
                }
            }
            wire
        })
        .collect()
}

/// A number in thousandths, of either sign.
pub(super) fn signed_thousandths(thousandths: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a double field holds the nearest double")]
    let value = thousandths as f64;
    value / 1000.0
}

#[cfg(test)]
mod tests;
