//! `enforcer check` says what the kernel does.

use std::process::Command;

use enforcer_tests::lab::{
    Role,
    manifests::Service,
    query::{Answer, Family},
    roles::enforcer,
};

use crate::shared::lab;

#[test]
fn what_check_says_is_what_a_connect_gets() {
    let lab = lab();
    let socket = lab.run_dir(Role::Agent).join("agent.sock");
    let cases = [
        ("shop", "cart", "grants are live on both ends", true),
        ("shop", "hostnet", "a gateway answers", true),
        (
            "shop",
            "audit",
            "NO   ServiceConnection shop/cart-orders does not mean it: pod label app: \"audit\", expected \"cart\"",
            false,
        ),
        ("other", "stray", "does not mean it: namespace: \"other\", expected \"shop\"", false),
    ];
    for (namespace, pod, part, works) in cases {
        let to = format!("{}:{}", Service::Postgres.fqdn(), Service::Postgres.port());
        let output = Command::new(enforcer().expect("enforcer is built"))
            .args(["check", "--from", &format!("pod/{pod}"), "--to", &to, "-n", namespace, "--socket"])
            .arg(&socket)
            .output()
            .expect("enforcer starts");
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.success(), works, "{pod}: {text}");
        assert!(text.contains(part), "{pod}: {text}");
        let answer = lab.place(pod).query(Service::Postgres, Family::V4).expect("the client starts");
        assert_eq!(answer == Answer::Works, works, "{pod}: {answer}");
    }
}
