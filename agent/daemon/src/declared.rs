//! What the operator declares in text: `cpus:4;mem:4096;ports:[31000-32000]` and `rack:r1;zone:[1-3]`.
//!
//! The grammar is that of Mesos's `--resources` and `--attributes` (docs/attributes-resources.md).

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_model::attribute::{Attribute, AttributeValue};
use muster_model::resource::{
    Ranges, Reservation, ReservationKind, Resource, ResourceKey, ResourceName, Resources, Value,
};
use muster_model::{Milli, Role};

/// Why a declaration was refused. One per part, so that all faults can be shown at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeclaredError {
    /// A part has no colon.
    #[error("`{part}` has no value; write NAME:VALUE")]
    NoValue {
        /// The part.
        part: String,
    },
    /// The role in parentheses is not one.
    #[error("`{part}` names no usable role; write NAME(ROLE):VALUE")]
    Role {
        /// The part.
        part: String,
    },
    /// The value is neither number, ranges nor set.
    #[error(
        "`{part}` has no usable value; write a number with at most three decimals, ranges such as [31000-32000] or a set such as {{a,b}}"
    )]
    Value {
        /// The part.
        part: String,
    },
    /// A well-known resource has a value of another kind.
    #[error("`{part}` must be {wanted}")]
    Kind {
        /// The part.
        part: String,
        /// What it must be.
        wanted: &'static str,
    },
    /// Sets are no attribute values.
    #[error("`{part}` is a set; attributes are numbers, ranges or text")]
    Set {
        /// The part.
        part: String,
    },
}

/// Parses declared resources. Names that are absent are detected by the caller.
///
/// Errors: every part that is wrong.
pub fn parse_resources(text: &str) -> Result<Resources, Vec<DeclaredError>> {
    let (mut resources, mut faults) = (Resources::default(), Vec::new());
    for part in parts_of(text) {
        match parse_resource(part) {
            // The only way to fail is two kinds of value under one name.
            Ok(resource) => {
                if resources.add_entry(resource).is_err() {
                    faults.push(DeclaredError::Kind {
                        part: part.to_owned(),
                        wanted: "of the same kind as the part before",
                    });
                }
            }
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() { Ok(resources) } else { Err(faults) }
}

/// Parses attributes, kept in the order declared.
///
/// Errors: every part that is wrong.
pub fn parse_attributes(text: &str) -> Result<Vec<Attribute>, Vec<DeclaredError>> {
    let (mut attributes, mut faults) = (Vec::new(), Vec::new());
    for part in parts_of(text) {
        match parse_attribute(part) {
            Ok(attribute) => attributes.push(attribute),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() { Ok(attributes) } else { Err(faults) }
}

/// Adds what was detected for each of cpus, mem, disk and ports that was not declared.
pub fn with_detected(declared: &Resources, cpus: u64, mem_mib: u64, disk_mib: u64) -> Resources {
    let mut all = declared.clone();
    let has = |name: &ResourceName| declared.iter().any(|resource| resource.key.name == *name);
    let scalars = [(ResourceName::Cpus, cpus), (ResourceName::Mem, mem_mib), (ResourceName::Disk, disk_mib)].map(
        |(name, amount)| Resource { key: ResourceKey::unreserved(name), value: Value::Scalar(Milli::whole(amount)) },
    );
    let ports = Ranges::new([(31_000, 32_000)]).unwrap_or_default();
    let ports = Resource { key: ResourceKey::unreserved(ResourceName::Ports), value: Value::Ranges(ports) };
    for resource in scalars.into_iter().chain([ports]) {
        if !has(&resource.key.name) {
            // The name is new, so its kind cannot clash; an amount of nothing is left out.
            let _never_refused = all.add_entry(resource);
        }
    }
    all
}

fn parts_of(text: &str) -> impl Iterator<Item = &str> {
    text.split([';', '\n']).map(str::trim).filter(|part| !part.is_empty())
}

fn parse_resource(part: &str) -> Result<Resource, DeclaredError> {
    let (name, value) = part.split_once(':').ok_or_else(|| DeclaredError::NoValue { part: part.to_owned() })?;
    let (name, role) = match name.trim().strip_suffix(')') {
        None => (name.trim(), None),
        Some(open) => {
            let role_fault = || DeclaredError::Role { part: part.to_owned() };
            let (name, role) = open.split_once('(').ok_or_else(role_fault)?;
            let role = Role::parse(role.trim()).map_err(|_| role_fault())?;
            (name.trim(), (role != Role::star()).then_some(role))
        }
    };
    if name.is_empty() {
        return Err(DeclaredError::NoValue { part: part.to_owned() });
    }
    let name = ResourceName::new(name);
    let value = parse_value(value.trim()).ok_or_else(|| DeclaredError::Value { part: part.to_owned() })?;
    let wanted = match (&name, &value) {
        (ResourceName::Ports, Value::Ranges(_)) => None,
        (ResourceName::Ports, _) => Some("ranges, such as ports:[31000-32000]"),
        (ResourceName::Cpus | ResourceName::Mem | ResourceName::Disk | ResourceName::Gpus, Value::Scalar(_)) => None,
        (ResourceName::Cpus | ResourceName::Mem | ResourceName::Disk | ResourceName::Gpus, _) => Some("a number"),
        (ResourceName::Other(_), _) => None,
    };
    if let Some(wanted) = wanted {
        return Err(DeclaredError::Kind { part: part.to_owned(), wanted });
    }
    let mut key = ResourceKey::unreserved(name);
    if let Some(role) = role {
        key.reservations.push(Reservation { kind: ReservationKind::Static, role, principal: None, labels: Vec::new() });
    }
    Ok(Resource { key, value })
}

fn parse_attribute(part: &str) -> Result<Attribute, DeclaredError> {
    let (name, value) = part.split_once(':').ok_or_else(|| DeclaredError::NoValue { part: part.to_owned() })?;
    let (name, value) = (name.trim(), value.trim());
    if name.is_empty() || value.is_empty() {
        return Err(DeclaredError::NoValue { part: part.to_owned() });
    }
    let value = if value.starts_with('{') {
        return Err(DeclaredError::Set { part: part.to_owned() });
    } else if value.starts_with('[') {
        let ranges = parse_ranges(value).ok_or_else(|| DeclaredError::Value { part: part.to_owned() })?;
        AttributeValue::Ranges(ranges)
    } else if let Some(scalar) = parse_signed_milli(value) {
        AttributeValue::Scalar(scalar)
    } else {
        AttributeValue::Text(Arc::from(value))
    };
    Ok(Attribute { name: Arc::from(name), value })
}

fn parse_value(text: &str) -> Option<Value> {
    if text.starts_with('[') {
        parse_ranges(text).map(Value::Ranges)
    } else if let Some(inner) = text.strip_prefix('{') {
        let items: BTreeSet<Arc<str>> =
            inner.strip_suffix('}')?.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Arc::from).collect();
        Some(Value::Set(items))
    } else {
        parse_milli(text).map(Value::Scalar)
    }
}

fn parse_ranges(text: &str) -> Option<Ranges> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let parts = inner.split(',').map(str::trim).filter(|part| !part.is_empty());
    let pairs: Option<Vec<(u64, u64)>> = parts
        .map(|part| {
            let (begin, end) = part.split_once('-')?;
            Some((begin.trim().parse().ok()?, end.trim().parse().ok()?))
        })
        .collect();
    Ranges::new(pairs?)
}

/// `4`, `0.5`, `.25`: up to three decimals, exactly.
fn parse_milli(text: &str) -> Option<Milli> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && decimals.is_empty()) || !is_number(whole) || !is_number(decimals) {
        return None;
    }
    let decimals = decimals.trim_end_matches('0');
    if decimals.len() > 3 {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let thousandths: u64 = format!("{decimals:0<3}").parse().ok()?;
    whole.checked_mul(1000)?.checked_add(thousandths).map(Milli)
}

fn parse_signed_milli(text: &str) -> Option<i64> {
    match text.strip_prefix('-') {
        Some(positive) => i64::try_from(parse_milli(positive)?.0).ok()?.checked_neg(),
        None => i64::try_from(parse_milli(text)?.0).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_read_as_mesos_reads_them() {
        let text = "cpus:4; mem(eng):1024.5 ;ports:[31000-31001, 31002-31009];disks:{a,b};\ncpus:0.5";
        let resources = parse_resources(text).unwrap();
        assert_eq!(resources.scalar(&ResourceName::Cpus), Milli(4500));
        let printed = resources.to_string();
        for piece in ["31000-31009", "1024.5", "eng"] {
            assert!(printed.contains(piece), "{printed}");
        }
        assert!(parse_resources("").unwrap().is_empty());
    }

    #[test]
    fn every_fault_is_named() {
        let faults =
            parse_resources("cpus;cpus:x;mem:1.2345;ports:5;cpus:[1-2];mem(a b):1;:3;mem:-1;ports:[9-1]").unwrap_err();
        assert_eq!(faults.len(), 9, "{faults:?}");
        assert!(faults[2].to_string().contains("`mem:1.2345`"), "{}", faults[2]);
        assert_eq!(
            faults[3],
            DeclaredError::Kind { part: "ports:5".into(), wanted: "ranges, such as ports:[31000-32000]" }
        );
    }

    #[test]
    fn what_is_not_declared_is_detected() {
        let declared = parse_resources("cpus:1;mem(eng):64").unwrap();
        let all = with_detected(&declared, 8, 1000, 2000);
        assert_eq!(all.scalar(&ResourceName::Cpus), Milli::whole(1));
        assert!(
            all.get(&ResourceKey::unreserved(ResourceName::Mem)).is_none(),
            "declared for a role counts as declared"
        );
        assert_eq!(all.get(&ResourceKey::unreserved(ResourceName::Disk)), Some(&Value::Scalar(Milli::whole(2000))));
        assert!(all.to_string().contains("31000-32000"));
    }

    #[test]
    fn attributes_keep_order_and_kind() {
        let attributes = parse_attributes("rack:r1;level:-1.5;zone:[1-3];rack:r2;url:a:b").unwrap();
        let values: Vec<_> = attributes.iter().map(|attribute| (&*attribute.name, &attribute.value)).collect();
        assert_eq!(values[0], ("rack", &AttributeValue::Text("r1".into())));
        assert_eq!(values[1], ("level", &AttributeValue::Scalar(-1500)));
        assert!(matches!(values[2], ("zone", AttributeValue::Ranges(_))));
        assert_eq!(values[4], ("url", &AttributeValue::Text("a:b".into())));
        assert_eq!(parse_attributes("a;b:{x};:c;d:").unwrap_err().len(), 4);
    }
}
