//! Pods that come and go within a test, and what becomes of questions from where they are.

use std::fs;

use enforcer_tests::lab::{
    Lab, Place, Pod, Role,
    command::run,
    manifests::{Service, pod_yaml},
    network::{host_end, ip},
    query::{Answer, Family},
    session::Session,
    wait,
};
use serde_json::Value;

/// Waits until a question over both families gets this answer, from any place that can be one of the lab's.
pub fn comes_to(lab: &Lab, what: &str, place: &Place, wanted: &Answer) {
    for family in Family::ALL {
        let mut last = None;
        let reached = wait::for_true("the answer changes", || {
            last = place.query(Service::Postgres, family).ok();
            last.as_ref() == Some(wanted)
        });
        let status = lab.status(Role::Agent);
        assert!(reached.is_ok(), "{what} should come to {wanted} over {family:?}, last: {last:?} {status:?}");
    }
}

/// Sessions over both families.
pub fn sessions(lab: &Lab, pod: &str, name: &str) -> Vec<Session> {
    let open = |family: Family| lab.open_session_over(pod, &format!("{name}-{}", family.name()), family);
    Family::ALL.map(|family| open(family).expect("the session opens")).into()
}

/// All of them end with an error.
pub fn are_cut(what: &str, sessions: Vec<Session>) {
    for session in sessions {
        let (end, said) = session.end().expect("psql is waited for");
        assert!(
            end.is_some_and(|status| !status.success()),
            "{what}: a session goes on or ended well: {said}"
        );
    }
}

/// Adds a pod to the node and its object to the folder.
pub fn add(lab: &mut Lab, name: &str, label: &str) {
    let id = lab.id.clone();
    lab.network.add_pod(&id, Pod::new("shop", name, &[("app", label)])).expect("the pod is joined");
    lab.save_pod(lab.pod(name)).expect("the pod is saved");
}

/// Another pod's object in the place of one that goes, in one step: everything but name, uid and labels stays.
pub fn replace(lab: &mut Lab, old: &str, new: &str, label: &str) {
    let file = file_of(lab, old).expect("the pod has a file");
    let pod = lab.network.pods.iter_mut().find(|pod| pod.name == old).expect("the pod is there");
    new.clone_into(&mut pod.name);
    pod.labels = vec![("app".to_owned(), label.to_owned())];
    let yaml = pod_yaml(&lab.id, pod);
    lab.save(&file, &yaml).expect("the pod is saved");
}

/// Name of the file that has a pod's object.
fn file_of(lab: &Lab, pod: &str) -> Option<String> {
    let entries = fs::read_dir(lab.id.manifests()).expect("the folder is there");
    let is_pods = |path: &std::path::PathBuf| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.contains(&format!("\n  name: {pod}\n")) && text.contains("kind: Pod")
    };
    let path = entries.flatten().map(|entry| entry.path()).find(is_pods)?;
    path.file_name()?.to_str().map(str::to_owned)
}

/// Takes a pod's object away; its namespace stays, and its number is nobody else's.
pub fn forget(lab: &Lab, name: &str) {
    if let Some(file) = file_of(lab, name) {
        lab.delete(&file).expect("the file goes");
    }
}

/// Takes the rest of a pod away as well.
pub fn remove(lab: &mut Lab, name: &str) {
    forget(lab, name);
    let index = lab.network.pods.iter().position(|pod| pod.name == name).expect("the pod is there");
    let pod = lab.network.pods.remove(index);
    remove_netns(lab, &pod);
}

/// Takes a pod's namespace and device away.
pub fn remove_netns(lab: &Lab, pod: &Pod) {
    run("ip", &["netns", "delete", &pod.netns]).expect("the namespace goes");
    let (node, device) = (lab.id.netns("node"), host_end(pod));
    wait::for_true("the device goes along", || run("ip", &["-n", &node, "link", "show", &device]).is_err())
        .expect("the device goes along");
}

/// Over both families there is no answer and no refusal either.
pub fn is_silent(what: &str, place: &Place) {
    std::thread::scope(|scope| {
        for family in Family::ALL {
            scope.spawn(move || {
                let answer = place.query(Service::Postgres, family).expect("the client starts");
                assert_eq!(answer, Answer::Silence, "{what} over {family:?}");
            });
        }
    });
}

/// Index of the node's end of a pod's veth.
pub fn ifindex(lab: &Lab, pod: &Pod) -> String {
    let node = lab.id.netns("node");
    let path = format!("/sys/class/net/{}/ifindex", host_end(pod));
    run("ip", &["netns", "exec", &node, "cat", &path]).expect("the device is there").trim().to_owned()
}

/// Makes the namespace of a pod that is gone again: same name, same device with the same index, same addresses.
pub fn rebuild(lab: &Lab, pod: &Pod, ifindex: &str) {
    let (node, netns, host_end) = (lab.id.netns("node"), &pod.netns, host_end(pod));
    let [v4, v6] = pod.addresses();
    enforcer_tests::lab::network::add_netns(netns).expect("the namespace is made");
    let lines = format!(
        "link add {host_end} index {ifindex} type veth peer name eth0 netns {netns}
         addr add 169.254.1.1/32 dev {host_end}
         addr add fe80::1/64 dev {host_end} nodad
         link set {host_end} up"
    );
    ip(&node, &lines).expect("the node's end is made");
    let lines = format!(
        "addr add {v4}/32 dev eth0
         addr add {v6}/128 dev eth0 nodad
         addr add fe80::2/64 dev eth0 nodad
         link set eth0 up
         route add 169.254.1.1 dev eth0
         route add default via 169.254.1.1 dev eth0
         -6 route add default via fe80::1 dev eth0"
    );
    ip(netns, &lines).expect("the pod's end is made");
    ip(&node, &format!("route add {v4}/32 dev {host_end}\n-6 route add {v6}/128 via fe80::2 dev {host_end}"))
        .expect("the routes are made");
}

/// What the agent says about a pod: its workload id and workload addresses.
pub fn workload(lab: &Lab, name: &str) -> Option<(u64, Vec<String>)> {
    let status = lab.status(Role::Agent).ok()?;
    let title = format!("shop/{name}");
    let pod = status["pods"].as_array()?.iter().find(|pod| pod["pod"] == title)?.clone();
    let addresses =
        pod["addresses"].as_array()?.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    Some((pod["workload"].as_u64()?, addresses))
}
