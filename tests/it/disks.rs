//! The control plane's disk is full or its store damaged: it says so, loses nothing, and goes on where it can.

use std::{fs, path::Path, process::Command};

use muster_e2e::{
    cluster::{free_tcp, free_udp},
    http,
    process::{self, Process},
    scheduler::{Acknowledge, Scheduler, framework},
    wait,
};

/// A control plane on this data directory; with a size (as tmpfs takes it), on a disk of that size that only it sees.
fn control_plane(http: std::net::SocketAddr, data: &Path, size: Option<&str>, log: &Path) -> Process {
    let program = process::program("muster-control-plane").unwrap();
    let (listen, quic) = (http.to_string(), free_udp().unwrap().to_string());
    let arguments = ["--listen", &listen, "--quic", &quic, "--data-dir", data.to_str().unwrap()];
    let mut command = match size {
        Some(size) => {
            fs::create_dir_all(data).unwrap();
            let mut command = Command::new("unshare");
            let script = "mount -t tmpfs -o size=\"$1\" tmpfs \"$2\" && shift 2 && exec \"$@\"";
            command.args(["--mount", "sh", "-c", script, "sh", size, data.to_str().unwrap()]).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.args(arguments);
    Process::spawn("muster-control-plane", command, log).unwrap()
}

fn wait_healthy(process: &mut Process, http: std::net::SocketAddr) {
    wait::until("the control plane to answer", || {
        process.expect_running()?;
        Ok(http::get(http, "/health").ok().filter(|answer| answer.status == 200).map(|_| ()))
    })
    .unwrap();
}

#[test]
fn a_full_disk_refuses_new_frameworks_and_is_over_by_itself() {
    if !wait::is_root() {
        return wait::skip("a_full_disk_refuses_new_frameworks_and_is_over_by_itself", "mounting needs root").unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let (http, data, log) = (free_tcp().unwrap(), dir.path().join("data"), dir.path().join("log"));
    let mut process = control_plane(http, &data, Some("6m"), &log);
    wait_healthy(&mut process, http);
    let first = Scheduler::subscribe(http, &framework("first"), Acknowledge::All).unwrap();
    // Its own mount namespace is entered through /proc.
    let seen = Path::new("/proc").join(process.pid().to_string()).join("root").join(data.strip_prefix("/").unwrap());
    let filler = seen.join("filler");
    let filled = fs::write(&filler, vec![1; 64 << 20]).unwrap_err();
    assert_eq!(filled.kind(), std::io::ErrorKind::StorageFull, "{filled}");

    // The store grows in steps, so some may still get in; then one is told why not.
    let refusal =
        wait::until("a refusal", || Ok(Scheduler::subscribe(http, &framework("more"), Acknowledge::All).err()));
    let refusal = format!("{:#}", refusal.unwrap());
    assert!(refusal.contains("503") && refusal.contains("full"), "{refusal}");
    process.expect_running().unwrap();
    let revive = serde_json::json!({"type": "REVIVE", "revive": {}});
    first.send(revive).unwrap();

    fs::remove_file(&filler).unwrap();
    let late = wait::until("the disk to do again", || {
        Ok(Scheduler::subscribe(http, &framework("late"), Acknowledge::All).ok())
    });
    // Nothing of what was acknowledged is lost, and nothing that was refused is there.
    let shown = http::get_json(http, "/api/muster/v1/frameworks").unwrap();
    let ids: Vec<&str> = shown["frameworks"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect();
    for id in [&first.framework_id, &late.unwrap().framework_id] {
        assert!(ids.contains(&id.as_str()), "{id} is not in {ids:?}");
    }
}

#[test]
fn a_damaged_store_is_named_and_never_taken_for_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let (http, data, log) = (free_tcp().unwrap(), dir.path().join("data"), dir.path().join("log"));
    let mut process = control_plane(http, &data, None, &log);
    wait_healthy(&mut process, http);
    process.kill().unwrap();
    let store = fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "redb"))
        .unwrap();
    let mut bytes = fs::read(&store).unwrap();
    for (name, damage) in [
        ("a text", b"this is no store".to_vec()),
        ("cut short", bytes[..bytes.len() / 3].to_vec()),
        ("a header of noise", {
            bytes[..512].iter_mut().for_each(|byte| *byte ^= 0x5a);
            bytes
        }),
    ] {
        fs::write(&store, &damage).unwrap();
        let mut process = control_plane(http, &data, None, &log);
        let status = wait::until("the refusal", || process.ended()).unwrap();
        assert_eq!(status.code(), Some(1), "case: {name}");
        let said = process.output();
        let last = said.lines().last().unwrap_or_default();
        assert!(last.contains(store.to_str().unwrap()), "case: {name}: the file is not named: {last}");
    }
}
