//! An agent behind a NAT or a bad link in front of two nodes: it follows its shard to the other node through it.

use std::{net::SocketAddr, time::Duration};

use muster_e2e::{
    cluster::lasting_address,
    netns::{CONTROL_PLANE, Namespaces, SECOND_NODE},
    nodes::Nodes,
    process::is_alive,
    relay::{Relay, Weather},
    scheduler::{Acknowledge, Scheduler, framework, task},
    wait,
};

const LONG: &str = "echo $$; while :; do sleep 0.1; done";

/// How often an agent has made a connection, of its session or to its standby.
fn handshakes(cluster: &Nodes, agent: &str) -> usize {
    cluster.log(agent).matches("connected to the control plane address").count()
}

/// A framework at home at the second node, with `long` running on an agent of the first one. Adds agents until there is one.
fn with_task_at_first(cluster: &mut Nodes) -> (Scheduler, String, u32) {
    let id = (0..20).find_map(|number| {
        let name = format!("a{number}");
        cluster.add_agent_with(&name, "cpus:1;mem:256", 0, &["--report-interval-ms", "500"]).unwrap();
        cluster.agents_of(1).unwrap().remove("node-1").and_then(|own| own.into_iter().next())
    });
    let id = id.unwrap();
    let agent = cluster.agent_named(&id).unwrap().to_owned();
    wait::until("the connection to the standby", || {
        let is_warm = cluster.log(&agent).contains("purpose=Standby");
        Ok(is_warm.then_some(()))
    })
    .unwrap();
    let scheduler = Scheduler::subscribe(cluster.http(1), &framework("links"), Acknowledge::All).unwrap();
    let offer = std::iter::repeat_with(|| scheduler.next_offer().unwrap())
        .find(|offer| offer["agent_id"]["value"] == id.as_str())
        .unwrap();
    scheduler.launch(&offer, &[task("long", LONG, &offer)]).unwrap();
    scheduler.wait_state("long", "TASK_RUNNING").unwrap();
    let said = wait::until("its pid", || Ok(cluster.file(1, "long", "stdout").ok().filter(|out| out.ends_with('\n'))));
    (scheduler, agent, said.unwrap().trim().parse().unwrap())
}

/// The first node dies: the agent is the second one's from now on, and its task is still the same.
fn follows_to_second(cluster: &mut Nodes, scheduler: &Scheduler, pid: u32) {
    let agents = cluster.connected_agents(1).unwrap();
    cluster.kill_node(0).unwrap();
    wait::until("all agents at the second node", || {
        let owned = cluster.agents_of(1)?.remove("node-2").unwrap_or_default();
        Ok((owned == agents && cluster.connected_agents(1)? == agents).then_some(()))
    })
    .unwrap();
    assert!(is_alive(pid), "the task died with the node");
    assert_eq!(cluster.file(1, "long", "stdout").unwrap(), format!("{pid}\n"), "logs come through the new session");
    let offer = scheduler.next_offer().unwrap();
    scheduler.launch(&offer, &[task("after", "exit 4", &offer)]).unwrap();
    scheduler.wait_state("after", "TASK_FAILED").unwrap();
    scheduler.kill("long").unwrap();
    scheduler.wait_state("long", "TASK_KILLED").unwrap();
    assert_eq!(scheduler.states("long"), ["TASK_STARTING", "TASK_RUNNING", "TASK_KILLED"]);
}

#[test]
fn an_agent_on_a_bad_link_follows_its_shard_to_the_other_node() {
    if !super::can_run("an_agent_on_a_bad_link_follows_its_shard_to_the_other_node") {
        return;
    }
    let mut cluster = Nodes::without_nodes(1).unwrap();
    let relays = [11, 12].map(|seed| {
        let quic = lasting_address().unwrap();
        let relay = Relay::start(quic, Weather::FAIR, seed).unwrap();
        cluster.add_node_at(quic, relay.address()).unwrap();
        relay
    });
    cluster.wait_settled().unwrap();
    let (scheduler, agent, pid) = with_task_at_first(&mut cluster);
    // 3 % lost each way and 60 ms there and back. The link between the nodes takes the same way.
    let weather = Weather {
        loss_milli: 30,
        delay: Duration::from_millis(25),
        jitter: Duration::from_millis(10),
        doubled_milli: 10,
        early_milli: 10,
        ..Weather::FAIR
    };
    let before = handshakes(&cluster, &agent);
    for relay in &relays {
        relay.set(weather);
        // The NAT forgets: the agent is seen at other ports from now on.
        let ports = relay.outer_ports();
        relay.rebind();
        wait::until("packets from other ports", || {
            let now = relay.outer_ports();
            Ok((!now.is_empty() && now != ports).then_some(()))
        })
        .unwrap();
    }
    let offer = scheduler.next_offer().unwrap();
    scheduler.launch(&offer, &[task("moved", "true", &offer)]).unwrap();
    scheduler.wait_state("moved", "TASK_FINISHED").unwrap();
    assert_eq!(handshakes(&cluster, &agent), before, "{}", cluster.log(&agent));
    follows_to_second(&mut cluster, &scheduler, pid);
}

#[test]
fn an_agent_behind_a_nat_follows_its_shard_to_the_other_node() {
    const NAME: &str = "nodes::links::an_agent_behind_a_nat_follows_its_shard_to_the_other_node";
    let port = 5055;
    if !super::can_run(NAME) {
        return;
    }
    let Some(namespaces) = Namespaces::inside() else {
        if let Some(why) = Namespaces::missing() {
            return wait::skip(NAME, why).unwrap();
        }
        return Namespaces::new(port).unwrap().run_inside(NAME).unwrap();
    };
    let mut cluster = Nodes::without_nodes(1).unwrap();
    for host in [CONTROL_PLANE, SECOND_NODE] {
        let quic: SocketAddr = format!("{host}:{port}").parse().unwrap();
        cluster.add_node_at(quic, quic).unwrap();
    }
    cluster.wait_settled().unwrap();
    cluster.agent_launcher = namespaces.agent_launcher();
    let (scheduler, agent, pid) = with_task_at_first(&mut cluster);
    let before = handshakes(&cluster, &agent);
    namespaces.change_agent_address().unwrap();
    // Its session goes on: it can be told something new.
    let id = scheduler.events().iter().find_map(|event| {
        let status = &event["update"]["status"];
        (status["task_id"]["value"] == "long").then(|| status["agent_id"]["value"].clone())
    });
    let offer = std::iter::repeat_with(|| scheduler.next_offer().unwrap())
        .find(|offer| Some(&offer["agent_id"]["value"]) == id.as_ref())
        .unwrap();
    scheduler.launch(&offer, &[task("moved", "echo moved", &offer)]).unwrap();
    scheduler.wait_state("moved", "TASK_FINISHED").unwrap();
    assert_eq!(cluster.file(1, "moved", "stdout").unwrap(), "moved\n");
    assert_eq!(handshakes(&cluster, &agent), before, "{}", cluster.log(&agent));
    follows_to_second(&mut cluster, &scheduler, pid);
}
