//! What is heard of a server that is not always there: nothing is lost, and nothing is taken for gone before a list is
//! complete.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use enforcer::{
    model::{Kind, Labels},
    source::kubernetes::{Cluster, Connect, Hearing, Interest, Pods, Resource, Written},
};
use enforcer_tests::{control_plane::ControlPlane, lab::wait};
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// A source that follows a server by a line, and everything that it has told.
struct Follower {
    told: Arc<Mutex<Vec<Seen>>>,
    heard: Arc<Mutex<Vec<Hearing>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Labels of each Service, by its name.
type Seen = BTreeMap<String, Labels>;

impl Follower {
    fn start(plane: &ControlPlane) -> Self {
        let kubeconfig = plane.kubeconfig_by_line().expect("a kubeconfig is written");
        let (stop, stopped) = oneshot::channel();
        let (told, heard) = <(Arc<Mutex<Vec<Seen>>>, Arc<Mutex<Vec<Hearing>>>)>::default();
        let (tell, hear) = (Arc::clone(&told), Arc::clone(&heard));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(follow(kubeconfig, stopped, &tell, &hear));
        });
        Self { told, heard, stop: Some(stop), thread: Some(thread) }
    }

    fn last(&self) -> Seen {
        self.told.lock().expect("nobody panics").last().cloned().unwrap_or_default()
    }

    fn wait(&self, what: &str, is_so: impl Fn(&Seen) -> bool) {
        wait::for_true(what, || is_so(&self.last()))
            .unwrap_or_else(|err| panic!("{err}: {:?}, {:?}", self.last(), self.heard.lock()));
    }

    /// Everything that it has told since it began.
    fn end(mut self) -> (Vec<Seen>, Vec<Hearing>) {
        drop(self.stop.take());
        self.thread.take().expect("it runs").join().expect("it does not panic");
        let take = |list: &Mutex<Vec<Hearing>>| list.lock().expect("nobody panics").clone();
        (self.told.lock().expect("nobody panics").clone(), take(&self.heard))
    }
}

async fn follow(
    kubeconfig: std::path::PathBuf,
    mut stopped: oneshot::Receiver<()>,
    tell: &Mutex<Vec<Seen>>,
    hear: &Mutex<Vec<Hearing>>,
) {
    let connect = Connect { kubeconfig: Some(kubeconfig), context: None };
    let cluster = Cluster::connect(&connect).await.expect("it is configured");
    let interest = Interest { pods: Pods::None, only_services: true, written: Written::Nothing };
    let mut watched = cluster.follow(&interest);
    loop {
        tokio::select! {
            changed = watched.told.changed() => {
                changed.expect("it is followed on");
                let told = watched.told.borrow_and_update().clone();
                let services = told.snapshot.objects.values().filter(|object| object.kind() == Kind::Service);
                let seen = services.map(|service| (service.metadata.name.clone(), service.metadata.labels.clone()));
                tell.lock().expect("nobody panics").push(seen.collect());
            }
            changed = watched.heard.changed() => {
                changed.expect("it is followed on");
                let heard = watched.heard.borrow_and_update().clone();
                hear.lock().expect("nobody panics").push(heard);
            }
            _ = &mut stopped => return,
        }
    }
}

/// Headless: no address is given out.
fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "clusterIP": "None", "ports": [{ "port": 1 }] },
    })
}

fn name(number: usize) -> String {
    format!("service-{number:03}")
}

#[test]
fn a_server_that_forgot_is_listed_again_and_nothing_goes_before_the_list_is_complete() {
    let mut plane = ControlPlane::start().expect("the control plane starts");
    let api = plane.api().expect("there is a client");
    api.create_all((0..600).map(name).map(|name| service(&name)).collect()).expect("they are made");
    let line = plane.line(None).expect("there is a line");
    let follower = Follower::start(&plane);
    follower.wait("all are told", |seen| seen.len() == 601);
    let before = follower.last();
    let version = plane.kubectl(&["get", "--raw", "/api/v1/services?limit=1"]).expect("it answers");
    let version: Value = serde_json::from_str(&version).expect("JSON");
    let version = version["metadata"]["resourceVersion"].as_str().expect("a list has a version").to_owned();

    line.cut();
    api.delete_all(vec![service(&name(5))]).expect("it is deleted");
    api.create(&service("late")).expect("it is made");
    // What a server that has just begun has not seen itself, it does not know any more.
    plane.restart().expect("it starts again");
    let watch = format!("/api/v1/services?watch=1&timeoutSeconds=1&resourceVersion={version}");
    let forgotten = plane.kubectl(&["get", "--raw", &watch]);
    let forgotten = forgotten.unwrap_or_else(|refused| refused.to_string());
    assert!(forgotten.contains("too old resource version"), "{forgotten}");

    // A page and a half of three: every list breaks off.
    let page =
        plane.kubectl(&["get", "--raw", "/api/v1/services?limit=250"]).expect("it answers").len() as u64;
    line.break_after(page + page / 2);
    line.mend();
    wait::for_true("lists break off", || line.broken() > 2).expect("they do");
    follower.wait("what is new is told, what may be gone is not", |seen| {
        seen.contains_key("late") && before.keys().all(|name| seen.contains_key(name))
    });

    line.break_after(u64::MAX);
    let mut after: BTreeSet<String> = before.keys().cloned().collect();
    after.remove(&name(5));
    after.insert("late".to_owned());
    follower.wait("the whole list is told", |seen| seen.keys().eq(&after));
    wait::for_true("it is heard again", || {
        follower.heard.lock().expect("nobody panics").last().is_some_and(|heard| heard.silent.is_none())
    })
    .expect("it is heard");
    let (told, heard) = follower.end();
    let stays = |seen: &Seen| after.iter().all(|name| name == "late" || seen.contains_key(name));
    assert!(told.iter().all(stays), "nothing that is there was ever taken for gone");
    let silent: Vec<_> = heard.iter().filter_map(|heard| heard.silent.as_deref()).collect();
    assert!(silent.iter().any(|why| why.ends_with("; what it said last is in force")), "{silent:?}");
}

#[test]
fn no_change_is_lost_on_a_line_that_is_cut_all_the_time() {
    let plane = ControlPlane::start().expect("the control plane starts");
    let api = plane.api().expect("there is a client");
    api.create_all((0..20).map(name).map(|name| service(&name)).collect()).expect("they are made");
    let line = plane.line(None).expect("there is a line");
    let follower = Follower::start(&plane);
    follower.wait("all are told", |seen| seen.len() == 21);
    for round in 0..30 {
        let label = |number| {
            let mut change = service(&name(number));
            change["metadata"]["labels"] = json!({ "round": format!("{round}-{number}") });
            change
        };
        api.change_all((0..20).filter(|number| number % 3 == round % 3).map(label).collect())
            .expect("they change");
        line.interrupt();
        api.delete_all(vec![service(&name(round % 20))]).expect("one goes");
        api.create(&service(&format!("later-{round:02}"))).expect("one comes");
        api.create(&service(&name(round % 20))).expect("the other comes back");
        line.interrupt();
    }
    // For good: what comes back would hide that nobody was told.
    follower.wait("the last ones are told", |seen| {
        ["later-28", "later-29"].iter().all(|name| seen.contains_key(*name))
    });
    line.cut();
    api.delete_all(vec![service("later-28")]).expect("it goes while nobody listens");
    line.mend();
    let listed = api.list(&Resource::of(Kind::Service)).expect("it answers");
    let labels =
        |service: &Value| serde_json::from_value(service["metadata"]["labels"].clone()).unwrap_or_default();
    let there: Seen = listed
        .iter()
        .map(|service| (service["metadata"]["name"].as_str().expect("a name").to_owned(), labels(service)))
        .collect();
    follower.wait("everything is as the server has it", |seen| *seen == there);
    api.delete_all(vec![service("later-29")]).expect("it goes before their eyes");
    follower.wait("what goes is told", |seen| !seen.contains_key("later-29"));
}
