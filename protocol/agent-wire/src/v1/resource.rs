//! Resources and attributes of version 1. What is read is put together by the model's own sums, so it is canonical.

use super::noun::{Milli, Role};
use super::{Mirror, mirror_enum, mirror_struct};
use crate::WireError;
use crate::limits::{RESERVATIONS_MAX, RESOURCE_ENTRIES_MAX, RESOURCE_ITEMS_MAX};
use muster_model::resource as model;
use rkyv::{Archive, Serialize};
use std::collections::BTreeSet;

mirror_enum!(ReservationKind, ArchivedReservationKind = muster_model::resource::ReservationKind { Static, Dynamic });

mirror_struct!(Reservation, ArchivedReservation = muster_model::resource::Reservation {
    kind: ReservationKind,
    role: Role,
    principal: Option<String>,
    labels: Vec<(String, Option<String>)>,
});

/// The name as Mesos spells it.
#[derive(Archive, Serialize)]
pub(crate) struct ResourceName(String);

impl Mirror for ResourceName {
    type Model = model::ResourceName;

    fn to_wire(value: &Self::Model) -> Self {
        Self(value.as_str().to_owned())
    }

    fn from_wire(archived: &ArchivedResourceName) -> Result<Self::Model, WireError> {
        Ok(model::ResourceName::new(archived.0.as_str()))
    }
}

mirror_struct!(ResourceKey, ArchivedResourceKey = muster_model::resource::ResourceKey {
    name: ResourceName,
    reservations: Vec<Reservation>,
    is_revocable: bool,
});

/// Pairs, ascending, apart.
#[derive(Archive, Serialize)]
pub(crate) struct Ranges(Vec<(u64, u64)>);

impl Mirror for Ranges {
    type Model = model::Ranges;

    fn to_wire(value: &Self::Model) -> Self {
        Self(value.pairs().to_vec())
    }

    fn from_wire(archived: &ArchivedRanges) -> Result<Self::Model, WireError> {
        let refused = |why| WireError::BadValue { what: "ranges", why };
        if archived.0.len() > RESOURCE_ITEMS_MAX {
            return Err(refused("more ranges than are allowed in one value"));
        }
        let ranges = model::Ranges::new(archived.0.iter().map(|pair| (pair.0.to_native(), pair.1.to_native())))
            .ok_or_else(|| refused("a range begins after its end"))?;
        if ranges.pairs().len() != archived.0.len() {
            return Err(refused("ranges touch or overlap"));
        }
        Ok(ranges)
    }
}

/// Items, ascending.
#[derive(Archive, Serialize)]
pub(crate) struct Items(Vec<String>);

impl Mirror for Items {
    type Model = BTreeSet<std::sync::Arc<str>>;

    fn to_wire(value: &Self::Model) -> Self {
        Self(value.iter().map(String::to_wire).collect())
    }

    fn from_wire(archived: &ArchivedItems) -> Result<Self::Model, WireError> {
        if archived.0.len() > RESOURCE_ITEMS_MAX {
            return Err(WireError::BadValue { what: "set", why: "more items than are allowed in one value" });
        }
        archived.0.iter().map(String::from_wire).collect()
    }
}

mirror_enum!(Value, ArchivedValue = muster_model::resource::Value {
    Scalar(amount: Milli),
    Ranges(ranges: Ranges),
    Set(items: Items),
});

mirror_struct!(Resource, ArchivedResource = muster_model::resource::Resource { key: ResourceKey, value: Value });

/// Entries in order of their keys.
#[derive(Archive, Serialize)]
pub(crate) struct Resources(Vec<Resource>);

impl Mirror for Resources {
    type Model = model::Resources;

    fn to_wire(value: &Self::Model) -> Self {
        Self(value.iter().map(Resource::to_wire).collect())
    }

    fn from_wire(archived: &ArchivedResources) -> Result<Self::Model, WireError> {
        let refused = |why| WireError::BadValue { what: "resources", why };
        if archived.0.len() > RESOURCE_ENTRIES_MAX {
            return Err(refused("more entries than are allowed in one amount"));
        }
        if archived.0.iter().any(|entry| entry.key.reservations.len() > RESERVATIONS_MAX) {
            return Err(refused("a reservation stack is deeper than allowed"));
        }
        let mut sum = model::Resources::new();
        for entry in archived.0.iter() {
            sum.add_entry(Resource::from_wire(entry)?)?;
        }
        if sum.iter().len() != archived.0.len() {
            return Err(refused("an entry is empty or stands there twice"));
        }
        Ok(sum)
    }
}

mirror_enum!(AttributeValue, ArchivedAttributeValue = muster_model::attribute::AttributeValue {
    Scalar(thousandths: i64),
    Ranges(ranges: Ranges),
    Text(text: String),
});

mirror_struct!(
    Attribute,
    ArchivedAttribute = muster_model::attribute::Attribute { name: String, value: AttributeValue }
);
