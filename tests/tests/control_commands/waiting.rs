//! Commands on a folder that a controller reads.

use std::process::Command;

use enforcer_tests::lab::{Running, enforcer, wait};

use super::desk::{Desk, EVERY_KIND, Said, words};

/// A controller on the folder; ends with this value.
struct Controller(Option<Running>);

impl Controller {
    fn start(desk: &Desk) -> Self {
        let mut command = Command::new(enforcer().expect("the binary is built"));
        let line = "controller --manifests objects --run-dir run --state state.json";
        command.current_dir(&desk.dir).args(words(line));
        Self(Some(Running::start(&mut command, &desk.dir.join("controller.log")).expect("it starts")))
    }

    fn kill(&mut self) {
        if let Some(running) = self.0.take() {
            running.kill().expect("it is killed");
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn waiting_ends_with_the_name_to_connect_to_or_with_the_reason_why_not() {
    let desk = Desk::new();
    let on = |line: &str| desk.run(&format!("{line} --manifests objects --state state.json"));
    let connection = "create sc cart-orders -n shop --source=kc/my-cluster --destination=postgres/orders";

    let alone = on(&format!("{} --wait --timeout 0", EVERY_KIND[0]));
    assert_eq!(alone.code, Some(4), "{alone:?}");
    let why =
        "TunnelGateway eu-1 is not ready after 0 s: no controller has seen it yet: there is no state.json";
    assert!(alone.err.contains(why), "{alone:?}");

    let mut controller = Controller::start(&desk);
    let early = on(&format!("{connection} --wait --timeout 1"));
    assert_eq!(early.code, Some(4), "{early:?}");
    assert_eq!(
        early.out,
        "serviceconnection.enforcer.dev/cart-orders created in objects/serviceconnection-shop-cart-orders.yaml\n"
    );
    let why = "enforcer: ServiceConnection shop/cart-orders is not ready after 1 s: spec.destination: no Postgres \
               shop/orders, expected one that exists (DestinationNotFound)\n";
    assert!(early.err.starts_with("note: there is no Postgres shop/orders\n"), "{}", early.err);
    assert!(early.err.ends_with(why), "{}", early.err);

    let ready = on(&format!("{} --wait", EVERY_KIND[4]));
    assert_eq!(
        ready.out,
        "postgres.enforcer.dev/orders created in objects/postgres-shop-orders.yaml\n\
         Postgres shop/orders is ready: postgres-orders.shop.svc.cluster.local\n",
        "{}",
        ready.err
    );
    let table = "NAME          SOURCE                         DESTINATION       DESTINATION-DNS                          READY\n\
                 cart-orders   kubernetescluster/my-cluster   postgres/orders   postgres-orders.shop.svc.cluster.local   True\n";
    wait::for_true("the controller's status is in its file", || {
        on("get serviceconnection") == Said::done(table)
    })
    .expect("the table is as it should be");
    assert_eq!(desk.run("get serviceconnection --run-dir run"), Said::done(table), "the role says the same");

    let gone = on("delete sc cart-orders -n shop --wait");
    assert_eq!(gone.code, Some(0), "{gone:?}");
    controller.kill();
    let stays = on("delete pg orders -n shop --wait --timeout 0");
    assert_eq!(stays.code, Some(4), "{stays:?}");
    assert!(stays.err.contains("no controller has seen it go yet, says state.json"), "{}", stays.err);
}

#[test]
fn a_role_is_only_looked_at() {
    let desk = Desk::new();
    let _controller = Controller::start(&desk);
    let create = || desk.run(&format!("{} --run-dir run", EVERY_KIND[4]));
    let refusal = "objects are written with --manifests DIR, or to an API server with --kubeconfig FILE";
    wait::for_true("the role refuses", || create().err.contains(refusal)).expect("the role refuses");
    assert_eq!(create().code, Some(1));
    assert_eq!(desk.files(), []);
}
