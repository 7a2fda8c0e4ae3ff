//! What watches say, as values: nothing goes that a list did not leave out, nothing is told that is not whole.

use serde_json::json;

use super::*;
use crate::model::TunnelNodeSpec;

fn pod(name: &str, uid: &str, label: &str) -> Value {
    json!({
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": uid,
            "labels": { "app": label },
            "annotations": { "enforcer.dev/netns": "/run/netns/another", "more": "than we need" },
        },
        "spec": { "nodeName": "n1", "containers": [{ "name": "c", "image": "i" }] },
        "status": { "phase": "Running", "podIPs": [{ "ip": "10.0.0.2" }] },
    })
}

fn put(kind: Kind, document: Value) -> Event {
    Event::Put(Box::new(Taken::of(kind, document).unwrap()))
}

fn names(told: &Told) -> Vec<&str> {
    told.snapshot.objects.keys().map(|key| key.name.as_str()).collect()
}

/// A view of one watch of pods that has listed these.
fn listed(pods: &[&str]) -> View {
    let mut view = View::new(1);
    view.take(0, Event::Begin);
    for name in pods {
        view.take(0, put(Kind::Pod, pod(name, name, "web")));
    }
    view.take(0, Event::Complete);
    view
}

#[test]
fn nothing_is_told_before_every_list_is_complete() {
    let mut view = View::new(2);
    view.take(0, Event::Begin);
    view.take(0, put(Kind::Pod, pod("a", "1", "web")));
    view.take(0, Event::Complete);
    assert!(view.tell().is_none());
    view.take(1, Event::Begin);
    assert!(view.tell().is_none());
    view.take(1, Event::Complete);
    assert_eq!(names(&view.tell().unwrap()), ["a"]);
    assert!(view.tell().is_none(), "nothing new");
}

#[test]
fn a_list_that_begins_again_removes_nothing_before_it_is_complete() {
    let mut view = listed(&["a", "b"]);
    assert_eq!(names(&view.tell().unwrap()), ["a", "b"]);
    view.take(0, Event::Begin);
    view.take(0, put(Kind::Pod, pod("c", "c", "web")));
    assert_eq!(names(&view.tell().unwrap()), ["a", "b", "c"]);
    // It fails half way, and begins once more.
    view.take(0, Event::Begin);
    view.take(0, put(Kind::Pod, pod("b", "b", "web")));
    assert!(view.tell().is_none());
    view.take(0, Event::Complete);
    assert_eq!(names(&view.tell().unwrap()), ["b"]);
    view.take(0, Event::Gone(ObjectKey::new(Kind::Pod, "shop", "b")));
    assert_eq!(names(&view.tell().unwrap()), Vec::<&str>::new());
}

#[test]
fn what_nothing_is_made_of_changes_nothing() {
    let mut view = listed(&["a"]);
    let first = view.tell().unwrap();
    let mut same = pod("a", "a", "web");
    same["status"]["conditions"] = json!([{ "type": "Ready", "status": "True" }]);
    view.take(0, put(Kind::Pod, same));
    assert!(view.tell().is_none());
    view.take(0, put(Kind::Pod, pod("a", "a", "other")));
    let second = view.tell().unwrap();
    assert_eq!(second.snapshot.revision, first.snapshot.revision + 1);
}

#[test]
fn a_pod_does_not_say_where_it_is() {
    let mut view = listed(&["a"]);
    let told = view.tell().unwrap();
    let object = told.snapshot.objects.values().next().unwrap();
    assert_eq!(object.metadata.annotations, crate::model::Labels::new());
}

fn postgres(uid: &str, address: &str) -> Value {
    json!({
        "metadata": { "name": "pg", "namespace": "shop", "uid": uid, "resourceVersion": "7", "generation": 2 },
        "spec": { "gateways": ["eu-1"], "endpoints": [{ "address": address }] },
        "status": { "number": 3 },
    })
}

#[test]
fn an_object_that_says_nonsense_is_what_it_said_last_until_another_has_its_name() {
    let mut view = View::new(1);
    view.take(0, Event::Begin);
    view.take(0, put(Kind::Postgres, postgres("1", "192.0.2.1")));
    view.take(0, Event::Complete);
    let good = view.tell().unwrap();
    let key = ObjectKey::new(Kind::Postgres, "shop", "pg");
    view.take(0, put(Kind::Postgres, postgres("1", "nonsense")));
    let kept = view.tell().unwrap();
    assert_eq!(kept.snapshot.objects, good.snapshot.objects);
    let why = "Postgres shop/pg: spec.endpoints[0].address: \"nonsense\", expected an IP address";
    assert_eq!(kept.snapshot.kept, BTreeMap::from([(key.clone(), why.to_owned())]));
    assert!(!kept.snapshot.incomplete);

    view.take(0, put(Kind::Postgres, postgres("2", "nonsense")));
    let another = view.tell().unwrap();
    assert_eq!(another.snapshot.objects, BTreeMap::new());
    assert!(another.snapshot.incomplete, "nothing is freed while it is not known what it means");
    let why = "spec.endpoints[0].address: \"nonsense\", expected an IP address";
    assert_eq!(*another.refused, BTreeMap::from([(key, why.to_owned())]));
}

fn node(asked: &str, accepted: Option<&str>) -> Value {
    let mut node = json!({
        "metadata": { "name": "n1", "uid": "1", "resourceVersion": "9" },
        "spec": { "publicKey": asked, "cluster": "blue", "node": "n1" },
    });
    if let Some(accepted) = accepted {
        node["status"] = json!({
            "publicKey": accepted,
            "cluster": "green",
            "node": "n7",
            "number": 2,
            "ranges": {
                "ula": "fd00:1:2::/48",
                "service": "198.18.0.0/16",
                "workload": "198.19.0.0/16",
                "blocks": ["198.19.0.64/26"],
            },
        });
    }
    node
}

#[test]
fn a_node_is_the_one_that_the_controller_has_accepted_whatever_its_spec_says() {
    let (first, stolen) =
        ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAI=");
    let told = |asked, accepted| {
        let mut view = View::new(1);
        view.take(0, Event::Begin);
        view.take(0, put(Kind::TunnelNode, node(asked, accepted)));
        view.take(0, Event::Complete);
        view.tell().unwrap()
    };
    let spec_of = |told: &Told| match &told.snapshot.objects.values().next().unwrap().spec {
        Spec::TunnelNode(spec) => spec.clone(),
        other => panic!("{other:?}"),
    };
    let spec = |key: &str, cluster: &str, node: &str| TunnelNodeSpec {
        public_key: key.into(),
        cluster: cluster.into(),
        node: node.into(),
    };
    assert_eq!(spec_of(&told(first, None)), spec(first, "blue", "n1"));
    let told = told(stolen, Some(first));
    assert_eq!(spec_of(&told), spec(first, "green", "n7"));
    assert_eq!(told.facts.values().next().unwrap().asked, Some(spec(stolen, "blue", "n1")));
    let state = told.state.unwrap();
    let place = &state.nodes["n1"];
    assert_eq!((place.number, place.v4.to_string()), (2, "198.19.0.65".to_owned()));
    assert_eq!(
        (place.v6.to_string(), place.subnet.to_string()),
        ("fd00:1:2:1002::1".into(), "fd00:1:2:1002::/64".into())
    );
}
