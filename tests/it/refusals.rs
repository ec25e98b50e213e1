//! Bad input gets a clear error and changes nothing.

use std::{net::TcpListener, time::Duration};

use muster_e2e::{
    cluster::{Cluster, free_tcp, free_udp},
    http,
    process::Process,
    scheduler::{Acknowledge, Scheduler, framework},
};
use serde_json::json;

const JSON: (&str, &str) = ("Content-Type", "application/json");

#[test]
fn malformed_calls_are_refused_with_a_reason_and_the_server_lives() {
    let mut cluster = Cluster::start().unwrap();
    let path = "/api/v1/scheduler";
    let big = format!("{{\"type\": \"SUBSCRIBE\", \"x\": \"{}\"}}", "y".repeat(80 << 20));
    for (name, headers, body, statuses) in [
        ("no JSON", vec![JSON], "{", vec![400]),
        ("another message", vec![JSON], "[1]", vec![400]),
        ("no type", vec![JSON], "{}", vec![400]),
        ("unknown type", vec![JSON], "{\"type\": \"DANCE\"}", vec![400]),
        ("no body", vec![JSON], "", vec![400]),
        ("no framework id", vec![JSON], "{\"type\": \"KILL\", \"kill\": {\"task_id\": {\"value\": \"x\"}}}", vec![400]),
        ("bad protobuf", vec![("Content-Type", "application/x-protobuf")], "\u{7f}\u{7f}\u{7f}", vec![400]),
        ("other content type", vec![("Content-Type", "text/plain")], "{}", vec![415]),
        ("no content type", vec![], "{}", vec![400, 415]),
        ("oversized", vec![JSON], big.as_str(), vec![413]),
    ] {
        // An oversized body may be cut off: then writing fails, which is as good a refusal.
        let answer = match http::request(cluster.http, "POST", path, &headers, body.as_bytes()) {
            Err(_) if name == "oversized" => continue,
            answer => answer.unwrap(),
        };
        assert!(statuses.contains(&answer.status), "case: {name}: {} {}", answer.status, answer.text());
        assert!(!answer.body.is_empty(), "case: {name}: no reason is given");
    }
    cluster.control_plane().unwrap().expect_running().unwrap();
    let frameworks = http::get_json(cluster.http, "/api/muster/v1/frameworks").unwrap();
    assert_eq!(frameworks["frameworks"], json!([]));
}

#[test]
fn unknown_ids_and_foreign_streams_are_refused() {
    let cluster = Cluster::start().unwrap();
    let scheduler = Scheduler::subscribe(cluster.http, &framework("e2e"), Acknowledge::All).unwrap();
    let kill =
        json!({"type": "KILL", "kill": {"task_id": {"value": "x"}}, "framework_id": {"value": scheduler.framework_id}});
    let other = http::post_json(cluster.http, "/api/v1/scheduler", &[("Mesos-Stream-Id", "nonsense")], &kill).unwrap();
    assert_eq!(other.status, 400, "{}", other.text());
    let none = http::post_json(cluster.http, "/api/v1/scheduler", &[], &kill).unwrap();
    assert_eq!(none.status, 400, "{}", none.text());
    scheduler.kill("no-such-task").unwrap();
    for path in ["/api/muster/v1/tasks/nope", "/api/muster/v1/why/tasks/nope", "/api/muster/v1/why/frameworks/nope"] {
        let answer = http::get(cluster.http, path).unwrap();
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.json().unwrap()["error"].is_string(), "{path}");
    }
    // A framework of an unknown id gets no stream.
    let mut unknown = framework("e2e");
    unknown["id"] = json!({"value": "../../etc"});
    assert!(Scheduler::subscribe(cluster.http, &unknown, Acknowledge::All).is_err());
}

/// Starts an agent that must not get in, and returns what it said when it gave up or when its time is over.
fn refused_agent(cluster: &Cluster, name: &str, token: &str) -> String {
    let dir = cluster.dir().join(name);
    std::fs::create_dir_all(&dir).unwrap();
    let (quic, work, run) = (cluster.quic.to_string(), dir.join("work"), dir.join("run"));
    let arguments = [
        "--control-plane",
        &quic,
        "--join",
        token,
        "--work-dir",
        &work.to_string_lossy(),
        "--runtime-dir",
        &run.to_string_lossy(),
    ]
    .map(str::to_owned);
    let mut agent = Process::start("muster-agent", &arguments, &dir.join("log")).unwrap();
    let _ = agent.wait(Duration::from_secs(5));
    agent.output()
}

#[test]
fn a_used_a_revoked_and_an_expired_token_let_nobody_in() {
    let mut cluster = Cluster::start().unwrap();
    let create = |body| http::post_json(cluster.http, "/api/muster/v1/tokens", &[], &body).unwrap().json().unwrap();
    let once = create(json!({"name": "once", "uses": 1}))["token"].as_str().unwrap().to_owned();
    let short = create(json!({"name": "short", "valid_secs": 1}))["token"].as_str().unwrap().to_owned();
    let revoked = create(json!({"name": "revoked"}))["token"].as_str().unwrap().to_owned();
    let answer = http::request(cluster.http, "DELETE", "/api/muster/v1/tokens/revoked", &[], b"").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    cluster.add_agent_by("a", "cpus:1;mem:128", &once, &[]).unwrap();
    muster_e2e::wait::until("the token to expire", || {
        let tokens = http::get_json(cluster.http, "/api/muster/v1/tokens")?;
        let list = tokens["tokens"].as_array().cloned().unwrap_or_default();
        Ok(list.iter().any(|token| token["name"] == "short" && token["state"] == "expired").then_some(()))
    })
    .unwrap();
    let wrong_secret: String = once.chars().rev().collect();
    for (name, token) in [
        ("used", once.as_str()),
        ("expired", &short),
        ("revoked", &revoked),
        ("wrong", &wrong_secret),
        ("nonsense", "x"),
    ] {
        let said = refused_agent(&cluster, name, token);
        assert!(said.to_lowercase().contains("token"), "case: {name}: the agent must say what is wrong:\n{said}");
    }
    let agents = http::get_json(cluster.http, "/api/muster/v1/agents").unwrap();
    assert_eq!(agents["agents"].as_array().unwrap().len(), 1, "{agents}");
}

#[test]
fn a_revoked_agent_is_thrown_out_and_stays_out() {
    let mut cluster = Cluster::with_agent().unwrap();
    let state = || http::get_json(cluster.http, "/api/muster/v1/agents").unwrap()["agents"][0].clone();
    let id = state()["id"].as_str().unwrap().to_owned();
    let path = |id: &str| format!("/api/muster/v1/agents/{id}/certificate");
    let unknown = http::request(cluster.http, "DELETE", &path("nobody"), &[], b"").unwrap();
    assert_eq!((unknown.status, unknown.text().contains("nobody")), (404, true), "{}", unknown.text());
    let answer = http::request(cluster.http, "DELETE", &path(&id), &[], b"").unwrap();
    assert_eq!(answer.status, 204, "{}", answer.text());
    muster_e2e::wait::until("the agent to be thrown out", || Ok((state()["state"] != "connected").then_some(())))
        .unwrap();
    // It comes back with the same certificate, and again after a restart of the control plane: no.
    let refused = |cluster: &Cluster| cluster.log("a").matches("revoked").count();
    muster_e2e::wait::until("the agent to be told why", || Ok((refused(&cluster) > 0).then_some(()))).unwrap();
    cluster.kill_control_plane().unwrap();
    cluster.start_control_plane().unwrap();
    let _ = cluster.kill_agent("a");
    let before = refused(&cluster);
    cluster.start_agent("a").unwrap();
    muster_e2e::wait::until("the restarted agent to be told why", || Ok((refused(&cluster) > before).then_some(())))
        .unwrap();
    let agents = http::get_json(cluster.http, "/api/muster/v1/agents").unwrap();
    assert_ne!(agents["agents"][0]["state"], "connected", "{agents}");
}

#[test]
fn a_port_in_use_and_an_unwritable_directory_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    let (free, quic) = (free_tcp().unwrap().to_string(), free_udp().unwrap().to_string());
    let good = dir.path().join("good").to_string_lossy().into_owned();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let below_file = file.join("data").to_string_lossy().into_owned();
    for (name, arguments, wanted) in [
        ("port in use", ["--listen", &taken, "--quic", &quic, "--data-dir", &good], taken.as_str()),
        ("not a directory", ["--listen", &free, "--quic", &quic, "--data-dir", &below_file], below_file.as_str()),
        ("no address", ["--listen", "nowhere", "--quic", &quic, "--data-dir", &good], "listen"),
    ] {
        let mut process = Process::start("muster-control-plane", &arguments, &dir.path().join("log")).unwrap();
        let status = process.wait(Duration::from_secs(30)).unwrap();
        let said = process.output();
        assert!(!status.success(), "case: {name}");
        assert!(said.contains(wanted), "case: {name}: must name {wanted}:\n{said}");
    }
    let token = Cluster::start().unwrap().new_token().unwrap();
    let arguments = ["--control-plane", &quic, "--join", &token, "--work-dir", &below_file];
    let mut agent = Process::start("muster-agent", &arguments, &dir.path().join("agent.log")).unwrap();
    assert!(!agent.wait(Duration::from_secs(30)).unwrap().success());
    assert!(agent.output().contains(&below_file), "{}", agent.output());
}
