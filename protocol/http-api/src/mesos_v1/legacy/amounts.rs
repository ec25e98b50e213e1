//! Amounts as the older endpoints write them: `{"disk":..,"mem":..,"gpus":..,"cpus":..}` and one member per other name.

use muster_model::Milli;
use muster_model::attribute::{Attribute, AttributeValue};
use muster_model::resource::{Resource, ResourceKey, ResourceName, Resources, Value};

use crate::json::write;
use crate::mesos_v1::picture::ByRole;
use crate::mesos_v1::resource::{scalar_to_wire, signed_thousandths};

/// Writes `"key":`; the value and its comma follow.
pub(super) fn key(out: &mut Vec<u8>, key: &str) {
    out.push(b'"');
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
}

pub(super) fn text(out: &mut Vec<u8>, name: &str, value: &str) {
    key(out, name);
    write::string(out, value);
    out.push(b',');
}

pub(super) fn number(out: &mut Vec<u8>, name: &str, value: f64) {
    key(out, name);
    write::number(out, value);
    out.push(b',');
}

pub(super) fn count(out: &mut Vec<u8>, name: &str, value: u64) {
    key(out, name);
    write::whole(out, value.into());
    out.push(b',');
}

pub(super) fn boolean(out: &mut Vec<u8>, name: &str, value: bool) {
    key(out, name);
    out.extend_from_slice(if value { b"true," } else { b"false," });
}

/// Writes a list; an empty one as `[]`.
pub(super) fn list<T>(
    out: &mut Vec<u8>,
    name: &str,
    items: impl IntoIterator<Item = T>,
    mut item: impl FnMut(&mut Vec<u8>, T),
) {
    key(out, name);
    out.push(b'[');
    for value in items {
        item(out, value);
        out.push(b',');
    }
    write::close_list(out);
    out.push(b',');
}

/// Reserved and unreserved amounts of all roles, added up by name.
pub(super) fn total(sums: Option<&ByRole>) -> Resources {
    flat(sums.into_iter().flat_map(|sums| sums.values()))
}

/// Amounts without their reservations, added up by name.
pub(super) fn flat<'a>(parts: impl IntoIterator<Item = &'a Resources>) -> Resources {
    let mut sum = Resources::new();
    for entry in parts.into_iter().flat_map(Resources::iter) {
        let key = ResourceKey {
            name: entry.key.name.clone(),
            reservations: Vec::new(),
            is_revocable: entry.key.is_revocable,
        };
        // Two agents may use the same port: such an overlap adds nothing to a figure that people read.
        let _ = sum.add_entry(Resource { key, value: entry.value.clone() });
    }
    sum
}

/// Writes an object of amounts; `resources` is flat.
pub(super) fn amounts(out: &mut Vec<u8>, name: &str, resources: &Resources) {
    key(out, name);
    amounts_object(out, resources);
    out.push(b',');
}

/// The object of [`amounts`] alone.
pub(super) fn amounts_object(out: &mut Vec<u8>, resources: &Resources) {
    // In the order of Mesos; clients take members by name.
    const ALWAYS: [ResourceName; 4] = [ResourceName::Disk, ResourceName::Mem, ResourceName::Gpus, ResourceName::Cpus];
    out.push(b'{');
    for name in &ALWAYS {
        let amount = match resources.get(&ResourceKey::unreserved(name.clone())) {
            Some(Value::Scalar(amount)) => *amount,
            _ => Milli::ZERO,
        };
        number(out, name.as_str(), scalar_to_wire(amount));
    }
    for entry in resources.iter() {
        if !entry.key.is_revocable && ALWAYS.contains(&entry.key.name) {
            continue;
        }
        let name = entry.key.name.as_str();
        let suffix = if entry.key.is_revocable { "_revocable" } else { "" };
        write::string(out, &format!("{name}{suffix}"));
        out.push(b':');
        match &entry.value {
            Value::Scalar(amount) => write::number(out, scalar_to_wire(*amount)),
            other => write::string(out, &other.to_string()),
        }
        out.push(b',');
    }
    write::close_object(out);
}

/// Writes `{"cpus":1.0,...}` with only the names that are there; ranges and sets count their elements.
pub(super) fn quantities<'a>(out: &mut Vec<u8>, name: &str, parts: impl IntoIterator<Item = &'a Resources>) {
    key(out, name);
    quantities_object(out, &quantities_of(parts));
    out.push(b',');
}

/// Amounts by name; ranges and sets count their elements.
pub(super) fn quantities_of<'a>(
    parts: impl IntoIterator<Item = &'a Resources>,
) -> std::collections::BTreeMap<String, Milli> {
    let mut sums = std::collections::BTreeMap::new();
    for entry in parts.into_iter().flat_map(Resources::iter) {
        let amount = match &entry.value {
            Value::Scalar(amount) => *amount,
            Value::Ranges(ranges) => Milli::whole(ranges.count()),
            Value::Set(items) => Milli::whole(u64::try_from(items.len()).unwrap_or(u64::MAX)),
        };
        let sum: &mut Milli = sums.entry(entry.key.name.as_str().to_owned()).or_default();
        *sum = sum.plus(amount);
    }
    sums
}

/// The object of [`quantities`] alone.
pub(super) fn quantities_object(out: &mut Vec<u8>, sums: &std::collections::BTreeMap<String, Milli>) {
    out.push(b'{');
    for (name, amount) in sums {
        write::string(out, name);
        out.push(b':');
        write::number(out, scalar_to_wire(*amount));
        out.push(b',');
    }
    write::close_object(out);
}

/// Writes `"attributes":{..}`; of several attributes of one name the last stays, as in Mesos.
pub(super) fn attributes(out: &mut Vec<u8>, attributes: &[Attribute]) {
    key(out, "attributes");
    out.push(b'{');
    for attribute in attributes {
        write::string(out, &attribute.name);
        out.push(b':');
        match &attribute.value {
            AttributeValue::Scalar(thousandths) => write::number(out, signed_thousandths(*thousandths)),
            AttributeValue::Ranges(ranges) => write::string(out, &ranges.to_string()),
            AttributeValue::Text(text) => write::string(out, text),
        }
        out.push(b',');
    }
    write::close_object(out);
    out.push(b',');
}
