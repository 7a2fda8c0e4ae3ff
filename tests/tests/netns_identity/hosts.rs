//! Pods of the host's network: their cgroups tell them apart.

use std::fs;

use enforcer_tests::lab::{Lab, Place, Pod, manifests::pod_yaml, query::Answer};

use crate::{
    shared::lab,
    turn::{are_cut, comes_to, is_silent, sessions},
};

fn host_pod(lab: &Lab, name: &str, label: &str, cgroup: &str) -> Pod {
    let mut pod = Pod::new("shop", name, &[("app", label)]).host_network();
    pod.netns = lab.id.netns("node");
    pod.cgroup = lab.id.kube().join(cgroup);
    pod
}

#[test]
fn pods_of_the_hosts_network_are_told_apart_by_their_cgroups_at_any_depth() {
    let lab = lab();
    let pod = host_pod(&lab, "hostile", "audit", "hostile");
    for dir in ["hostile", "hostile/container", "hostnet/container"] {
        fs::create_dir_all(lab.id.kube().join(dir)).expect("the cgroup is made");
    }
    lab.save("pod-hostile.yaml", &pod_yaml(&lab.id, &pod)).expect("the pod is saved");
    let within = |cgroup: &str| Place { netns: pod.netns.clone(), cgroup: lab.id.kube().join(cgroup) };
    for cgroup in ["hostile", "hostile/container"] {
        comes_to(&lab, cgroup, &within(cgroup), &Answer::NotPermitted);
    }
    for cgroup in ["hostnet", "hostnet/container"] {
        comes_to(&lab, cgroup, &within(cgroup), &Answer::Works);
    }
    // Beside them, with the same address and in the same namespace, but of no pod.
    is_silent("a process of no pod", &lab.system());
    lab.delete("pod-hostile.yaml").expect("the pod goes");
}

#[test]
fn a_cgroup_made_anew_with_the_same_name_is_another_pods() {
    let lab = lab();
    let path = lab.id.kube().join("again");
    fs::create_dir_all(&path).expect("the cgroup is made");
    let mut pod = host_pod(&lab, "one", "cart", "again");
    let place = Place::from(&pod);
    lab.save("pod-again.yaml", &pod_yaml(&lab.id, &pod)).expect("the pod is saved");
    comes_to(&lab, "one", &place, &Answer::Works);
    // Same cgroup, other pod: the object alone changes.
    pod.name = "two".to_owned();
    pod.labels = vec![("app".to_owned(), "audit".to_owned())];
    lab.save("pod-again.yaml", &pod_yaml(&lab.id, &pod)).expect("the pod is saved");
    comes_to(&lab, "two", &place, &Answer::NotPermitted);
    // The next has the name, and nothing else of it.
    lab.delete("pod-again.yaml").expect("the pod goes");
    fs::remove_dir(&path).expect("the cgroup goes");
    fs::create_dir(&path).expect("the cgroup is made");
    pod.name = "three".to_owned();
    pod.labels = vec![("app".to_owned(), "cart".to_owned())];
    lab.save("pod-again.yaml", &pod_yaml(&lab.id, &pod)).expect("the pod is saved");
    comes_to(&lab, "three", &place, &Answer::Works);
    lab.delete("pod-again.yaml").expect("the pod goes");
}

#[test]
fn a_host_pod_that_loses_its_label_loses_its_sessions_and_its_neighbour_keeps_them() {
    let lab = lab();
    let open = sessions(&lab, "hostnet", "host-label");
    let mut kept = sessions(&lab, "cart", "host-neighbour");
    let lost = Pod { labels: vec![("app".into(), "audit".into())], ..lab.pod("hostnet").clone() };
    lab.save_pod(&lost).expect("the pod is saved");
    are_cut("hostnet lost its label", open);
    comes_to(&lab, "hostnet", &lab.place("hostnet"), &Answer::NotPermitted);
    assert!(kept.iter_mut().all(enforcer_tests::lab::session::Session::is_open), "cart's sessions go on");
}
