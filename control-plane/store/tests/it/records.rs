//! Records: every kind comes back as it went in, and no mutation of its bytes is believed blindly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_model::agent::AgentInfo;
use muster_model::attribute::{Attribute, AttributeValue};
use muster_model::fence::Fence;
use muster_model::framework::{Capabilities, FrameworkInfo};
use muster_model::record::{
    Admission, AgentRecord, ClusterRecord, FrameworkRecord, NodeRecord, PartRecord, Record, RoleRecord, TokenRecord,
    TombstoneRecord,
};
use muster_model::resource::{
    Ranges, Reservation, ReservationKind, Resource, ResourceKey, ResourceName, Resources, Value,
};
use muster_model::{AgentId, Duration, FrameworkId, Milli, NodeId, Role, Uuid, WallTime};
use muster_store::record::{RecordError, decode, encode};

fn part() -> PartRecord {
    PartRecord {
        node: NodeId::parse("n1").unwrap(),
        fence: Fence { generation: 1, epoch: 2, incarnation: u64::MAX },
        since: WallTime(4),
        why: Arc::from("it started"),
    }
}

fn info() -> Arc<FrameworkInfo> {
    let amounts = BTreeMap::from([(ResourceName::Cpus, Milli(100)), (ResourceName::new("x"), Milli(5))]);
    Arc::new(FrameworkInfo {
        id: FrameworkId::parse("c-0001").unwrap(),
        name: Arc::from("jobs"),
        user: Arc::from("root"),
        roles: BTreeSet::from([Role::star(), Role::parse("a/b").unwrap()]),
        capabilities: Capabilities {
            partition_aware: true,
            multi_role: true,
            region_aware: true,
            ..Default::default()
        },
        failover_timeout: Duration::from_secs(3600),
        is_checkpointing: true,
        principal: Some(Arc::from("p")),
        min_allocatable: BTreeMap::from([(Role::star(), vec![amounts, BTreeMap::new()])]),
        spec: Arc::from(&b"\x0a\x01x"[..]),
    })
}

fn agent(admission: Admission) -> Record {
    let reservation = Reservation {
        kind: ReservationKind::Dynamic,
        role: Role::parse("a").unwrap(),
        principal: Some(Arc::from("p")),
        labels: vec![(Arc::from("k"), None), (Arc::from("l"), Some(Arc::from("v")))],
    };
    let scalar = |name, milli| Resource { key: ResourceKey::unreserved(name), value: Value::Scalar(Milli(milli)) };
    let total = [
        scalar(ResourceName::Cpus, 2500),
        Resource {
            key: ResourceKey { name: ResourceName::Mem, reservations: vec![reservation], is_revocable: true },
            value: Value::Scalar(Milli(1)),
        },
        Resource {
            key: ResourceKey::unreserved(ResourceName::Ports),
            value: Value::Ranges(Ranges::new([(31000, 32000), (1, 2)]).unwrap()),
        },
        Resource {
            key: ResourceKey::unreserved(ResourceName::new("licences")),
            value: Value::Set(BTreeSet::from([Arc::from("a"), Arc::from("b")])),
        },
    ];
    let attribute = |name: &str, value| Attribute { name: Arc::from(name), value };
    Record::Agent(AgentRecord {
        id: AgentId::parse("c-S7").unwrap(),
        certificate: [7; 32],
        join_nonce: Uuid([9; 16]),
        info: Arc::new(AgentInfo {
            hostname: Arc::from("edge-7"),
            ip: Arc::from("10.0.0.7"),
            port: 5051,
            total: Resources::collect(total).unwrap(),
            attributes: vec![
                attribute("rack", AttributeValue::Text(Arc::from("r1"))),
                attribute("level", AttributeValue::Scalar(-1500)),
                attribute("slots", AttributeValue::Ranges(Ranges::new([(1, 4)]).unwrap())),
            ],
            version: Arc::from("0.1.0"),
            missing_isolation: vec![Arc::from("memory: no controller")],
        }),
        admission,
        is_deactivated: true,
        is_revoked: false,
        admitted: WallTime(11),
        ratchet_token: Some(Uuid([1; 16])),
    })
}

fn all() -> Vec<Record> {
    vec![
        Record::Cluster(ClusterRecord {
            id: Uuid([3; 16]),
            name: Arc::from("muster"),
            generation: 1,
            shard_count: 256,
            created: WallTime(1),
            next_agent: 7,
            next_framework: u64::MAX,
        }),
        Record::Authority(Arc::from(&b"sealed"[..])),
        Record::Part(part()),
        agent(Admission::Active),
        agent(Admission::Unreachable { since: WallTime(5) }),
        agent(Admission::Gone { since: WallTime(6) }),
        Record::Framework(FrameworkRecord {
            info: info(),
            home: part(),
            registered: WallTime(1),
            reregistered: Some(WallTime(2)),
            failover_deadline: Some(WallTime(3)),
        }),
        Record::Tombstone(TombstoneRecord {
            info: info(),
            registered: WallTime(1),
            removed: WallTime(2),
            why: Arc::from("teardown"),
        }),
        Record::Token(TokenRecord {
            name: Arc::from("first"),
            uses_left: None,
            expires: Some(WallTime(9)),
            created: WallTime(8),
            is_revoked: true,
        }),
        Record::Role(RoleRecord { weight: Milli(2500) }),
        Record::Node(NodeRecord {
            name: NodeId::parse("node-2").unwrap(),
            http: Arc::from("10.0.0.2:5050"),
            quic: Arc::from("[fd00::2]:5055"),
            probe: Arc::from("[fd00::2]:5056"),
            incarnation: u64::MAX,
            node_tag: 2,
            capacity: 100,
            started: WallTime(12),
        }),
    ]
}

#[test]
fn every_record_comes_back_as_it_went_in() {
    for record in all() {
        assert_eq!(decode(&encode(&record).unwrap()).as_ref(), Ok(&record), "case: {record:?}");
    }
}

/// Bytes of format 1. A change of these breaks every store that exists.
#[test]
fn bytes_of_format_1_stay_readable() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/records-1.txt");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let now: String = all().iter().map(|record| format!("{}\n", hex(&encode(record).unwrap()))).collect();
    if std::env::var_os("MUSTER_UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    for (line, record) in golden.lines().zip(all()) {
        let bytes: Vec<u8> =
            (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect();
        assert_eq!(decode(&bytes), Ok(record));
    }
    assert_eq!(golden.lines().count(), all().len());
}

#[test]
fn bytes_that_are_no_record_are_refused() {
    for (name, bytes, expected) in [
        ("empty", &[][..], "shorter than its head"),
        ("head only", &[1], "shorter than its head"),
        ("newer format", &[2, 1, 0, 0], "format 2 is newer"),
        ("unknown kind", &[1, 99, 0], "format 1 and kind 99"),
        ("no body", &[1, 3], "damaged"),
    ] {
        let error = decode(bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "case: {name}: {error}");
    }
    let long = vec![1; 2_000_000];
    assert_eq!(decode(&long), Err(RecordError::TooLarge { len: 1_999_998 }));
}

/// Deterministic mutations: the same ones in every run, about 100,000 in all.
#[test]
fn no_mutation_of_a_record_panics() {
    let mut state = 0x5eed_0042_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap()
    };
    for record in all() {
        let good = encode(&record).unwrap();
        for length in 0..good.len() {
            let _ = decode(&good[..length]);
        }
        for _ in 0..10_000 {
            let mut bytes = good.clone();
            for _ in 0..=next() % 3 {
                let at = next() % bytes.len();
                bytes[at] = u8::try_from(next() % 256).unwrap();
            }
            let _ = decode(&bytes);
        }
    }
}
