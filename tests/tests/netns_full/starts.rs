//! A role that cannot begin says what to do about it.

use std::{fs, path::PathBuf, process::Command};

use enforcer_tests::lab::roles::enforcer;

/// A folder of a test, gone with the value.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("enforcer-starts-{}-{name}", std::process::id()));
        fs::create_dir_all(dir.join("objects")).expect("the folder is made");
        Self(dir)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).expect("the file is written");
    }

    /// The key that an agent begins with.
    fn make_key(&self) {
        let made = Command::new(enforcer().expect("enforcer is built"))
            .args(["keygen", "node", "n", "--key"])
            .arg(self.0.join("key"))
            .output()
            .expect("keygen starts");
        assert!(made.status.success());
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a role says that ends at once, after `before` in a network and a mount namespace of its own. `DIR` stands for
/// the folder, in both.
fn said(dir: &Dir, before: &str, role: &str) -> String {
    let program = enforcer().expect("enforcer is built");
    let script =
        format!("{before} exec {} {role}", program.display()).replace("DIR", &dir.0.to_string_lossy());
    let output = Command::new("timeout")
        .args(["60", "unshare", "--net", "--mount", "sh", "-c", &script])
        .env("RUST_LOG", "error")
        .output()
        .expect("unshare starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{role}: {text}");
    // What it did before is in the log; the last line is for the person.
    text.trim().lines().last().unwrap_or_default().replace(&*dir.0.to_string_lossy(), "DIR")
}

const CONTROLLER: &str = "controller --manifests DIR/objects --state DIR/state.json --run-dir DIR/run";
const GATEWAY: &str = "gateway --manifests DIR/objects --state DIR/state.json --name eu-1 --key DIR/key --run-dir DIR/run --bpffs DIR/bpf";
const AGENT: &str = "agent --manifests DIR/objects --state DIR/state.json --node n --cluster-name c --key DIR/key \
                     --run-dir DIR/run --bpffs DIR/bpf --tunnel userspace";

#[test]
fn a_damaged_state_file_is_refused_and_stays_as_it_is() {
    let dir = Dir::new("damaged");
    for (text, why) in [
        (
            "{\"version\": 1, \"ula\": \"fd00",
            "line 1: damaged, expected what enforcer controller wrote; restore it: EOF while parsing a string at line 1 column 27",
        ),
        (
            "",
            "line 1: damaged, expected what enforcer controller wrote; restore it: EOF while parsing a value at line 1 column 0",
        ),
    ] {
        dir.write("state.json", text);
        for role in [CONTROLLER, AGENT] {
            assert_eq!(said(&dir, "", role), format!("enforcer: state file DIR/state.json, {why}"));
        }
        assert_eq!(fs::read_to_string(dir.0.join("state.json")).expect("it is there"), text);
    }
}

#[test]
fn a_folder_that_is_missing_is_named() {
    let dir = Dir::new("missing");
    fs::remove_dir(dir.0.join("objects")).expect("the folder goes");
    assert_eq!(
        said(&dir, "", CONTROLLER),
        "enforcer: cannot read the manifests in DIR/objects: No such file or directory (os error 2)"
    );
    assert_eq!(
        said(&dir, "", GATEWAY),
        "enforcer: key file DIR/key: cannot open it: No such file or directory (os error 2)"
    );
}

#[test]
fn settings_that_cannot_be_made_are_named_with_what_to_do() {
    let dir = Dir::new("readonly");
    let read_only = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys &&";
    assert_eq!(
        said(&dir, read_only, GATEWAY),
        "enforcer: ports 61000-65535 cannot be kept for translation; let this process write, or put them into \
         net.ipv4.ip_local_reserved_ports before it starts: cannot write \
         /proc/sys/net/ipv4/ip_local_reserved_ports: Read-only file system (os error 30)"
    );
}

#[test]
fn a_machine_without_cgroup_v2_is_told_so() {
    let dir = Dir::new("cgroup2");
    dir.make_key();
    let without = "awk '$3 == \"cgroup2\" { print $2 }' /proc/self/mounts | xargs -rn1 umount -l &&";
    assert_eq!(
        said(&dir, without, AGENT),
        "enforcer: cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified, or say where it is with \
         --cgroup-root"
    );
    assert_eq!(
        said(&dir, "", &format!("{AGENT} --cgroup-root DIR/objects")),
        "enforcer: --cgroup-root DIR/objects: is not of cgroup v2, expected a folder where that is mounted"
    );
    assert_eq!(
        said(&dir, "", &format!("{AGENT} --cgroup-root DIR/none")),
        "enforcer: --cgroup-root DIR/none: ENOENT: No such file or directory"
    );
}

#[test]
fn a_bpf_file_system_is_mounted_or_asked_for() {
    let dir = Dir::new("bpffs");
    dir.make_key();
    let without = "setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin";
    let program = enforcer().expect("enforcer is built");
    let role = AGENT.replace("DIR", &dir.0.to_string_lossy());
    let script = format!("exec {without} {} {role}", program.display());
    let output = Command::new("timeout")
        .args(["60", "unshare", "--net", "--mount", "sh", "-c", &script])
        .env("RUST_LOG", "error")
        .output()
        .expect("unshare starts");
    let text = String::from_utf8_lossy(&output.stderr).replace(&*dir.0.to_string_lossy(), "DIR");
    assert_eq!(
        (output.status.code(), text.trim()),
        (
            Some(1),
            "enforcer: DIR/bpf: cannot be made a BPF file system, which programs are pinned in; mount -t bpf bpf \
             DIR/bpf, or run this with CAP_SYS_ADMIN: Operation not permitted (os error 1)"
        )
    );
}
