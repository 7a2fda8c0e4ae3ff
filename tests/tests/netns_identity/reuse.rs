//! What one pod had, another gets.

use enforcer_tests::lab::{
    Role,
    manifests::Service,
    query::{Answer, Family},
    wait,
};
use nix::sys::signal::Signal;

use crate::{
    shared::{address, lab, probe},
    turn::{
        add, are_cut, comes_to, forget, ifindex, is_silent, rebuild, remove, remove_netns, replace, sessions,
        workload,
    },
};

#[test]
fn a_pod_in_the_namespace_of_another_has_its_own_identity_and_none_of_its_flows() {
    let mut lab = lab();
    add(&mut lab, "first", "cart");
    let place = lab.place("first");
    comes_to(&lab, "first", &place, &Answer::Works);
    let open = sessions(&lab, "first", "of-first");
    replace(&mut lab, "first", "second", "audit");
    are_cut("first became second, which is not granted", open);
    comes_to(&lab, "second", &place, &Answer::NotPermitted);

    replace(&mut lab, "second", "third", "cart");
    comes_to(&lab, "third", &place, &Answer::Works);
    let (id, addresses) = workload(&lab, "third").expect("the agent knows it");
    let open = sessions(&lab, "third", "of-third");
    // Granted as the one before: what was the other's is not its own all the same.
    replace(&mut lab, "third", "fourth", "cart");
    are_cut("third became fourth, which is granted by itself", open);
    comes_to(&lab, "fourth", &place, &Answer::Works);
    let (next_id, next_addresses) = workload(&lab, "fourth").expect("the agent knows it");
    assert!(next_id > id, "{next_id} after {id}");
    assert_ne!(next_addresses, addresses);
    remove(&mut lab, "fourth");
}

#[test]
fn a_namespace_made_anew_with_the_same_name_device_index_and_addresses_is_another_pods() {
    let mut lab = lab();
    add(&mut lab, "before", "cart");
    let place = lab.place("before");
    comes_to(&lab, "before", &place, &Answer::Works);
    let index = ifindex(&lab, lab.pod("before"));
    forget(&lab, "before");
    let mut pod = lab.pod("before").clone();
    remove_netns(&lab, &pod);
    rebuild(&lab, &pod, &index);
    assert_eq!(ifindex(&lab, &pod), index);
    // Nobody's yet: on the wire it is nothing, and its sockets are nobody's.
    is_silent("a namespace of no pod", &place);
    for (name, label, wanted) in [("after", "audit", Answer::NotPermitted), ("later", "cart", Answer::Works)]
    {
        pod.name = name.to_owned();
        pod.labels = vec![("app".to_owned(), label.to_owned())];
        lab.save("pod-after.yaml", &enforcer_tests::lab::manifests::pod_yaml(&lab.id, &pod)).expect("saved");
        comes_to(&lab, name, &place, &wanted);
    }
    lab.delete("pod-after.yaml").expect("the pod goes");
    remove(&mut lab, "before");
}

#[test]
fn a_workload_address_is_given_again_only_when_the_gateway_has_let_it_go() {
    let mut lab = lab();
    add(&mut lab, "early", "cart");
    let place = lab.place("early");
    comes_to(&lab, "early", &place, &Answer::Works);
    let (_, addresses) = workload(&lab, "early").expect("the agent knows it");
    let open = sessions(&lab, "early", "of-early");
    lab.process(Role::Gateway).signal(Signal::SIGSTOP).expect("the gateway is paused");
    forget(&lab, "early");
    wait::for_true("the agent has let it go", || workload(&lab, "early").is_none()).expect("it is gone");
    add(&mut lab, "meanwhile", "cart");
    let meanwhile = wait::until("the next pod has an address", || workload(&lab, "meanwhile"));
    lab.process(Role::Gateway).signal(Signal::SIGCONT).expect("the gateway goes on");
    let (_, given) = meanwhile.expect("the next pod has an address");
    assert_ne!(given, addresses, "the gateway has not said that it is free");
    are_cut("the pod is gone", open);
    let place = lab.place("meanwhile");
    comes_to(&lab, "meanwhile", &place, &Answer::Works);
    let ledger = lab.run_dir(Role::Agent).join("workloads.json");
    wait::for_true("the gateway lets go of it", || {
        std::fs::read_to_string(&ledger).is_ok_and(|text| !text.contains("uid-early"))
    })
    .expect("the gateway lets go of it");
    // Every pod that comes takes the first address that is free.
    let names: Vec<String> = (0..12).map(|count| format!("next{count}")).collect();
    let again = names.iter().position(|name| {
        add(&mut lab, name, "cart");
        let given = wait::until("the next pod has an address", || workload(&lab, name));
        given.expect("the next pod has an address").1 == addresses
    });
    assert!(again.is_some(), "{addresses:?} is given again");
    for name in &names[..=again.unwrap_or_default()] {
        remove(&mut lab, name);
    }
    remove(&mut lab, "meanwhile");
    remove(&mut lab, "early");
}

#[test]
fn a_completed_pod_whose_address_another_has_is_nobody() {
    let lab = lab();
    // As `kubectl get pods` shows them: the object stays, its address is plain's by now.
    let done = enforcer_tests::lab::Pod {
        name: "done".to_owned(),
        labels: vec![("app".to_owned(), "cart".to_owned())],
        ..lab.pod("plain").clone()
    };
    let yaml = enforcer_tests::lab::manifests::pod_yaml(&lab.id, &done);
    for phase in ["Succeeded", "Failed"] {
        lab.save("pod-done.yaml", &yaml.replace("phase: Running", &format!("phase: {phase}")))
            .expect("saved");
        // The mark that the file was read: another pod of the same moment is known.
        wait::for_true("the agent has read it", || lab.get("pod", "done").is_ok()).expect("it is read");
        for family in Family::ALL {
            let service = address(&lab, "cart", Service::Postgres, family).expect("it has an address");
            let outcome = probe(&lab, "plain", &["tcp-connect", &service.to_string()]);
            assert!(outcome.was_not_permitted(), "{phase}, over {family:?}: {}", outcome.said());
        }
        assert_eq!(workload(&lab, "done"), None, "a pod that has ended has no workload");
    }
    lab.delete("pod-done.yaml").expect("the pod goes");
}
