//! Resolvers order addresses by where a UDP `connect` to each would go from: enforcer must not change the order.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use enforcer_tests::lab::{
    Lab, Place,
    manifests::Service,
    network::{GATEWAY4, GATEWAY6},
    query::Family,
};

use crate::shared::{address, lab};

/// Built with musl, whose resolver differs from the C library of this machine in how it probes.
fn musl(lab: &Lab) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/netns_sockets/resolve.c");
    let program = lab.id.dir.join("resolve");
    let output = Command::new("musl-gcc").args(["-static", "-o"]).arg(&program).arg(source).output();
    let output = output.expect("musl-gcc is there; `cargo xtask setup` installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

/// Addresses of a name as a program at a place orders them.
fn order(place: &Place, program: &str, args: &[&str]) -> Vec<String> {
    let outcome = place.run(program, args).expect("the resolver starts");
    assert!(outcome.success, "{program} {args:?}: {}", outcome.said());
    let mut found = Vec::new();
    for line in outcome.stdout.lines() {
        let address = line.split_whitespace().next().unwrap_or_default().to_owned();
        if !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// Names of the service, and of one guarded address beside one of the gateway's, which nobody guards: a refusal would put
/// the latter first.
fn names(lab: &Lab, guarded: [&str; 2]) -> Vec<(String, Vec<String>)> {
    let mixed4 = [guarded[0], GATEWAY6];
    let mixed6 = [guarded[1], GATEWAY4];
    let table = [(Service::Postgres.fqdn(), guarded), ("mixed4".into(), mixed4), ("mixed6".into(), mixed6)];
    let hosts = format!(
        "127.0.0.1 localhost\n{0} mixed4\n{1} mixed4\n{2} mixed6\n{3} mixed6\n",
        mixed4[0], mixed4[1], mixed6[0], mixed6[1]
    );
    for netns in [&lab.pod("cart").netns, &lab.pod("audit").netns, &lab.id.netns("node")] {
        // The namespace's own, beside its `resolv.conf` (see ip-netns(8)).
        fs::write(Path::new("/etc/netns").join(netns).join("hosts"), &hosts).expect("the names are written");
    }
    table.map(|(name, addresses)| (name, addresses.map(str::to_owned).into())).into()
}

#[test]
fn resolvers_give_the_same_order_with_and_without_the_hooks() {
    let lab = lab();
    let musl = musl(&lab).to_string_lossy().into_owned();
    let guarded = Family::ALL.map(|family| {
        address(&lab, "cart", Service::Postgres, family).expect("the service has an address").ip().to_string()
    });
    let names = names(&lab, [&guarded[0], &guarded[1]]);
    // The granted, those who are refused, and a process of no pod.
    let places = ["cart", "audit", "hostnet"].map(|pod| (pod, lab.place(pod)));
    for (title, with) in places.into_iter().chain([("node", lab.system())]) {
        let without = Place { cgroup: lab.id.tools(), ..with.clone() };
        for (name, addresses) in &names {
            for (program, args) in [("getent", vec!["ahosts", name]), (&musl, vec![name])] {
                let expected = order(&without, program, &args);
                assert_eq!(order(&with, program, &args), expected, "{title}: {program} {name}");
                let [mut found, mut wanted] = [expected, addresses.clone()];
                found.sort();
                wanted.sort();
                assert_eq!(found, wanted, "{title}: {program} {name} gives both families");
            }
        }
    }
}
