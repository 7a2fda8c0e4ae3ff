//! The verifier admits every program.

use enforcer_tests::prog::kernel::Kernel;

#[test]
fn every_program_loads() {
    let mut kernel = Kernel::with_flows(64, &[]);
    let mut programs = kernel.names();
    programs.sort();
    for program in [
        "connect4",
        "connect6",
        "from_host",
        "from_pod",
        "from_wire",
        "from_wire_l3",
        "into_tunnel",
        "out_of_tunnel",
        "sendmsg4",
        "sendmsg6",
        "to_pod",
        "to_wire",
        "to_wire_l3",
        "to_workload",
    ] {
        assert!(programs.iter().any(|name| name == program), "{program} is in the object: {programs:?}");
    }
    for program in programs {
        if let Err(error) = kernel.load(&program) {
            panic!("{program}: {error:#}");
        }
    }
}
