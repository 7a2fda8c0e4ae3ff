//! No room where files are kept.

use std::{
    fs,
    path::{Path, PathBuf},
};

use enforcer::state;
use enforcer_tests::lab::{
    Lab, Pod, Role,
    command::{Running, run},
    manifests::Service,
    query::{Answer, Family},
    roles::enforcer,
    wait,
};
use serde_json::Value;

use crate::shared::lab;

/// A small file system; what was in the folder is in it, and in the folder again when this is gone.
struct Small {
    at: PathBuf,
}

impl Small {
    fn over(at: &Path, size: &str) -> Self {
        let (text, aside) = (at.to_string_lossy().into_owned(), at.with_extension("aside"));
        fs::create_dir_all(at).expect("the folder is made");
        run("cp", &["-a", "-T", &text, &aside.to_string_lossy()]).expect("its content is copied");
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "tmpfs", &text])
            .expect("it is mounted");
        run("cp", &["-a", "-T", &aside.to_string_lossy(), &text]).expect("its content is copied");
        fs::remove_dir_all(aside).expect("the copy goes");
        Self { at: at.to_owned() }
    }

    fn fill(&self) {
        // Until nothing fits: how a file system counts its pages is its own affair.
        let _full = run("dd", &["if=/dev/zero", &format!("of={}", self.ballast().display()), "bs=4k"]);
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).expect("the ballast goes");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let at = self.at.to_string_lossy().into_owned();
        let aside = self.at.with_extension("aside");
        let _ = fs::remove_file(self.ballast());
        let _ = run("cp", &["-a", "-T", &at, &aside.to_string_lossy()]);
        let _ = run("umount", &["-l", &at]);
        let _ = run("cp", &["-a", "-T", &aside.to_string_lossy(), &at]);
        let _ = fs::remove_dir_all(aside);
    }
}

/// A condition of a role: status and message.
fn condition(status: &Value, kind: &str) -> Option<(String, String)> {
    let conditions = status["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    Some((found["status"].as_str()?.to_owned(), found["message"].as_str()?.to_owned()))
}

fn comes_to(what: &str, ask: impl Fn() -> Option<Value>, kind: &str, status: &str, part: &str) {
    let mut last = None;
    let reached = wait::for_true(what, || {
        last = ask().and_then(|view| condition(&view, kind));
        last.as_ref().is_some_and(|(found, message)| found == status && message.contains(part))
    });
    assert!(reached.is_ok(), "{what}: {last:?}");
}

#[test]
fn a_controller_without_room_keeps_the_old_state_says_which_file_and_goes_on_when_there_is_room() {
    let lab = lab();
    let dir = lab.id.dir.join("second");
    let manifests = dir.join("objects");
    fs::create_dir_all(&manifests).expect("the folder is made");
    let small = Small::over(&dir.join("small"), "256k");
    let (state_file, run_dir) = (small.at.join("state.json"), dir.join("run"));
    let instance = |name: &str| {
        format!(
            "apiVersion: enforcer.dev/v1alpha1\nkind: Postgres\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{gateways: [eu-1], endpoints: [{{address: 203.0.113.10}}]}}\n"
        )
    };
    fs::write(manifests.join("a.yaml"), instance("first")).expect("the file is written");
    let program = enforcer().expect("enforcer is built");
    let words = [
        "controller",
        "--manifests",
        &manifests.to_string_lossy(),
        "--state",
        &state_file.to_string_lossy(),
        "--run-dir",
        &run_dir.to_string_lossy(),
    ]
    .map(str::to_owned);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let log = lab.id.log("second-controller");
    let _process: Running =
        lab.elsewhere("svc").start_plain(&program.to_string_lossy(), &words, &log).expect("it starts");
    let ask = || {
        let socket = run_dir.join("controller.sock");
        let text =
            run(&program.to_string_lossy(), &["status", "-o", "json", "--socket", &socket.to_string_lossy()]);
        serde_json::from_str(&text.ok()?).ok()
    };
    comes_to("the state is saved", ask, "StateSaved", "True", "");
    let saved = state::load(&state_file).expect("the state is good").expect("there is a state");
    let first = saved.services[&"Postgres/shop/first".parse().expect("a key")];

    small.fill();
    fs::write(manifests.join("b.yaml"), instance("second")).expect("the file is written");
    let wanted = format!("state file {}: cannot be written: No space left on device", state_file.display());
    comes_to("it says what is wrong", ask, "StateSaved", "False", &wanted);
    assert_eq!(state::load(&state_file).expect("the old state is good"), Some(saved), "and whole");

    small.make_room();
    comes_to("the state is saved", ask, "StateSaved", "True", "");
    let saved = state::load(&state_file).expect("the state is good").expect("there is a state");
    assert_eq!(saved.services[&"Postgres/shop/first".parse().expect("a key")], first);
    assert_eq!(saved.services.len(), 2);
}

#[test]
fn an_agent_without_room_changes_nothing_says_which_file_and_goes_on_when_there_is_room() {
    let mut lab = lab();
    let id = lab.id.clone();
    lab.kill(Role::Agent).expect("the agent is killed");
    lab.kill(Role::NodeTunnel).expect("the tunnel is killed");
    let small = Small::over(&lab.run_dir(Role::Agent), "512k");
    lab.start(Role::NodeTunnel).expect("the tunnel starts");
    lab.start(Role::Agent).expect("the agent starts");
    lab.wait_ready().expect("everything is as before");
    let mut session = lab.open_session("cart", "no-room").expect("the session opens");

    small.fill();
    lab.network.add_pod(&id, Pod::new("shop", "late", &[("app", "cart")])).expect("the pod is joined");
    lab.save_pod(lab.pod("late")).expect("the pod is saved");
    let ledger = small.at.join("workloads.json");
    let wanted = format!("{}: cannot be written: No space left on device", ledger.display());
    comes_to("it says what is wrong", || lab.status(Role::Agent).ok(), "Programmed", "False", &wanted);
    for family in Family::ALL {
        let answer =
            |pod: &str| lab.place(pod).query(Service::KeyValueStore, family).expect("the client starts");
        assert_eq!(answer("cart"), Answer::Works, "what was granted works over {family:?}");
    }
    assert!(session.is_open(), "and what was open is open");
    assert_ne!(works(&lab), Answer::Works, "what nobody can remember is not granted");

    small.make_room();
    wait::for_true("the new pod is served", || works(&lab) == Answer::Works).expect("the new pod is served");
    assert!(session.is_open());
    lab.kill(Role::Agent).expect("the agent is killed");
    lab.kill(Role::NodeTunnel).expect("the tunnel is killed");
    drop(small);
    for role in [Role::NodeTunnel, Role::Agent] {
        lab.start(role).expect("the role starts");
    }
    lab.wait_ready().expect("everything is as before");
    lab.delete("pod-late.yaml").expect("the pod goes");
    let late = lab.network.pods.pop().expect("the pod is there");
    run("ip", &["netns", "delete", &late.netns]).expect("its namespace goes");
}

fn works(lab: &Lab) -> Answer {
    lab.place("late").query(Service::KeyValueStore, Family::V4).expect("the client starts")
}
