//! What services see of their clients, and how the gateway chooses among endpoints.

use enforcer_tests::lab::{
    Lab,
    manifests::{PROJECT, Service},
    network::{self, BACKEND_SIDE4, BACKEND_SIDE6, SERVER4, SERVER6, ip},
    query::Family,
    servers::USER,
    wait,
};

use super::shared::{lab, probe};

const ECHO_PORT: u16 = 9999;
const ECHO: &str = "keyvaluestore-echo.shop.svc.cluster.local";

/// A destination of datagrams, its server, and a grant.
fn start_echo(lab: &mut Lab) {
    let log = lab.id.log("echo");
    let server = lab.elsewhere("svc").start_plain(
        env!("CARGO_BIN_EXE_enforcer-lab"),
        &["udp-echo", &ECHO_PORT.to_string()],
        &log,
    );
    lab.processes.insert("echo".into(), server.expect("the server starts"));
    let api = "apiVersion: enforcer.dev/v1alpha1";
    let yaml = format!(
        "{api}\nkind: KeyValueStore\nmetadata: {{name: echo, namespace: {PROJECT}}}\nspec:\n  \
         gateways: [{}]\n  ports: [{{name: echo, port: {ECHO_PORT}, protocol: UDP}}]\n  endpoints:\n  \
         - address: {SERVER4}\n  - address: \"{SERVER6}\"\n---\n{api}\nkind: ServiceConnection\n\
         metadata: {{name: echo, namespace: {PROJECT}}}\nspec:\n  source: {{kind: KubernetesCluster, name: lab, \
         podSelector: {{matchLabels: {{app: cart}}}}}}\n  destination: {{kind: KeyValueStore, name: echo}}\n",
        lab.id.gateway(),
    );
    lab.save("echo.yaml", &yaml).expect("the destination is saved");
}

/// Asks the echo server from a pod until it answers; the first datagrams may come before the grant.
fn ask_echo(lab: &Lab, pod: &str, family: Family) -> String {
    let mut last = String::new();
    let answer = wait::until("the echo server answers", || {
        let address = lab.place(pod).resolve(ECHO, family).ok()??;
        let address = match family {
            Family::V4 => format!("{address}:{ECHO_PORT}"),
            Family::V6 => format!("[{address}]:{ECHO_PORT}"),
        };
        let outcome = probe(lab, pod, &["udp-ask", &address, "hello"]);
        last = outcome.said();
        outcome.success.then_some(outcome.stdout)
    });
    answer.unwrap_or_else(|err| panic!("{pod} over {family:?}: {err:#}: {last}"))
}

#[test]
fn datagrams_go_through_the_tunnel_and_back() {
    let mut lab = lab();
    start_echo(&mut lab);
    for pod in ["cart", "hostnet"] {
        for (family, gateway) in
            [(Family::V4, BACKEND_SIDE4.to_owned()), (Family::V6, format!("[{BACKEND_SIDE6}]"))]
        {
            let answer = ask_echo(&lab, pod, family);
            assert!(answer.starts_with(&format!("hello from {gateway}:")), "{pod} over {family:?}: {answer}");
        }
    }
}

/// The client's address as PostgreSQL sees it.
fn seen_by_postgres(lab: &Lab, family: Family) -> String {
    let place = lab.place("cart");
    let address =
        place.resolve(&Service::Postgres.fqdn(), family).expect("the resolver runs").expect("it is known");
    let query = ["-XAtq", "-h", &address, "-U", USER, "-d", USER, "-c", "select inet_client_addr()"];
    let outcome = place.run("psql", &query).expect("psql starts");
    assert!(outcome.success, "psql over {family:?}: {}", outcome.said());
    outcome.stdout.trim().to_owned()
}

#[test]
fn masquerade_shows_services_the_gateway() {
    let lab = lab();
    assert_eq!(seen_by_postgres(&lab, Family::V4), BACKEND_SIDE4);
    assert_eq!(seen_by_postgres(&lab, Family::V6), BACKEND_SIDE6);
}

#[test]
fn preserve_shows_services_the_workload() {
    let mut lab = lab();
    // Without this the services' host would not know where the workloads are.
    let routes = format!(
        "route replace 198.19.0.0/16 via {BACKEND_SIDE4}\n-6 route replace fd00::/8 via {BACKEND_SIDE6}"
    );
    ip(&lab.id.netns("svc"), &routes).expect("the routes are set");
    lab.save_tunnel_ends("  sourceMode: preserve\n").expect("the gateway is saved");
    wait::for_true("PostgreSQL sees the workload", || {
        seen_by_postgres(&lab, Family::V4).starts_with("198.19.")
    })
    .expect("the mode changes");
    assert!(seen_by_postgres(&lab, Family::V6).starts_with("fd"), "over IPv6 as well");
    lab.save_tunnel_ends("").expect("the gateway is saved");
    wait::for_true("PostgreSQL sees the gateway", || seen_by_postgres(&lab, Family::V4) == BACKEND_SIDE4)
        .expect("the mode changes back");
    lab.wait_ready().expect("everything is ready again");
}

#[test]
fn new_connections_avoid_an_endpoint_that_does_not_answer() {
    let lab = lab();
    // Nothing has the second address; PostgreSQL answers on the first.
    let yaml = format!(
        "apiVersion: enforcer.dev/v1alpha1\nkind: Postgres\nmetadata: {{name: orders, namespace: {PROJECT}}}\nspec:\n  \
         gateways: [{}]\n  endpoints:\n  - address: {SERVER4}\n  - address: 203.0.113.77\n  - address: \"{SERVER6}\"\n",
        lab.id.gateway(),
    );
    lab.save("orders.yaml", &yaml).expect("the destination is saved");
    let mut in_a_row = 0;
    wait::for_true("eight connections in a row", || {
        let works =
            lab.place("cart").query(Service::Postgres, Family::V4).is_ok_and(|a| a.to_string() == "works");
        in_a_row = if works { in_a_row + 1 } else { 0 };
        in_a_row == 8
    })
    .expect("the dead endpoint is avoided");
}

#[test]
fn the_gateway_reaches_no_backend_that_the_administrator_did_not_list() {
    let lab = lab();
    let yaml = format!(
        "apiVersion: enforcer.dev/v1alpha1\nkind: Postgres\nmetadata: {{name: orders, namespace: {PROJECT}}}\nspec:\n  \
         gateways: [{}]\n  endpoints:\n  - address: {}\n",
        lab.id.gateway(),
        network::NODE4,
    );
    lab.save("orders.yaml", &yaml).expect("the destination is saved");
    wait::for_true("PostgreSQL is out of reach", || {
        lab.place("cart")
            .query(Service::Postgres, Family::V4)
            .is_ok_and(|answer| answer.to_string() != "works")
    })
    .expect("the endpoint is refused");
}
