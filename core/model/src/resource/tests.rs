//! What may be added to amounts and taken away.

use super::*;
use alloc::string::ToString;

fn ports(pairs: &[(u64, u64)]) -> Resources {
    Resources::collect([Resource {
        key: ResourceKey::unreserved(ResourceName::Ports),
        value: Value::Ranges(Ranges::new(pairs.iter().copied()).unwrap()),
    }])
    .unwrap()
}

#[test]
fn ranges_lose_exactly_what_is_taken() {
    for (name, held, taken, rest) in [
        ("middle", &[(1, 10)][..], &[(4, 6)][..], "ports:[1-3, 7-10]"),
        ("edges", &[(1, 10)], &[(1, 1), (10, 10)], "ports:[2-9]"),
        ("all", &[(1, 10)], &[(1, 10)], "nothing"),
        ("two ranges", &[(1, 3), (7, 9)], &[(2, 2), (8, 8)], "ports:[1-1, 3-3, 7-7, 9-9]"),
    ] {
        let mut have = ports(held);
        have.subtract(&ports(taken)).unwrap();
        assert_eq!(have.to_string(), rest, "case: {name}");
    }
}

#[test]
fn taking_more_than_there_is_changes_nothing() {
    let mut have = Resources::basic(Milli(1000), Milli(1000), Milli(0));
    let before = have.clone();
    let needed = Resources::basic(Milli(500), Milli(1001), Milli(0));
    assert!(matches!(have.subtract(&needed), Err(ResourceError::NotEnough { name: ResourceName::Mem, .. })));
    assert_eq!(have, before);
    assert!(!have.contains(&needed));
}

#[test]
fn clones_that_share_entries_change_alone() {
    let mut have = Resources::basic(Milli(3000), Milli(1000), Milli(0));
    for shared in [true, false] {
        let before = shared.then(|| have.clone());
        have.subtract(&Resources::basic(Milli(1000), Milli(0), Milli(0))).unwrap();
        have.add(&Resources::basic(Milli(0), Milli(5), Milli(0))).unwrap();
        if let Some(before) = before {
            assert_eq!(before, Resources::basic(Milli(3000), Milli(1000), Milli(0)));
        }
    }
    assert_eq!(have, Resources::basic(Milli(1000), Milli(1010), Milli(0)));
    // Not in place: what is used up is no entry any more, and what is new becomes one.
    have.subtract(&Resources::basic(Milli(1000), Milli(0), Milli(0))).unwrap();
    have.add(&Resources::basic(Milli(0), Milli(0), Milli(7))).unwrap();
    assert_eq!(have, Resources::basic(Milli(0), Milli(1010), Milli(7)));
    assert_eq!(have.iter().count(), 2);
    assert!(have.subtract(&Resources::basic(Milli(0), Milli(1), Milli(8))).is_err());
    assert_eq!(have, Resources::basic(Milli(0), Milli(1010), Milli(7)), "nothing half done");
}

#[test]
fn a_port_is_never_added_twice() {
    let mut have = ports(&[(1, 5)]);
    assert!(matches!(have.add(&ports(&[(5, 6)])), Err(ResourceError::Overlap { .. })));
    assert_eq!(have, ports(&[(1, 5)]));
    have.add(&ports(&[(6, 7)])).unwrap();
    assert_eq!(have, ports(&[(1, 7)]));
}

#[test]
fn reserved_and_unreserved_amounts_stay_apart() {
    let role = Role::parse("eng").unwrap();
    let reserved = ResourceKey {
        name: ResourceName::Cpus,
        reservations: alloc::vec![Reservation {
            kind: ReservationKind::Static,
            role: role.clone(),
            principal: None,
            labels: Vec::new()
        }],
        is_revocable: false,
    };
    let mut have = Resources::basic(Milli(1000), Milli(0), Milli(0));
    have.add_entry(Resource { key: reserved.clone(), value: Value::Scalar(Milli(2000)) }).unwrap();
    assert_eq!(have.to_string(), "cpus:1; cpus(eng):2");
    assert_eq!(have.scalar(&ResourceName::Cpus), Milli(3000));
    assert!(have.subtract(&Resources::basic(Milli(1500), Milli(0), Milli(0))).is_err());
    assert!(reserved.is_usable_by(&Role::parse("eng/web").unwrap()));
    assert!(!reserved.is_usable_by(&Role::star()));
}
