//! What a person sets, and what they are told.

use super::*;

fn set(assignments: &[&str]) -> Result<Values, String> {
    let assignments: Vec<String> = assignments.iter().map(|text| (*text).to_owned()).collect();
    read(&[] as &[&str], &assignments).map_err(|error| error.to_string())
}

#[test]
fn what_is_set_wins_over_the_default_and_keeps_its_type() {
    let values = set(&[
        "image.tag=1.20",
        "gateway.enabled=true",
        "controller.replicas=3",
        "agent.resources.limits.cpu=1",
    ]);
    let values = values.unwrap();
    assert_eq!(values.image.tag, "1.20");
    assert!(values.gateway.enabled);
    assert_eq!(values.controller.replicas, 3);
    assert_eq!(values.agent.resources["limits"], json!({ "cpu": 1 }));
    assert_eq!(values.agent.resources["requests"]["cpu"], "50m", "what was not set stays");
    assert_eq!(set(&[]).unwrap(), Values::default());
}

#[test]
fn what_is_no_value_is_refused_with_the_one_that_was_meant() {
    for (assignment, message) in [
        ("image.tga=1", "there is no value image.tga: did you mean image.tag?"),
        ("gateway.enable=true", "there is no value gateway.enable: did you mean gateway.enabled?"),
        ("clusterName", "--set clusterName: expected KEY=VALUE"),
        ("clusterName.x=1", "there is no value clusterName.x: did you mean clusterName?"),
        ("image=enforcer:1", "value image: invalid type: string \"enforcer:1\", expected struct Image"),
        ("image.pullPolicy=never", "value image.pullPolicy: expected Always, IfNotPresent or Never"),
        (
            "controller.replicas=0",
            "value controller.replicas: expected at least 1: nothing gets an address without it",
        ),
        (
            "ranges.service=198.18.0.1/16",
            "value ranges.service: 198.18.0.1/16 has bits beyond its length, expected 198.18.0.0/16",
        ),
        (
            "ranges.service=198.19.8.0/24",
            "the service range 198.19.8.0/24 overlaps the workload range 198.19.0.0/16: set ranges.service to one that nothing else uses",
        ),
    ] {
        assert_eq!(set(&[assignment]).unwrap_err(), message, "{assignment}");
    }
}

#[test]
fn a_range_that_the_cluster_uses_is_refused_whichever_contains_the_other() {
    let values = Values::default();
    for (range, wanted) in [
        ("198.18.3.0/24", Some("service")),
        ("198.16.0.0/14", Some("service")),
        ("198.19.0.0/16", Some("workload")),
        ("10.244.0.0/16", None),
        ("fd00::/8", None),
    ] {
        let taken = [("pods of node a".to_owned(), range.parse().unwrap())];
        let found = match values.check_ranges(&taken) {
            Err(ValuesError::Overlap { ours, .. }) => Some(ours),
            _ => None,
        };
        assert_eq!(found, wanted, "{range}");
    }
}
