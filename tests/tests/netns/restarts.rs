//! The kernel keeps working while processes die.

use enforcer_tests::lab::{Lab, Role, Running, manifests::Service, query::Family, servers::USER, wait};
use nix::sys::signal::Signal;

use super::shared::{address, lab};

const ROUNDS: usize = 10;

/// `pgbench` in the granted pod, running until it is told to sum up.
struct Bench {
    process: Running,
    log: &'static str,
}

impl Bench {
    fn start(lab: &Lab, log: &'static str) -> Self {
        let server = lab.elsewhere("svc");
        let init = ["-h", "127.0.0.1", "-U", USER, "-i", "-q", "-s", "2", USER];
        let outcome = server.run("pgbench", &init).expect("pgbench starts");
        assert!(outcome.success, "pgbench makes its tables: {}", outcome.said());
        let service =
            address(lab, "cart", Service::Postgres, Family::V4).expect("the service has an address");
        let host = service.ip().to_string();
        let args = ["-h", &host, "-U", USER, "-n", "-c", "4", "-T", "3600", "-P", "1", USER];
        let process = lab.place("cart").start("pgbench", &args, &lab.id.log(log)).expect("pgbench starts");
        let bench = Self { process, log };
        bench.progresses(lab);
        bench
    }

    /// Waits until transactions have been made in some whole second from now on.
    fn progresses(&self, lab: &Lab) {
        let lines =
            |lab: &Lab| lab.log(self.log).lines().filter(|line| line.starts_with("progress:")).count();
        let start = lines(lab);
        wait::for_true("pgbench makes transactions", || {
            let log = lab.log(self.log);
            let mut new = log.lines().filter(|line| line.starts_with("progress:")).skip(start);
            new.any(|line| !line.contains(" 0.0 tps"))
        })
        .expect("transactions go on");
    }

    /// Ends it as the end of its time would, and returns what it sums up.
    fn finish(mut self, lab: &Lab) -> String {
        assert!(self.process.ended().is_none(), "pgbench has run until now: {}", lab.log(self.log));
        self.process.signal(Signal::SIGALRM).expect("pgbench gets the signal");
        let status = wait::until("pgbench ends", || self.process.ended()).expect("pgbench ends");
        let log = lab.log(self.log);
        assert!(status.success(), "pgbench succeeds: {log}");
        log
    }
}

/// No transaction failed; and since a client of pgbench never connects again, no connection broke either.
fn assert_unharmed(log: &str) {
    assert!(log.contains("number of failed transactions: 0 (0.000%)"), "{log}");
    assert!(!log.contains("aborted"), "{log}");
}

#[test]
fn roles_that_are_killed_ten_times_in_turn_disturb_no_transaction() {
    let mut lab = lab();
    let bench = Bench::start(&lab, "bench-roles");
    for round in 0..ROUNDS {
        for role in [Role::Agent, Role::Controller, Role::Gateway, Role::Dns] {
            lab.kill(role).expect("the role is killed");
            lab.start(role).expect("the role starts again");
            lab.wait_ready().unwrap_or_else(|err| panic!("round {round}, {role:?}: {err:#}"));
        }
        bench.progresses(&lab);
    }
    assert_unharmed(&bench.finish(&lab));
}

#[test]
fn a_tunnel_that_is_killed_stalls_and_loses_no_transaction() {
    let mut lab = lab();
    let bench = Bench::start(&lab, "bench-tunnels");
    for role in [Role::NodeTunnel, Role::GatewayTunnel] {
        lab.kill(role).expect("the tunnel is killed");
        lab.start(role).expect("the tunnel starts again");
        bench.progresses(&lab);
    }
    assert_unharmed(&bench.finish(&lab));
}
