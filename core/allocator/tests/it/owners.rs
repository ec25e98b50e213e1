//! Owners and homes that change, or that can't be reached for a while.

use crate::world::*;
use muster_allocator::io::{Input, Output};
use muster_model::fence::Fence;
use muster_model::node_message::{AgentBook, NodeMessage, Target, ToAllocator, ToHome, ToOwner};
use muster_model::offer::RescindReason;
use muster_model::{NodeId, ShardId};

const SECOND: u64 = 1000;

fn book_of(id: &str, shard: u16, epoch: u64) -> AgentBook {
    AgentBook { shard: (ShardId(shard), fence(epoch)), ..book(id, "cpus:4 mem:100") }
}

/// One agent in shard 1 under fence 1, one in shard 2; all of both offered to `f`.
fn offered() -> World {
    let mut world = World::new(1, Vec::new());
    let mut first = book_of("S1", 1, 1);
    first.used = vec![(framework_id("g"), role("*"), resources("cpus:1"))];
    world.tell(ToAllocator::Agent(first));
    world.tell(ToAllocator::Agent(book_of("S2", 2, 1)));
    world.tell(demand(framework("f", &["*"])));
    assert_eq!(world.run_at(0).len(), 2);
    world
}

fn lose(shards: &[u16], reason: RescindReason) -> Input {
    Input::ShardsLost { shards: shards.iter().copied().map(ShardId).collect(), reason }
}

fn allocated(world: &World) -> String {
    world.engine.view().roles[&role("*")].allocated.to_string()
}

#[test]
fn offers_of_a_lost_shard_are_rescinded_and_none_are_made_until_its_owner_speaks() {
    let mut world = offered();
    let lost = world.offers()[0].grant.clone();
    assert_eq!(lost.agent_id, agent_id("S1"));
    world.outputs.clear();
    world.input(lose(&[1, 77], RescindReason::OwnerLost));
    assert_eq!(rescinds(&world.outputs), [(lost.offer_id, RescindReason::OwnerLost)]);
    assert!(revokes(&world.outputs).is_empty(), "there is nobody to ask");
    assert_eq!(allocated(&world), "cpus:1", "its use stays charged");
    assert!(world.run_at(5 * SECOND).is_empty());
    // The same again changes nothing.
    world.input(lose(&[1], RescindReason::OwnerLost));
    assert!(world.outputs.is_empty());
    // The new owner's book: what is free there is offered at once.
    world.tell(ToAllocator::Agent(book_of("S1", 1, 2)));
    assert_eq!(revokes(&world.outputs), [lost.offer_id], "should it still be on its way");
    assert_eq!(allocated(&world), "nothing");
    let made = world.run_at(5 * SECOND);
    assert_eq!(made.len(), 1);
    assert_eq!((made[0].1.as_str(), made[0].3.as_str()), ("S1", "cpus:4; mem:100"));
}

#[test]
fn what_a_deposed_owner_says_late_changes_nothing() {
    let is_inactive = |epoch| AgentBook { is_active: false, ..book_of("S1", 1, epoch) };
    let uses_all = |epoch| AgentBook {
        used: vec![(framework_id("g"), role("*"), resources("cpus:4"))],
        ..book_of("S1", 1, epoch)
    };
    for (name, late) in [
        ("a book that uses all", ToAllocator::Agent(uses_all(1))),
        ("a book without a session", ToAllocator::Agent(is_inactive(1))),
        ("a book of another agent", ToAllocator::Agent(book_of("S9", 1, 1))),
    ] {
        let mut world = offered();
        world.input(lose(&[1], RescindReason::OwnerLost));
        world.tell(ToAllocator::Agent(book_of("S1", 1, 2)));
        world.tell(late);
        let made = world.run_at(SECOND);
        assert_eq!(made.len(), 1, "case: {name}");
        assert_eq!((made[0].1.as_str(), made[0].3.as_str()), ("S1", "cpus:4; mem:100"), "case: {name}");
    }
}

#[test]
fn the_late_end_of_an_old_owners_grant_is_not_charged_twice() {
    let mut world = offered();
    let lost = world.offers()[0].grant.clone();
    world.input(lose(&[1], RescindReason::OwnerLost));
    let mut next = book_of("S1", 1, 2);
    next.used = vec![(framework_id("f"), role("*"), resources("cpus:2"))];
    world.tell(ToAllocator::Agent(next));
    world.close(&lost, "cpus:2", None);
    assert_eq!(allocated(&world), "cpus:2");
    assert_eq!(world.run_at(SECOND)[0].3, "cpus:2; mem:100");
}

#[test]
fn a_link_that_is_up_again_brings_the_books_of_the_same_owner() {
    for (name, is_in_book) in [("the grant had arrived", true), ("the grant was lost", false)] {
        let mut world = offered();
        let lost = world.offers()[0].grant.clone();
        world.input(lose(&[1], RescindReason::OwnerLost));
        world.outputs.clear();
        let node = NodeId::parse("n2").unwrap();
        world.input(Input::OwnerBack(node.clone()));
        let wanted = ToOwner::BookWanted { allocator_fence: fence(1) };
        let expected = Output::Send { to: Target::Owner(node), message: NodeMessage::ToOwner(wanted) };
        assert_eq!(world.outputs, [expected], "case: {name}");
        let mut again = book_of("S1", 1, 1);
        again.used = vec![(framework_id("g"), role("*"), resources("cpus:1"))];
        again.grants.extend(is_in_book.then(|| lost.clone()));
        world.outputs.clear();
        world.tell(ToAllocator::Agent(again));
        assert_eq!(revokes(&world.outputs), [lost.offer_id], "case: {name}");
        assert_eq!(world.run_at(SECOND).len(), usize::from(!is_in_book), "case: {name}: not free before it is closed");
        world.close(&lost, "", None);
        assert_eq!(world.run_at(3 * SECOND).len(), usize::from(is_in_book), "case: {name}");
    }
}

#[test]
fn grants_of_a_surviving_link_stay_and_those_that_one_side_lacks_are_settled() {
    // The owner sends its books without having been lost: Open in both stays, the rest is rescinded or revoked.
    let mut world = offered();
    let [first, second] = [0, 1].map(|n| world.offers()[n].grant.clone());
    world.outputs.clear();
    let mut same = book_of("S1", 1, 1);
    same.used = vec![(framework_id("g"), role("*"), resources("cpus:1"))];
    same.grants = vec![first];
    world.tell(ToAllocator::Agent(same));
    assert!(world.outputs.is_empty());
    world.tell(ToAllocator::Agent(book_of("S2", 2, 1)));
    assert_eq!(rescinds(&world.outputs), [(second.offer_id, RescindReason::NotFree)]);
    assert_eq!(revokes(&world.outputs), [second.offer_id]);
}

#[test]
fn a_session_that_ended_is_told_by_an_inactive_book() {
    let mut world = offered();
    let second = world.offers()[1].grant.clone();
    world.outputs.clear();
    world.tell(ToAllocator::Agent(AgentBook { is_active: false, ..book_of("S2", 2, 1) }));
    assert_eq!(rescinds(&world.outputs), [(second.offer_id, RescindReason::AgentDisconnected)]);
    assert!(world.run_at(5 * SECOND).is_empty());
}

#[test]
fn a_framework_whose_home_is_lost_gets_nothing_until_a_newer_home_speaks() {
    let speak = |epoch: u64, version: u64| ToAllocator::Demand {
        info: std::sync::Arc::new(framework("f", &["*"])),
        home_fence: fence(epoch),
        session_version: version,
        suppressed: Default::default(),
        is_active: true,
    };
    let lost = |epoch| ToAllocator::HomeLost { framework_id: framework_id("f"), home_fence: fence(epoch) };
    let mut world = offered();
    let open: Vec<_> = world.offers().iter().map(|offer| offer.grant.clone()).collect();
    world.outputs.clear();
    world.tell(lost(1));
    assert_eq!(revokes(&world.outputs).len(), 2);
    assert!(rescinds(&world.outputs).is_empty(), "nobody is there to be told");
    open.iter().for_each(|grant| world.close(grant, "", None));
    assert!(world.run_at(5 * SECOND).is_empty());
    for (name, message) in [("late", speak(1, 9)), ("older", speak(0, 1)), ("the last word", speak(1, u64::MAX))] {
        world.tell(message);
        world.revive("f", &["*"]);
        assert!(world.run_at(6 * SECOND).is_empty(), "case: {name}");
    }
    world.tell(speak(2, 1));
    assert_eq!(world.run_at(6 * SECOND).len(), 2);
    // Its loss was told late.
    world.outputs.clear();
    world.tell(lost(1));
    assert!(world.outputs.is_empty());
    // Lost before it was heard of.
    let mut world = World::new(1, Vec::new());
    world.tell(ToAllocator::Agent(book_of("S1", 1, 1)));
    world.tell(lost(1));
    world.tell(speak(1, 1));
    assert!(world.run_at(0).is_empty());
    world.tell(ToAllocator::FrameworkRemoved { framework_id: framework_id("f") });
    world.tell(speak(1, 1));
    assert_eq!(world.run_at(0).len(), 1, "nothing of it is kept");
}

#[test]
fn a_home_that_was_only_out_of_reach_is_obeyed_again() {
    let mut world = offered();
    let open: Vec<_> = world.offers().iter().map(|offer| offer.grant.clone()).collect();
    let home_fence = fence(1);
    world.tell(ToAllocator::HomeLost { framework_id: framework_id("f"), home_fence });
    open.iter().for_each(|grant| world.close(grant, "", None));
    world.outputs.clear();
    world.input(Input::HomesBack([framework_id("f"), framework_id("never-heard-of")].into()));
    let is_asked = |output: &Output| {
        let Output::Send { to, message } = output;
        matches!((to, message), (Target::HomeOf(_), NodeMessage::ToHome(ToHome::DemandWanted { .. })))
    };
    assert!(matches!(&world.outputs[..], [asked] if is_asked(asked)), "{:?}", world.outputs);
    world.tell(demand(framework("f", &["*"])));
    assert_eq!(world.run_at(6 * SECOND).len(), 2, "the same fence and version as before the loss");
}

#[test]
fn offers_on_their_way_to_a_home_whose_link_was_renewed_are_void() {
    let mut world = offered();
    let open: Vec<_> = world.offers().iter().map(|offer| offer.grant.offer_id).collect();
    world.outputs.clear();
    world.input(Input::HomesRelinked([framework_id("f"), framework_id("never-heard-of")].into()));
    assert_eq!(revokes(&world.outputs).len(), 2);
    assert_eq!(rescinds(&world.outputs), open.into_iter().map(|id| (id, RescindReason::OwnerLost)).collect::<Vec<_>>());
    world.outputs.clear();
    world.input(Input::HomesRelinked([framework_id("f")].into()));
    assert!(world.outputs.is_empty(), "they are being taken back already");
}

#[test]
fn refusals_are_forgotten_where_a_revive_may_be_lost() {
    let mut world = offered();
    let open: Vec<_> = world.offers().iter().map(|offer| offer.grant.clone()).collect();
    open.iter().for_each(|grant| world.close(grant, "", Some(muster_model::Duration::from_secs(86_400))));
    assert_eq!(world.run_at(6 * SECOND).len(), 0, "refused for a day");
    world.input(Input::HomesRelinked([framework_id("f")].into()));
    assert_eq!(world.run_at(7 * SECOND).len(), 2);
}

#[test]
fn a_book_that_came_before_the_news_of_its_owner_is_known() {
    let mut world = offered();
    assert!(world.engine.has_book_of(ShardId(1), fence(1)));
    assert!(!world.engine.has_book_of(ShardId(1), fence(2)));
    world.tell(ToAllocator::Agent(book_of("S1", 1, 2)));
    assert!(world.engine.has_book_of(ShardId(1), fence(2)));
    assert!(world.engine.has_book_of(ShardId(1), fence(1)));
    assert!(!world.engine.has_book_of(ShardId(9), fence(1)));
}

#[test]
fn without_the_role_of_allocator_nothing_is_asked() {
    let mut world = offered();
    world.input(Input::Lost);
    world.outputs.clear();
    world.input(lose(&[1], RescindReason::OwnerLost));
    world.input(Input::OwnerBack(NodeId::parse("n2").unwrap()));
    world.input(Input::HomesBack([framework_id("f")].into()));
    world.input(Input::HomesRelinked([framework_id("f")].into()));
    assert!(world.outputs.is_empty());
    world.input(Input::Took { fence: Fence { epoch: 9, ..fence(1) }, roles: Vec::new() });
    world.tell(ToAllocator::Agent(book_of("S1", 1, 1)));
    world.tell(demand(framework("f", &["*"])));
    assert_eq!(world.run_at(0).len(), 1);
}
