//! Resources and attributes of version 1. What is read is put together by the model's own sums, so it is canonical.

use super::name::{Reading, Writing};
use super::noun::{Milli, Role};
use super::{Mirror, Text, mirror_enum, mirror_struct};
use crate::WireError;
use crate::limits::{RESERVATIONS_MAX, RESOURCE_ENTRIES_MAX, RESOURCE_ITEMS_MAX};
use muster_model::resource as model;
use rkyv::{Archive, Serialize};
use std::collections::BTreeSet;

mirror_enum!(ReservationKind, ArchivedReservationKind = muster_model::resource::ReservationKind { Static, Dynamic });

mirror_struct!(Reservation<'m>, ArchivedReservation = muster_model::resource::Reservation {
    kind: ReservationKind,
    role: Role,
    principal: Option<Text<'m>>,
    labels: Vec<(Text<'m>, Option<Text<'m>>)>,
});

/// The name as Mesos spells it.
#[derive(Archive, Serialize)]
pub(crate) struct ResourceName<'m>(Text<'m>);

impl<'m> Mirror<'m> for ResourceName<'m> {
    type Model = model::ResourceName;

    fn to_wire(value: &'m Self::Model, _: &mut Writing<'m>) -> Self {
        Self(Text(value.as_str()))
    }

    fn from_wire(archived: &Self::Archived, _: &Reading<'_>) -> Result<Self::Model, WireError> {
        Ok(model::ResourceName::new(archived.0.as_str()))
    }
}

mirror_struct!(ResourceKey<'m>, ArchivedResourceKey = muster_model::resource::ResourceKey {
    name: ResourceName<'m>,
    reservations: Vec<Reservation<'m>>,
    is_revocable: bool,
});

/// Pairs, ascending, apart.
#[derive(Archive, Serialize)]
pub(crate) struct Ranges(Vec<(u64, u64)>);

impl<'m> Mirror<'m> for Ranges {
    type Model = model::Ranges;

    fn to_wire(value: &'m Self::Model, _: &mut Writing<'m>) -> Self {
        Self(value.pairs().to_vec())
    }

    fn from_wire(archived: &ArchivedRanges, _: &Reading<'_>) -> Result<Self::Model, WireError> {
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
pub(crate) struct Items<'m>(Vec<Text<'m>>);

impl<'m> Mirror<'m> for Items<'m> {
    type Model = BTreeSet<std::sync::Arc<str>>;

    fn to_wire(value: &'m Self::Model, names: &mut Writing<'m>) -> Self {
        Self(value.iter().map(|item| Text::to_wire(item, names)).collect())
    }

    fn from_wire(archived: &Self::Archived, names: &Reading<'_>) -> Result<Self::Model, WireError> {
        if archived.0.len() > RESOURCE_ITEMS_MAX {
            return Err(WireError::BadValue { what: "set", why: "more items than are allowed in one value" });
        }
        archived.0.iter().map(|item| Text::from_wire(item, names)).collect()
    }
}

mirror_enum!(Value<'m>, ArchivedValue = muster_model::resource::Value {
    Scalar(amount: Milli),
    Ranges(ranges: Ranges),
    Set(items: Items<'m>),
});

mirror_struct!(Resource<'m>, ArchivedResource = muster_model::resource::Resource {
    key: ResourceKey<'m>,
    value: Value<'m>,
});

/// Entries in order of their keys.
#[derive(Archive, Serialize)]
pub(crate) struct Resources<'m>(Vec<Resource<'m>>);

impl<'m> Mirror<'m> for Resources<'m> {
    type Model = model::Resources;

    fn to_wire(value: &'m Self::Model, names: &mut Writing<'m>) -> Self {
        Self(value.iter().map(|entry| Resource::to_wire(entry, names)).collect())
    }

    fn from_wire(archived: &Self::Archived, names: &Reading<'_>) -> Result<Self::Model, WireError> {
        let refused = |why| WireError::BadValue { what: "resources", why };
        if archived.0.len() > RESOURCE_ENTRIES_MAX {
            return Err(refused("more entries than are allowed in one amount"));
        }
        if archived.0.iter().any(|entry| entry.key.reservations.len() > RESERVATIONS_MAX) {
            return Err(refused("a reservation stack is deeper than allowed"));
        }
        let mut sum = model::Resources::new();
        for entry in archived.0.iter() {
            sum.add_entry(Resource::from_wire(entry, names)?)?;
        }
        if sum.iter().len() != archived.0.len() {
            return Err(refused("an entry is empty or stands there twice"));
        }
        Ok(sum)
    }
}

mirror_enum!(AttributeValue<'m>, ArchivedAttributeValue = muster_model::attribute::AttributeValue {
    Scalar(thousandths: i64),
    Ranges(ranges: Ranges),
    Text(text: Text<'m>),
});

mirror_struct!(Attribute<'m>, ArchivedAttribute = muster_model::attribute::Attribute {
    name: Text<'m>,
    value: AttributeValue<'m>,
});
