//! Who may join, under which id, and by which transaction.

use crate::world::*;
use muster_model::record::*;
use muster_model::store_op::{Key, Stored, Write};
use muster_model::*;
use muster_owner_engine::admission::*;

const NOW: WallTime = WallTime(10_000_000);

fn cluster() -> Stored {
    let record = ClusterRecord {
        id: uuid(0xab),
        name: "c".into(),
        generation: 1,
        shard_count: 256,
        created: WallTime(0),
        next_agent: 7,
        next_framework: 0,
    };
    Stored { key: Key::Cluster, revision: 3, record: Record::Cluster(record) }
}

fn token(uses_left: Option<u32>, expires: Option<WallTime>, is_revoked: bool) -> Stored {
    let record = TokenRecord { name: "edge".into(), uses_left, expires, created: WallTime(0), is_revoked };
    Stored { key: Key::Token("hash".into()), revision: 4, record: Record::Token(record) }
}

fn facts() -> JoinFacts {
    JoinFacts { nonce: uuid(1), info: info(total()) }
}

#[test]
fn a_token_admits_or_says_what_to_do() {
    let name: alloc::sync::Arc<str> = "edge".into();
    for (case, token, expected) in [
        ("any number", Some(token(None, None, false)), None),
        ("one left", Some(token(Some(1), Some(WallTime(10_000_001)), false)), None),
        ("unknown", None, Some(AdmissionRefusal::UnknownToken)),
        ("revoked", Some(token(None, None, true)), Some(AdmissionRefusal::TokenRevoked { name: name.clone() })),
        ("used up", Some(token(Some(0), None, false)), Some(AdmissionRefusal::TokenUsedUp { name: name.clone() })),
        (
            "expired",
            Some(token(None, Some(WallTime(4_000_000)), false)),
            Some(AdmissionRefusal::TokenExpired { name, age_secs: 6 }),
        ),
        ("not a token", Some(cluster()), Some(AdmissionRefusal::WrongRecord { expected: "join token" })),
    ] {
        let cluster = cluster();
        let records = JoinRecords { cluster: &cluster, token: token.as_ref(), same_nonce: None };
        let result = plan_admission(&facts(), records, NOW);
        assert_eq!(result.as_ref().err(), expected.as_ref(), "case: {case}");
        if let Some(refusal) = expected {
            assert_eq!(refusal.may_retry(), case == "not a token", "case: {case}");
        }
    }
}

#[test]
fn the_transaction_uses_the_token_and_the_number_up() {
    let (cluster, token) = (cluster(), token(Some(2), None, false));
    let plan = plan_admission(&facts(), JoinRecords { cluster: &cluster, token: Some(&token), same_nonce: None }, NOW)
        .unwrap();
    assert_eq!(plan.agent_id.as_str(), "abababab-abab-abab-abab-abababababab-S7");
    assert_eq!((plan.is_new, plan.shard), (true, ShardId::of(&plan.agent_id, 256)));
    let op = plan.store_op([9; 32]);
    let compares: Vec<_> = op.compares.iter().map(|c| (c.key.path(), c.revision)).collect();
    assert_eq!(
        compares,
        [("tokens/hash".into(), Some(4)), ("cluster".into(), Some(3)), (format!("agents/{}", plan.agent_id), None)]
    );
    let [Write::Put(_, Record::Cluster(next)), Write::Put(_, Record::Token(left)), Write::Put(_, Record::Agent(agent))] =
        &op.writes[..]
    else {
        panic!("{op:?}")
    };
    assert_eq!((next.next_agent, left.uses_left), (8, Some(1)));
    assert_eq!((agent.certificate, agent.join_nonce, agent.admission), ([9; 32], uuid(1), Admission::Active));
}

#[test]
fn the_same_request_gets_the_same_id_even_when_the_token_is_used_up() {
    let (cluster, token) = (cluster(), token(Some(0), Some(WallTime(1)), false));
    let same = stored(record(&aid("x-S1")), 12);
    let records = JoinRecords { cluster: &cluster, token: Some(&token), same_nonce: Some(&same) };
    let plan = plan_admission(&facts(), records, NOW).unwrap();
    assert_eq!((plan.agent_id.as_str(), plan.is_new), ("x-S1", false));
    let op = plan.store_op([9; 32]);
    assert_eq!((op.compares.len(), op.compares[1].revision, op.writes.len()), (2, Some(12), 1));
    // Not for one that may not come back, nor with a nonce that is not its own.
    for (case, barred) in [
        ("revoked", AgentRecord { is_revoked: true, ..record(&aid("x-S1")) }),
        ("gone", AgentRecord { admission: Admission::Gone { since: WallTime(1) }, ..record(&aid("x-S1")) }),
        ("other nonce", AgentRecord { join_nonce: uuid(2), ..record(&aid("x-S1")) }),
    ] {
        let same = stored(barred, 12);
        let records = JoinRecords { cluster: &cluster, token: Some(&token), same_nonce: Some(&same) };
        let refusal = plan_admission(&facts(), records, NOW).unwrap_err();
        assert!(matches!(refusal, AdmissionRefusal::AgentBarred { .. }), "case: {case}");
        assert!(refusal.to_string().contains("join again"), "case: {case}");
    }
}
