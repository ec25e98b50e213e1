//! Tables of what two nodes may show at the same time.

use super::*;
use crate::agent::AgentInfo;
use crate::fence::Fence;
use crate::framework::{Capabilities, FrameworkInfo};
use crate::resource::Resources;
use crate::status::{Source, TaskStatus};
use crate::task::{Command, Program, Task, TaskState};
use crate::{Duration, Role, ShardId};
use alloc::vec;

fn framework_id() -> FrameworkId {
    FrameworkId::parse("f1").unwrap()
}

fn task(id: &str, agent: &str, at: u64) -> Arc<TaskView> {
    let id = TaskId::parse(id).unwrap();
    let task = Task {
        id: id.clone(),
        name: "t".into(),
        framework_id: framework_id(),
        agent_id: AgentId::parse(agent).unwrap(),
        role: Role::star(),
        resources: Resources::new(),
        command: Command { program: Program::Shell("true".into()), environment: vec![], user: None },
        kill_grace: None,
        completion_time_max: None,
        spec: Arc::from([]),
    };
    let status = TaskStatus::new(framework_id(), id, TaskState::Running, Source::Agent, WallTime(at));
    Arc::new(TaskView {
        task: Arc::new(task),
        state: TaskState::Running,
        statuses: vec![Arc::new(status)],
        history: vec![],
    })
}

fn agent(name: &str, epoch: u64, presence: Presence, tasks: &[&Arc<TaskView>]) -> Arc<AgentView> {
    let info = AgentInfo {
        hostname: name.into(),
        ip: "127.0.0.1".into(),
        port: 5051,
        total: Resources::new(),
        attributes: vec![],
        version: "1".into(),
        missing_isolation: vec![],
    };
    Arc::new(AgentView {
        id: AgentId::parse(name).unwrap(),
        shard: (ShardId(0), Fence { generation: 1, epoch, incarnation: 1 }),
        info: Arc::new(info),
        admission: Admission::Active,
        is_deactivated: false,
        is_revoked: false,
        presence,
        peer: None,
        registered: WallTime(0),
        reregistered: None,
        used: BTreeMap::new(),
        offered: BTreeMap::new(),
        tasks: tasks.iter().map(|it| ((framework_id(), it.task.id.clone()), Arc::clone(it))).collect(),
        report: None,
    })
}

type Lists = BTreeMap<FrameworkId, Vec<Arc<TaskView>>>;

fn list(tasks: &[&Arc<TaskView>]) -> Lists {
    if tasks.is_empty() {
        return Lists::new();
    }
    [(framework_id(), tasks.iter().map(|task| Arc::clone(task)).collect())].into()
}

fn owner(agents: &[Arc<AgentView>], completed: &[&Arc<TaskView>], unreachable: &[&Arc<TaskView>]) -> Arc<OwnerView> {
    Arc::new(OwnerView {
        agents: agents.iter().map(|agent| (agent.id.clone(), Arc::clone(agent))).collect(),
        completed: list(completed),
        unreachable: list(unreachable),
    })
}

fn framework(connected: bool, recovered: bool, reregistered: u64) -> Arc<FrameworkView> {
    let info = FrameworkInfo {
        id: framework_id(),
        name: "f".into(),
        user: "u".into(),
        roles: BTreeSet::new(),
        capabilities: Capabilities::default(),
        failover_timeout: Duration::ZERO,
        is_checkpointing: false,
        principal: None,
        min_allocatable: BTreeMap::new(),
        spec: Arc::from([]),
    };
    Arc::new(FrameworkView {
        info: Arc::new(info),
        is_active: connected,
        is_connected: connected,
        is_recovered: recovered,
        registered: WallTime(1),
        reregistered: Some(WallTime(reregistered)),
        unregistered: None,
        suppressed: vec![],
        offers: BTreeMap::new(),
        failover_deadline: None,
    })
}

fn home(frameworks: &[&Arc<FrameworkView>], completed: &[&Arc<FrameworkView>]) -> Arc<HomeView> {
    Arc::new(HomeView {
        frameworks: frameworks.iter().map(|it| (it.info.id.clone(), Arc::clone(it))).collect(),
        completed: completed.iter().map(|it| Arc::clone(it)).collect(),
    })
}

#[test]
fn one_picture_is_given_back_as_it_is() {
    let only = owner(&[agent("a1", 1, Presence::Connected, &[])], &[], &[]);
    assert!(Arc::ptr_eq(&OwnerView::merged(core::slice::from_ref(&only)), &only));
    let only = home(&[&framework(true, false, 1)], &[]);
    assert!(Arc::ptr_eq(&HomeView::merged(core::slice::from_ref(&only)), &only));
    assert_eq!(*OwnerView::merged(&[]), OwnerView::default());
    assert_eq!(*HomeView::merged(&[]), HomeView::default());
}

#[test]
fn the_owner_with_the_higher_fence_speaks_for_an_agent() {
    let (old, new) = (task("t1", "a1", 1), task("t1", "a1", 2));
    let deposed = agent("a1", 1, Presence::Connected, &[&old]);
    let current = agent("a1", 2, Presence::Recovered, &[&new]);
    let other = agent("a2", 1, Presence::Connected, &[]);
    let parts = [owner(&[deposed], &[], &[]), owner(&[current, other], &[], &[])];
    for parts in [parts.to_vec(), parts.iter().rev().cloned().collect()] {
        let merged = OwnerView::merged(&parts);
        let epochs: Vec<_> = merged.agents.values().map(|agent| agent.shard.1.epoch).collect();
        assert_eq!(epochs, [2, 1]);
        assert!(merged.agents.values().flat_map(|agent| agent.tasks.values()).all(|task| Arc::ptr_eq(task, &new)));
    }
    // Under one fence there is one owner; should two claim it, the one that the agent talks to is shown.
    let parts = [
        owner(&[agent("a1", 1, Presence::Recovered, &[])], &[], &[]),
        owner(&[agent("a1", 1, Presence::Connected, &[])], &[], &[]),
    ];
    assert!(OwnerView::merged(&parts).agents.values().all(|agent| agent.presence == Presence::Connected));
}

#[test]
fn a_task_is_shown_once() {
    let (t1, t2, t3) = (task("t1", "a1", 1), task("t2", "a1", 2), task("t3", "a2", 3));
    let moved = || agent("a1", 2, Presence::Connected, &[&t1]);
    for (name, one, two, completed, unreachable) in [
        (
            "ended in two pictures",
            owner(&[], &[&t1, &t3], &[]),
            owner(&[], &[&t1, &t2], &[]),
            vec!["t1", "t2", "t3"],
            vec![],
        ),
        ("back at another owner", owner(&[], &[], &[&t1, &t2]), owner(&[moved()], &[], &[]), vec![], vec!["t2"]),
        ("ended at another owner", owner(&[], &[], &[&t1]), owner(&[], &[&t1], &[]), vec!["t1"], vec![]),
        ("unreachable in two", owner(&[], &[], &[&t3, &t2]), owner(&[], &[], &[&t2]), vec![], vec!["t2", "t3"]),
        (
            "used again for another task",
            owner(&[], &[&t1], &[]),
            owner(&[], &[&task("t1", "a1", 9)], &[]),
            vec!["t1", "t1"],
            vec![],
        ),
    ] {
        let merged = OwnerView::merged(&[one, two]);
        let names = |lists: &Lists| -> Vec<_> {
            lists.values().flatten().map(|task| alloc::string::String::from(task.task.id.as_str())).collect()
        };
        assert_eq!(names(&merged.completed), completed, "case: {name}");
        assert_eq!(names(&merged.unreachable), unreachable, "case: {name}");
    }
}

#[test]
fn the_home_with_the_client_speaks_for_a_framework() {
    let (connected, left, recovered) =
        (framework(true, false, 1), framework(false, false, 5), framework(false, true, 9));
    let later = framework(true, false, 2);
    for (name, one, two, expected) in [
        ("connected before left", &connected, &left, &connected),
        ("left before recovered", &left, &recovered, &left),
        ("the later of two", &connected, &later, &later),
    ] {
        let parts = [home(&[one], &[]), home(&[two], &[])];
        for parts in [parts.to_vec(), parts.iter().rev().cloned().collect()] {
            let merged = HomeView::merged(&parts);
            assert!(Arc::ptr_eq(&merged.frameworks[&framework_id()], expected), "case: {name}");
            let at = HomeView::homes(&parts)[&framework_id()];
            assert!(Arc::ptr_eq(&parts[at].frameworks[&framework_id()], expected), "case: {name}");
        }
    }
    let gone = Arc::new(FrameworkView { unregistered: Some(WallTime(9)), ..(*left).clone() });
    let merged = HomeView::merged(&[home(&[&connected], &[]), home(&[], &[&gone]), home(&[], &[&gone])]);
    assert!(merged.frameworks.is_empty());
    assert_eq!(merged.completed, [gone]);
}
