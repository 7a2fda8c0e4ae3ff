//! The API server is away: what it said last is enforced, and said; afterwards everything is caught up with.

use std::{
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use enforcer::{
    model::Kind,
    netns::{path_of, run_in},
    source::kubernetes::Resource,
};
use enforcer_tests::{
    api_lab::{ApiLab, NewPod, connection, destination},
    lab::{Place, Pod, Role, Running, network::SERVER4, wait},
};
use serde_json::{Value, json};

/// Takes connections on the services' host and keeps them.
fn serve(on: &ApiLab) {
    let listener = run_in(&path_of(&on.lab.id.netns("svc")), || TcpListener::bind((SERVER4, 5432)));
    let listener = listener.flatten().expect("it listens");
    thread::spawn(move || listener.incoming().filter_map(Result::ok).collect::<Vec<_>>());
}

/// Whether a pod may connect; what it is told otherwise.
fn connects(place: &Place, address: &str) -> Result<(), String> {
    let script = format!("exec 3<>/dev/tcp/{address}/5432");
    let outcome = place.run("timeout", &["10", "bash", "-c", &script]).expect("bash starts");
    if outcome.success { Ok(()) } else { Err(outcome.said()) }
}

fn refused(place: &Place, address: &str) -> bool {
    connects(place, address).is_err_and(|said| said.contains("Operation not permitted"))
}

/// What becomes of the server.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Away {
    /// Whoever has a connection is told.
    Killed,
    /// It takes connections and requests, and says nothing more.
    Hangs,
}

/// A granted pod with an open session, another pod, and every role.
struct Scene {
    on: ApiLab,
    cart: Place,
    audit: Place,
    /// The grant of cart.
    grant: Value,
    /// Of the service.
    address: String,
    session: Running,
}

impl Scene {
    fn start() -> Self {
        let mut on = ApiLab::start().expect("the lab starts");
        let mut pods = Vec::new();
        for name in ["cart", "audit"] {
            let id = on.lab.id.clone();
            on.lab.network.add_pod(&id, Pod::new("shop", name, &[("app", name)])).expect("it is joined");
            let pod = on.lab.pod(name);
            let (netns, addresses) = (pod.netns.clone(), pod.addresses().to_vec());
            pods.push(NewPod { name: name.to_owned(), labels: json!({ "app": name }), netns, addresses });
        }
        let mut places = on.add_pods(&pods).expect("they are made");
        let mut place = |name| places.remove(name).expect("it was made");
        let (cart, audit) = (place("cart"), place("audit"));
        let gateway = on.lab.id.gateway();
        let grant = connection("cart", "orders", ("app", "cart"));
        on.api.create_all(vec![destination("orders", &gateway), grant.clone()]).expect("they are made");
        serve(&on);
        on.start_roles().expect("they start");
        let address = wait::until("it has an address", || address(&on, "orders")).expect("it has one");
        wait::for_true("cart is granted", || connects(&cart, &address).is_ok()).expect("it is granted");
        wait::for_true("audit is known", || refused(&audit, &address)).expect("it is refused");
        let script = format!("exec 3<>/dev/tcp/{address}/5432; echo open; read -r -u 3 line; echo ended");
        let session = cart.start("bash", &["-c", &script], &on.lab.id.log("session")).expect("it starts");
        wait::for_true("the session is open", || on.lab.log("session").contains("open")).expect("it is open");
        Self { on, cart, audit, grant, address, session }
    }

    fn informed(&self, role: Role) -> String {
        self.on.condition(role, "Informed")
    }

    fn wait_informed(&self, roles: &[Role], what: &str, is_so: impl Fn(&str) -> bool) {
        for role in roles {
            wait::for_true(what, || is_so(&self.informed(*role)))
                .unwrap_or_else(|err| panic!("{err}: {role:?} {}", self.informed(*role)));
        }
    }

    fn server_goes_away(&mut self, away: Away) {
        self.wait_informed(&ALL, "it is informed", |said| said == "True Informed: ");
        match away {
            Away::Killed => self.on.plane.kill().expect("it is killed"),
            Away::Hangs => self.on.plane.pause().expect("it hangs"),
        }
        let server = self.on.plane.server();
        let begin = match away {
            Away::Killed => format!("False NoAnswer: {server}: "),
            Away::Hangs => format!("False NoAnswer: {server}: it does not answer; "),
        };
        self.wait_informed(&[Role::Agent, Role::Gateway], "it is said", |said| {
            said.starts_with(&begin) && said.ends_with("; what it said last is in force")
        });
        let leading = || self.on.condition(Role::Controller, "Leading");
        let why = "False NoAnswer: the lease cannot be had: ";
        wait::for_true("nobody leads", || leading().starts_with(why))
            .unwrap_or_else(|err| panic!("{err}: {}", leading()));
        let page = self.on.lab.ask(Role::Agent, &["status"]).expect("it answers");
        assert!(page.contains(&format!("FAIL  Informed: {server}: ")) && page.contains(" (since "), "{page}");
    }

    /// Also by an agent that has begun since.
    fn all_holds(&mut self, until: Instant) {
        self.holds();
        self.on.lab.kill(Role::Agent).expect("it is killed");
        self.on.lab.start(Role::Agent).expect("it starts again");
        let nothing = "; it has not told everything yet";
        self.wait_informed(&[Role::Agent], "it was told nothing", |said| said.ends_with(nothing));
        while Instant::now() < until {
            self.holds();
            thread::sleep(Duration::from_millis(500));
        }
        self.holds();
    }

    fn holds(&mut self) {
        assert_eq!(connects(&self.cart, &self.address), Ok(()), "what was granted is granted");
        assert!(refused(&self.audit, &self.address), "what was not is not");
        assert!(self.session.ended().is_none(), "a session goes on");
    }

    fn server_comes_back(&mut self, away: Away) {
        let (on, address) = (&mut self.on, &self.address);
        match away {
            Away::Killed => on.plane.restart().expect("it starts again"),
            Away::Hangs => on.plane.resume().expect("it goes on"),
        }
        let labels = json!({ "app": "cart" });
        let change =
            json!({ "kind": "Pod", "metadata": { "name": "audit", "namespace": "shop", "labels": labels } });
        on.api.change(&change).expect("it gets another label");
        wait::for_true("audit is granted", || connects(&self.audit, address).is_ok())
            .unwrap_or_else(|err| panic!("{err}: {:?}", connects(&self.audit, address)));
        assert!(self.session.ended().is_none(), "the session has outlived it all");
        on.api.create(&destination("late", &on.lab.id.gateway())).expect("it is made");
        wait::for_true("addresses are given out again", || {
            crate::outage::address(on, "late").as_deref() == Some("198.18.0.2")
        })
        .expect("they are");
        on.api.delete_all(vec![self.grant.clone()]).expect("it is deleted");
        wait::for_true("the session ends", || self.session.ended().is_some()).expect("it ends");
        wait::for_true("cart is refused", || refused(&self.cart, address)).expect("it is refused");
        self.wait_informed(&ALL, "it is informed again", |said| said == "True Informed: ");
    }
}

const ALL: [Role; 3] = [Role::Agent, Role::Gateway, Role::Controller];

fn address(on: &ApiLab, destination: &str) -> Option<String> {
    let object = on.api.get(&Resource::of(Kind::Postgres), "shop", destination).ok()??;
    object["status"]["addresses"][0].as_str().map(str::to_owned)
}

fn outage(away: Away, seconds: u64) {
    let mut scene = Scene::start();
    let began = Instant::now();
    scene.server_goes_away(away);
    scene.all_holds(began + Duration::from_secs(seconds));
    scene.server_comes_back(away);
}

#[test]
fn what_a_server_that_is_away_said_last_is_enforced_and_said_and_caught_up_with() {
    outage(Away::Killed, 8);
}

#[test]
fn what_a_server_that_hangs_said_last_is_enforced_and_said_and_caught_up_with() {
    outage(Away::Hangs, 0);
}

#[test]
#[ignore = "long: the API server is away for a minute"]
fn what_a_server_that_is_away_for_a_minute_said_last_is_enforced() {
    outage(Away::Killed, 60);
}
