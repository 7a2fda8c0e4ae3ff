//! Random objects and random packets: `enforcer_common::verdict::decide` over a model of the objects in plain Rust, against
//! the TC programs on maps that the real `compile` and datapath have filled. Needs root; touches no device.
//!
//! A failure prints its seed and the smallest scene that still fails; `EF_SEED=…` begins there.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "prog_differential/kernel.rs"]
mod kernel;
#[path = "prog_differential/model.rs"]
mod model;
#[path = "prog_differential/scene.rs"]
mod scene;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use kernel::Node;
use model::{Program, expected};
use scene::{Probe, Random, Scene};

/// Packets for each scene.
const PACKETS: usize = 250;

/// Runs scenes until so many packets have been judged, by three programs each. Gives how often each verdict was right.
fn run(cases: usize) -> BTreeMap<String, usize> {
    let first: u64 = std::env::var("EF_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut node = Node::open();
    let mut judged = BTreeMap::new();
    let mut seed = first;
    while judged.values().sum::<usize>() < cases {
        let mut random = Random::new(seed);
        let scene = Scene::random(&mut random);
        node.enter(&scene);
        for _ in 0..PACKETS {
            let probe = Probe::random(&mut random, &scene);
            if let Some(found) = differs(&mut node, &scene, &probe) {
                let smallest = minimise(&mut node, scene, &probe);
                panic!("seed {seed}: {found}\n{probe:#?}\nin the smallest scene that fails:\n{smallest:#?}");
            }
            for program in Program::ALL {
                *judged.entry(format!("{:?}", expected(&scene, &probe, program))).or_default() += 1;
            }
        }
        seed += 1;
    }
    judged
}

/// What a program makes of a packet, where it is not what the model says.
fn differs(node: &mut Node, scene: &Scene, probe: &Probe) -> Option<String> {
    Program::ALL.iter().find_map(|program| {
        let wanted = expected(scene, probe, *program);
        let found = node.run(*program, probe, wanted).err()?;
        Some(format!("{program:?}: the model says {wanted:?}, the program {found}"))
    })
}

/// Takes objects away for as long as the packet is still judged differently.
fn minimise(node: &mut Node, mut scene: Scene, probe: &Probe) -> Scene {
    loop {
        let smaller = scene.without_one().into_iter().find(|smaller| {
            node.enter(smaller);
            differs(node, smaller, probe).is_some()
        });
        match smaller {
            Some(smaller) => scene = smaller,
            None => return scene,
        }
    }
}

#[test]
fn programs_decide_as_the_model_does() {
    let judged = run(20_000);
    let reasons = [
        "ClearSource",
        "ClearText",
        "Expired",
        "NoDestination",
        "NoGrant",
        "NotCarried",
        "NotGuardable",
        "Pending",
        "PortNotOffered",
        "Spoofed",
        "TunnelDown",
        "UnknownWorkload",
    ];
    let all = ["Allow".to_owned()].into_iter().chain(reasons.map(|reason| format!("Deny({reason})")));
    let all: BTreeSet<_> = all.chain(["Pass".to_owned()]).collect();
    assert_eq!(judged.keys().cloned().collect::<BTreeSet<_>>(), all, "every verdict is met: {judged:?}");
}

#[test]
#[ignore = "long: a million and more cases"]
fn programs_decide_as_the_model_does_a_million_times() {
    let started = Instant::now();
    let judged = run(1_000_000);
    eprintln!("{} cases in {:?}: {judged:?}", judged.values().sum::<usize>(), started.elapsed());
}
