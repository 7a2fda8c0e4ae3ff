//! Completions, asked for as shells and kubectl ask.

use std::{os::unix::fs::symlink, process::Command};

use enforcer_tests::lab::enforcer;

use super::desk::{Desk, EVERY_KIND, said, words};

fn desk() -> Desk {
    let desk = Desk::new();
    for line in EVERY_KIND {
        assert_eq!(desk.on_folder(line).code, Some(0), "{line}");
    }
    desk
}

/// Candidates as fish gets them: the last word is the one that is typed.
fn candidates(desk: &Desk, line: &str) -> Vec<String> {
    let mut command = desk.command();
    command.env("ENFORCER_COMPLETE", "fish").args(["--", "enforcer"]).args(words(line));
    if line.ends_with(' ') {
        command.arg("");
    }
    let said = said(command.output().expect("it starts"));
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{line}");
    said.out.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn kinds_and_names_of_objects_are_completed_from_where_the_objects_are() {
    let desk = desk();
    let table = [
        ("get --manifests objects postg", vec!["postgres", "postgresdatabase"]),
        ("get --manifests objects postgres ", vec!["orders"]),
        ("get --manifests objects PG o", vec!["orders"]),
        ("get --manifests=objects sc/", vec!["sc/cart-orders"]),
        ("delete --manifests objects mysqldatabase -n shop c", vec!["customers"]),
        ("create sc --manifests objects --destination pos", vec!["postgres/", "postgresdatabase/"]),
        ("create sc --manifests objects --destination postgres/o", vec!["postgres/orders"]),
        ("create sc --manifests objects --source=app", vec!["--source=application/"]),
        ("create sc --manifests objects --source=application/", vec!["--source=application/web"]),
        ("create postgres --manifests objects --gateway ", vec!["eu-1"]),
        ("create postgresdatabase --manifests objects --instance ", vec!["crm", "orders"]),
        ("compl", vec!["completions"]),
        ("get --manifests objects postgres --out", vec!["--output"]),
        ("create sc --manifests objects new --source-p", vec!["--source-pod-selector"]),
        ("get --manifests objects -o w", vec!["wide"]),
    ];
    for (line, expected) in table {
        assert_eq!(candidates(&desk, line), expected, "{line}");
    }
}

#[test]
fn where_no_name_is_known_there_are_flags_and_no_words_of_trouble() {
    let desk = desk();
    for line in ["get --manifests objects -n blog postgres ", "get --manifests nowhere postgres "] {
        let flags = candidates(&desk, line);
        assert!(flags.contains(&"--project".to_owned()), "{flags:?}");
        assert!(flags.iter().all(|flag| flag.starts_with("--")), "{flags:?}");
    }
}

/// bash parts words at `=`, and replaces what is behind it.
#[test]
fn what_a_real_bash_sources_completes() {
    let desk = desk();
    let script = "source <(enforcer completions bash); \
                  complete=$(complete -p enforcer | sed 's/.*-F \\([^ ]*\\) .*/\\1/'); \
                  try() { COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9; COMPREPLY=(); local last=${@: -1}; \
                          $complete enforcer \"${last#=}\" \"${@: -2:1}\"; echo \"${COMPREPLY[*]}\"; }; \
                  try enforcer get --manifests objects postgres o; \
                  try enforcer get --manifests = objects postgres o; \
                  try enforcer create sc --manifests objects --destination =; \
                  try enforcer create sc --manifests objects --destination = postgres/; \
                  try enforcer del";
    let binary = enforcer().expect("the binary is built");
    let folder = binary.parent().expect("a folder").display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", script])
        .current_dir(&desk.dir)
        .env("HOME", &desk.dir)
        .env_remove("KUBECONFIG");
    let said = said(bash.env("PATH", format!("{folder}:{path}")).output().expect("bash starts"));
    let kinds = "keyvaluestore/ mysql/ mysqldatabase/ postgres/ postgresdatabase/";
    let expected = format!("orders\norders\n{kinds}\npostgres/orders\ndelete\n");
    assert_eq!((said.out.as_str(), said.err.as_str()), (expected.as_str(), ""));
}

#[test]
fn every_shell_has_a_script_that_calls_back() {
    let desk = Desk::new();
    for shell in ["bash", "zsh", "fish"] {
        let said = desk.run(&format!("completions {shell}"));
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{shell}");
        assert!(
            said.out.contains("ENFORCER_COMPLETE") && said.out.contains("enforcer"),
            "{shell}: {}",
            said.out
        );
    }
    assert_eq!(desk.run("completions tcsh").code, Some(2));
}

#[test]
fn kubectl_gets_candidates_line_by_line() {
    let desk = desk();
    let link = desk.dir.join("kubectl_complete-enforcer");
    symlink(enforcer().expect("the binary is built"), &link).expect("a link");
    let mut command = Command::new(&link);
    command.current_dir(&desk.dir).args(words("get --manifests objects postgres ")).arg("");
    let said = said(command.output().expect("it starts"));
    assert_eq!((said.out.as_str(), said.err.as_str()), ("orders\n:4\n", ""));
}
