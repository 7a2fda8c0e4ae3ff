//! What is printed, as a whole.

use std::collections::BTreeSet;

use super::*;

fn with(set: &[&str]) -> Values {
    let set: Vec<String> = set.iter().map(|text| (*text).to_owned()).collect();
    values::read(&[] as &[&str], &set).unwrap()
}

fn at(minor: u16) -> Served {
    Served::by(KubeVersion { minor })
}

/// `KIND name` of each document.
fn names(manifests: &Manifests) -> Vec<String> {
    let name = |document: &Value| {
        format!("{} {}", document["kind"].as_str().unwrap(), document["metadata"]["name"].as_str().unwrap())
    };
    manifests.documents.iter().map(name).filter(|name| !name.starts_with("CustomResource")).collect()
}

#[test]
fn an_install_is_these_documents_in_this_order() {
    let manifests = manifests(&with(&[]), &at(30));
    assert_eq!(
        names(&manifests),
        [
            "Namespace enforcer-system",
            "ValidatingAdmissionPolicy enforcer-agent",
            "ValidatingAdmissionPolicyBinding enforcer-agent",
            "ValidatingAdmissionPolicy enforcer-controller",
            "ValidatingAdmissionPolicyBinding enforcer-controller",
            "ValidatingAdmissionPolicy enforcer-member",
            "ValidatingAdmissionPolicyBinding enforcer-member",
            "ServiceAccount enforcer-agent",
            "ClusterRole enforcer-agent",
            "ClusterRoleBinding enforcer-agent",
            "DaemonSet enforcer-agent",
            "ServiceAccount enforcer-tunnel",
            "DaemonSet enforcer-tunnel",
            "ServiceAccount enforcer-gateway",
            "ClusterRole enforcer-gateway",
            "ClusterRoleBinding enforcer-gateway",
            "ServiceAccount enforcer-member",
            "ClusterRole enforcer-member",
            "ClusterRoleBinding enforcer-member",
            "ServiceAccount enforcer-controller",
            "ClusterRole enforcer-controller",
            "ClusterRoleBinding enforcer-controller",
            "Role enforcer-controller",
            "RoleBinding enforcer-controller",
            "Deployment enforcer-controller",
            "PodDisruptionBudget enforcer-controller",
        ]
    );
    assert_eq!(manifests.notes, Vec::<String>::new(), "nothing is left out");
    let crds = manifests.documents.iter().filter(|document| document["kind"] == "CustomResourceDefinition");
    assert_eq!(crds.count(), crd::definitions(crd::Rules::Cel).len());
}

#[test]
fn an_old_server_gets_what_it_serves_and_a_person_is_told_what_it_lacks() {
    let manifests = manifests(&with(&[]), &at(20));
    assert!(!names(&manifests).iter().any(|name| name.starts_with("ValidatingAdmission")), "{manifests:?}");
    let text = manifests.yaml().unwrap();
    assert!(!text.contains("x-kubernetes-validations"), "kubectl refuses what an old server does not know");
    let budget = manifests.documents.last().unwrap();
    assert_eq!(budget["apiVersion"], "policy/v1beta1");
    let first: Vec<_> = manifests.notes.iter().map(|note| note.split(':').next().unwrap()).collect();
    assert_eq!(
        first,
        [
            "Kubernetes 1.20 does not serve policy/v1",
            "Kubernetes 1.20 does not serve discovery.k8s.io/v1",
            "Kubernetes 1.20 has no CEL rules in CRDs",
            "Kubernetes 1.20 does not serve ValidatingAdmissionPolicy (1.30)",
        ]
    );
}

#[test]
fn a_server_with_the_beta_of_admission_policies_gets_those() {
    let mut served = at(28);
    served.apis.insert(ADMISSION_BETA.to_owned());
    let manifests = manifests(&with(&[]), &served);
    let of =
        |kind: &str| manifests.documents.iter().find(|document| document["kind"] == kind).unwrap().clone();
    let policy = of("ValidatingAdmissionPolicy");
    assert_eq!(policy["apiVersion"], "admissionregistration.k8s.io/v1beta1");
    let expression = policy["spec"]["validations"][0]["expression"].as_str().unwrap();
    assert!(
        expression.starts_with("!("),
        "a token without the name of its node is let through: {expression}"
    );
}

#[test]
fn apparmor_confines_neither_agent_nor_gateway_by_whatever_the_server_heeds() {
    let profiles = |minor| {
        let documents = manifests(&with(&["gateway.enabled=true"]), &at(minor)).documents;
        let mut found = Vec::new();
        for document in &documents {
            let pod = &document["spec"]["template"];
            for container in pod["spec"]["containers"].as_array().into_iter().flatten() {
                let profile = &container["securityContext"]["appArmorProfile"];
                let name = container["name"].as_str().unwrap();
                if !profile.is_null() {
                    found.push(format!("{name}: {profile}"));
                }
            }
            for (name, profile) in pod["metadata"]["annotations"].as_object().into_iter().flatten() {
                found.push(format!("{name}: {profile}"));
            }
        }
        found
    };
    let by_annotation = ["agent", "gateway"]
        .map(|name| format!("container.apparmor.security.beta.kubernetes.io/{name}: \"unconfined\""));
    assert_eq!(profiles(29), by_annotation);
    let by_field = ["agent", "gateway"].map(|name| format!("{name}: {{\"type\":\"Unconfined\"}}"));
    assert_eq!(profiles(30), by_field);
}

#[test]
fn what_is_asked_for_comes_and_nothing_else_changes() {
    let plain: BTreeSet<String> = names(&manifests(&with(&[]), &at(30))).into_iter().collect();
    for (set, more) in [
        ("gateway.enabled=true", vec!["Deployment enforcer-gateway"]),
        (
            "dns.enabled=true",
            vec![
                "ClusterRole enforcer-dns",
                "ClusterRoleBinding enforcer-dns",
                "Deployment enforcer-dns",
                "PodDisruptionBudget enforcer-dns",
                "Service enforcer-dns",
                "ServiceAccount enforcer-dns",
            ],
        ),
    ] {
        let all: BTreeSet<String> = names(&manifests(&with(&[set]), &at(30))).into_iter().collect();
        assert_eq!(all.difference(&plain).map(String::as_str).collect::<Vec<_>>(), more, "{set}");
        assert!(plain.is_subset(&all), "{set}");
    }
    let without = names(&manifests(&with(&["tunnel.enabled=false"]), &at(30)));
    assert!(!without.iter().any(|name| name.ends_with("-tunnel")), "{without:?}");
}

#[test]
fn values_land_where_they_belong() {
    let values = with(&[
        "clusterName=east",
        "bootGuard=true",
        "image.repository=registry.example/enforcer",
        "image.tag=7",
        "ranges.service=10.200.0.0/16",
        "agent.extraArgs=[--tunnel, userspace]",
        "image.pullSecrets=[{name: pull}]",
    ]);
    let manifests = manifests(&values, &at(30));
    let of =
        |kind: &str| manifests.documents.iter().find(|document| document["kind"] == kind).unwrap().clone();
    let agent = &of("DaemonSet")["spec"]["template"]["spec"];
    assert_eq!(agent["imagePullSecrets"], json!([{ "name": "pull" }]));
    assert_eq!(agent["containers"][0]["image"], "registry.example/enforcer:7");
    assert_eq!(
        agent["containers"][0]["args"],
        json!([
            "agent",
            "--kubernetes",
            "--node=$(NODE_NAME)",
            "--cluster-name=east",
            "--key=/var/lib/enforcer/$(NODE_NAME).key",
            "--guarded=/var/lib/enforcer/$(NODE_NAME).guarded.json",
            "--boot-guard=true",
            "--host-mounts=/proc/1/ns/mnt",
            "--tunnel",
            "userspace"
        ])
    );
    let controller = &of("Deployment")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        controller["args"],
        json!([
            "controller",
            "--kubernetes",
            "--cluster-name=east",
            "--service-range=10.200.0.0/16",
            "--workload-range=198.19.0.0/16"
        ])
    );
}

#[test]
fn a_boot_guard_finds_on_the_host_what_its_agent_keeps() {
    let kept = |set: &[&str]| {
        let manifests = manifests(&with(set), &at(30));
        let agent = manifests.documents.iter().find(|document| document["kind"] == "DaemonSet").unwrap();
        let pod = &agent["spec"]["template"]["spec"];
        let args = pod["containers"][0]["args"].as_array().unwrap();
        let value = |flag: &str| {
            let found = args.iter().find_map(|arg| arg.as_str()?.strip_prefix(flag)?.strip_prefix('='));
            found.unwrap().to_owned()
        };
        let folder = value("--guarded").rsplit_once('/').unwrap().0.to_owned();
        let mount = |mount: &&Value| mount["mountPath"] == folder.as_str();
        let name =
            &pod["containers"][0]["volumeMounts"].as_array().unwrap().iter().find(mount).unwrap()["name"];
        let volume =
            pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == *name).unwrap();
        assert_eq!(volume["hostPath"]["path"], folder.as_str(), "the host has it under the same path");
        value("--boot-guard")
    };
    assert_eq!([kept(&[]), kept(&["bootGuard=true"])], ["false", "true"], "what is not wanted goes");
}

#[test]
fn a_cluster_whose_connections_are_elsewhere_has_the_same_documents_with_a_kubeconfig() {
    let own = manifests(&with(&[]), &at(30));
    let member = manifests(&with(&["connectionsKubeconfigSecret=project"]), &at(30));
    assert_eq!(names(&member), names(&own));
    for kind in ["DaemonSet", "Deployment"] {
        let found = member.documents.iter().find(|document| document["kind"] == kind).unwrap();
        let pod = &found["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let args = container["args"].as_array().unwrap();
        assert!(
            args.contains(&json!("--connections-kubeconfig=/etc/enforcer/project/kubeconfig")),
            "{args:?}"
        );
        let mount = container["volumeMounts"].as_array().unwrap().last().unwrap();
        assert_eq!(mount["mountPath"], "/etc/enforcer/project");
        let volume = pod["volumes"].as_array().unwrap().last().unwrap();
        assert_eq!((&volume["name"], &volume["secret"]["secretName"]), (&mount["name"], &json!("project")));
    }
    let set = ["connectionsKubeconfigSecret=project", "clusterName=My Cluster"].map(str::to_owned);
    let refused = values::read(&[] as &[&str], &set).unwrap_err().to_string();
    assert!(refused.starts_with("value clusterName: expected lower-case letters"), "{refused}");
}

/// Every container of every document.
fn containers(manifests: &Manifests) -> Vec<(String, Value)> {
    let pods = manifests.documents.iter().map(|document| &document["spec"]["template"]["spec"]["containers"]);
    let all = pods.filter_map(Value::as_array).flatten();
    all.map(|container| (container["name"].as_str().unwrap().to_owned(), container.clone())).collect()
}

#[test]
fn no_container_is_privileged_or_has_a_capability_without_a_reason() {
    let manifests = manifests(&with(&["gateway.enabled=true", "dns.enabled=true"]), &at(30));
    let text = manifests.yaml().unwrap();
    for (name, container) in containers(&manifests) {
        let security = &container["securityContext"];
        assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
        assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
        assert!(security["privileged"].is_null(), "{name}");
        assert_eq!(security["capabilities"]["drop"], json!(["ALL"]), "{name}");
        for capability in security["capabilities"]["add"].as_array().into_iter().flatten() {
            let line = format!("- {} # ", capability.as_str().unwrap());
            assert!(text.contains(&line), "{name}: {line}");
        }
    }
    let read: Vec<Value> = serde_norway::Deserializer::from_str(&text)
        .map(|document| serde::Deserialize::deserialize(document).unwrap())
        .collect();
    assert_eq!(read, manifests.documents, "comments change nothing");
}

#[test]
fn an_agent_is_on_every_node_but_gateways_and_a_gateway_on_no_other() {
    let manifests = manifests(&with(&["gateway.enabled=true"]), &at(30));
    let pod = |kind: &str, name: &str| {
        let wanted = |document: &&Value| document["kind"] == kind && document["metadata"]["name"] == name;
        manifests.documents.iter().find(wanted).unwrap()["spec"]["template"]["spec"].clone()
    };
    for name in ["enforcer-agent", "enforcer-tunnel"] {
        let agent = pod("DaemonSet", name);
        let terms = &agent["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
        assert_eq!(
            *terms,
            json!([{ "matchExpressions": [{ "key": "enforcer.dev/gateway", "operator": "DoesNotExist" }] }])
        );
        assert_eq!(agent["tolerations"], json!([{ "operator": "Exists" }]));
    }
    assert_eq!(pod("Deployment", "enforcer-gateway")["nodeSelector"], json!({ "enforcer.dev/gateway": "" }));
}
