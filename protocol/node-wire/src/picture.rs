//! A node's part of the cluster's picture, cut into parts that fit frames, and put together again.
//!
//! Parts come in an order in which each can be put in its place at once: an agent before its tasks, a framework before
//! its offers, the allocator before its roles. The last part counts the others, so that a cut-off picture never passes for
//! a whole one.

use crate::WireError;
use crate::limits::{PART_BYTES_AIM, PART_ENTRIES_MAX};
use muster_model::offer::Offer;
use muster_model::view::{
    AgentView, AllocatorView, DecisionView, FrameworkView, HomeView, OwnerView, RoleView, TaskView,
};
use muster_model::{AgentId, FrameworkId, Role};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What one node shows: the agents that it owns, the frameworks that it is home of, and the allocator if it allocates.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodePicture {
    /// Its owner's part.
    pub owner: Arc<OwnerView>,
    /// Its home's part.
    pub home: Arc<HomeView>,
    /// The allocator's part; none where another node allocates.
    pub allocator: Option<Arc<AllocatorView>>,
}

/// The list that tasks belong to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TaskList {
    /// Tasks on an agent.
    Agent(AgentId),
    /// Ended and acknowledged tasks of a framework.
    Completed(FrameworkId),
    /// A framework's tasks on unreachable agents.
    Unreachable(FrameworkId),
}

/// One frame's worth of a picture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PicturePart {
    /// An agent; its tasks follow and are not looked at here.
    Agent(Arc<AgentView>),
    /// More tasks of a list.
    Tasks {
        /// Which list.
        list: TaskList,
        /// Its next tasks.
        tasks: Vec<Arc<TaskView>>,
    },
    /// A framework; its offers follow and are not looked at here.
    Framework(Arc<FrameworkView>),
    /// More open offers of a framework.
    Offers {
        /// Which framework.
        framework_id: FrameworkId,
        /// Its next offers.
        offers: Vec<Arc<Offer>>,
    },
    /// A removed framework.
    CompletedFramework(Arc<FrameworkView>),
    /// The node allocates; roles and decisions follow.
    Allocator {
        /// Cycles so far.
        cycles: u64,
        /// See [`AllocatorView::last_cycle_work`].
        last_cycle_work: u64,
    },
    /// A role.
    Role {
        /// Its name.
        role: Role,
        /// What is shown of it.
        view: RoleView,
    },
    /// What was last decided for a framework and role.
    Decision {
        /// Which framework.
        framework_id: FrameworkId,
        /// For which of its roles.
        role: Role,
        /// The decision.
        view: DecisionView,
    },
    /// The picture is complete.
    End {
        /// Parts before this one.
        parts: u64,
    },
}

impl NodePicture {
    /// Cuts the picture into parts, in order, the end included. Nothing is copied but pointers, and a part is made when it
    /// is its turn.
    pub fn parts(&self) -> impl Iterator<Item = PicturePart> + Send + '_ {
        let agents = self.owner.agents.values().flat_map(|agent| {
            let list = TaskList::Agent(agent.id.clone());
            let tasks = Groups::new(agent.tasks.values(), task_bytes);
            let tasks = tasks.map(move |tasks| PicturePart::Tasks { list: list.clone(), tasks });
            std::iter::once(PicturePart::Agent(Arc::clone(agent))).chain(tasks)
        });
        let completed = task_lists(&self.owner.completed, TaskList::Completed);
        let unreachable = task_lists(&self.owner.unreachable, TaskList::Unreachable);
        let frameworks = self.home.frameworks.values().flat_map(|framework| {
            let framework_id = framework.info.id.clone();
            let offers = Groups::new(framework.offers.values(), offer_bytes);
            let offers = offers.map(move |offers| PicturePart::Offers { framework_id: framework_id.clone(), offers });
            std::iter::once(PicturePart::Framework(Arc::clone(framework))).chain(offers)
        });
        let removed = self.home.completed.iter().map(|it| PicturePart::CompletedFramework(Arc::clone(it)));
        let allocator = self.allocator.iter().flat_map(|view| allocator_parts(view));
        Ended {
            inner: agents.chain(completed).chain(unreachable).chain(frameworks).chain(removed).chain(allocator),
            parts: 0,
            is_over: false,
        }
    }
}

fn task_lists<'v>(
    lists: &'v BTreeMap<FrameworkId, Vec<Arc<TaskView>>>,
    name: fn(FrameworkId) -> TaskList,
) -> impl Iterator<Item = PicturePart> + Send + 'v {
    lists.iter().flat_map(move |(framework_id, tasks)| {
        let list = name(framework_id.clone());
        Groups::new(tasks.iter(), task_bytes).map(move |tasks| PicturePart::Tasks { list: list.clone(), tasks })
    })
}

fn allocator_parts(view: &AllocatorView) -> impl Iterator<Item = PicturePart> + Send + '_ {
    let AllocatorView { roles, decisions, cycles, last_cycle_work } = view;
    let head = PicturePart::Allocator { cycles: *cycles, last_cycle_work: *last_cycle_work };
    let roles = roles.iter().map(|(role, view)| PicturePart::Role { role: role.clone(), view: view.clone() });
    let decisions = decisions.iter().map(|((framework_id, role), view)| PicturePart::Decision {
        framework_id: framework_id.clone(),
        role: role.clone(),
        view: view.clone(),
    });
    std::iter::once(head).chain(roles).chain(decisions)
}

/// Appends the end, with the count of what went before.
struct Ended<I> {
    inner: I,
    parts: u64,
    is_over: bool,
}

impl<I: Iterator<Item = PicturePart>> Iterator for Ended<I> {
    type Item = PicturePart;

    fn next(&mut self) -> Option<PicturePart> {
        if self.is_over {
            return None;
        }
        match self.inner.next() {
            Some(part) => {
                self.parts += 1;
                Some(part)
            }
            None => {
                self.is_over = true;
                Some(PicturePart::End { parts: self.parts })
            }
        }
    }
}

/// Groups of shared values, closed by number and by estimated bytes.
struct Groups<I, T> {
    values: I,
    bytes_of: fn(&T) -> usize,
}

impl<I, T> Groups<I, T> {
    fn new(values: I, bytes_of: fn(&T) -> usize) -> Self {
        Self { values, bytes_of }
    }
}

impl<'v, T: 'v, I: Iterator<Item = &'v Arc<T>>> Iterator for Groups<I, T> {
    type Item = Vec<Arc<T>>;

    fn next(&mut self) -> Option<Vec<Arc<T>>> {
        let (mut group, mut bytes) = (Vec::new(), 0usize);
        while group.len() < PART_ENTRIES_MAX && bytes < PART_BYTES_AIM {
            let Some(value) = self.values.next() else { break };
            bytes = bytes.saturating_add((self.bytes_of)(value));
            group.push(Arc::clone(value));
        }
        (!group.is_empty()).then_some(group)
    }
}

/// A rough size; what counts is that the client's own bytes are in it.
fn task_bytes(task: &TaskView) -> usize {
    let data = task.statuses.iter().filter_map(|status| status.data.as_ref()).map(|data| data.len()).sum::<usize>();
    task.task.spec.len().saturating_mul(2).saturating_add(data).saturating_add(1024)
}

fn offer_bytes(offer: &Offer) -> usize {
    512 + 64 * (offer.agent.attributes.len() + offer.agent.total.iter().len())
}

/// Puts a picture together again.
#[derive(Default, Debug)]
pub struct PictureReader {
    owner: OwnerView,
    home: HomeView,
    allocator: Option<AllocatorView>,
    parts: u64,
}

impl PictureReader {
    /// Takes the next part; gives the picture back once it is complete. Errors: a part whose place does not exist, and an
    /// end that counts other parts than came.
    pub fn take(&mut self, part: PicturePart) -> Result<Option<NodePicture>, WireError> {
        let refused = |why| Err(WireError::BadValue { what: "part of a picture", why });
        match part {
            PicturePart::Agent(agent) => {
                self.owner.agents.insert(agent.id.clone(), agent);
            }
            PicturePart::Tasks { list: TaskList::Agent(agent_id), tasks } => {
                let Some(agent) = self.owner.agents.get_mut(&agent_id) else {
                    return refused("tasks come before their agent");
                };
                let keyed = |task: Arc<TaskView>| ((task.task.framework_id.clone(), task.task.id.clone()), task);
                Arc::make_mut(agent).tasks.extend(tasks.into_iter().map(keyed));
            }
            PicturePart::Tasks { list: TaskList::Completed(framework_id), tasks } => {
                self.owner.completed.entry(framework_id).or_default().extend(tasks);
            }
            PicturePart::Tasks { list: TaskList::Unreachable(framework_id), tasks } => {
                self.owner.unreachable.entry(framework_id).or_default().extend(tasks);
            }
            PicturePart::Framework(framework) => {
                self.home.frameworks.insert(framework.info.id.clone(), framework);
            }
            PicturePart::Offers { framework_id, offers } => {
                let Some(framework) = self.home.frameworks.get_mut(&framework_id) else {
                    return refused("offers come before their framework");
                };
                let keyed = |offer: Arc<Offer>| (offer.grant.offer_id, offer);
                Arc::make_mut(framework).offers.extend(offers.into_iter().map(keyed));
            }
            PicturePart::CompletedFramework(framework) => self.home.completed.push(framework),
            PicturePart::Allocator { cycles, last_cycle_work } => {
                self.allocator = Some(AllocatorView { cycles, last_cycle_work, ..AllocatorView::default() });
            }
            PicturePart::Role { role, view } => {
                let Some(allocator) = &mut self.allocator else { return refused("a role comes before the allocator") };
                allocator.roles.insert(role, view);
            }
            PicturePart::Decision { framework_id, role, view } => {
                let Some(allocator) = &mut self.allocator else {
                    return refused("a decision comes before the allocator");
                };
                allocator.decisions.insert((framework_id, role), view);
            }
            PicturePart::End { parts } if parts == self.parts => {
                let whole = std::mem::take(self);
                return Ok(Some(NodePicture {
                    owner: Arc::new(whole.owner),
                    home: Arc::new(whole.home),
                    allocator: whole.allocator.map(Arc::new),
                }));
            }
            PicturePart::End { .. } => return refused("the end counts other parts than came"),
        }
        self.parts += 1;
        Ok(None)
    }
}
