//! What is on the host, in a folder that takes its place.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

const GUARDED: &str = "/var/lib/enforcer/n1.guarded.json";

/// The root of a host, and a program to put there.
fn host(name: &str, has_systemd: bool) -> (PathBuf, File) {
    let root = std::env::temp_dir().join(format!("enforcer-boot-unit-{}-{name}", std::process::id()));
    fs::create_dir_all(root.join(UNITS)).unwrap();
    if has_systemd {
        fs::create_dir_all(root.join(BOOTED)).unwrap();
    }
    (root.clone(), program(&root, "the program"))
}

fn program(root: &Path, text: &str) -> File {
    fs::write(root.join("exe"), text).unwrap();
    File::open(root.join("exe")).unwrap()
}

fn files(root: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for folder in ["var/lib/enforcer", UNITS, WANTED] {
        let entries = fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
        let only = entries.filter(|entry| !entry.path().is_dir() || entry.path().is_symlink());
        files.extend(only.map(|entry| entry.path().strip_prefix(root).unwrap().display().to_string()));
    }
    files
}

const ALL: [&str; 3] = [
    "var/lib/enforcer/boot-guard",
    "etc/systemd/system/enforcer-boot-guard.service",
    "etc/systemd/system/multi-user.target.wants/enforcer-boot-guard.service",
];

#[test]
fn a_host_gets_the_program_and_a_unit_that_runs_it_before_kubelet_and_loses_both() {
    let (root, exe) = host("comes-and-goes", true);
    for _ in ["at first", "again"] {
        install_below(&root, Path::new(GUARDED), &exe).unwrap();
        assert_eq!(files(&root), ALL);
    }
    let at = |file: &str| root.join(file);
    assert_eq!(fs::read_to_string(at(ALL[0])).unwrap(), "the program");
    assert_eq!(fs::metadata(at(ALL[0])).unwrap().permissions().mode() & 0o777, 0o700);
    let unit = fs::read_to_string(at(ALL[1])).unwrap();
    assert_eq!(fs::read_to_string(at(ALL[2])).unwrap(), unit, "the link leads to it");
    for line in [
        "ExecStart=/var/lib/enforcer/boot-guard agent --prepare --guarded=/var/lib/enforcer/n1.guarded.json\n",
        "Before=kubelet.service k3s.service ",
        "WantedBy=multi-user.target\n",
    ] {
        assert!(unit.contains(line), "{line}: {unit}");
    }
    let removed = remove_below(&root, Path::new(GUARDED)).unwrap();
    assert_eq!((removed.len(), files(&root)), (3, Vec::new()));
    assert_eq!(remove_below(&root, Path::new(GUARDED)).unwrap(), Vec::<PathBuf>::new());
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn what_somebody_changed_or_an_older_agent_left_is_put_right() {
    let (root, exe) = host("put-right", true);
    install_below(&root, Path::new(GUARDED), &exe).unwrap();
    let unit = fs::read_to_string(root.join(ALL[1])).unwrap();
    fs::write(root.join(ALL[1]), unit.replace("--prepare", "--nothing")).unwrap();
    fs::remove_file(root.join(ALL[2])).unwrap();
    fs::write(root.join(ALL[2]), "no link").unwrap();
    let newer = program(&root, "the program, newer");
    install_below(&root, Path::new(GUARDED), &newer).unwrap();
    assert_eq!(fs::read_to_string(root.join(ALL[0])).unwrap(), "the program, newer");
    assert_eq!([1, 2].map(|file| fs::read_to_string(root.join(ALL[file])).unwrap()), [unit.clone(), unit]);
    assert_eq!(files(&root), ALL, "nothing is left beside them");
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn a_host_without_systemd_is_said_and_left_alone() {
    let (root, exe) = host("without", false);
    let refused = install_below(&root, Path::new(GUARDED), &exe).unwrap_err();
    assert_eq!(refused.reason(), "NoSystemd");
    assert_eq!(
        refused.to_string(),
        "the host was not booted by systemd, there is no /run/systemd/system: what kubelet starts at a boot before the agent is not guarded"
    );
    fs::write(root.join(ALL[1]), "somebody else's").unwrap();
    assert_eq!(remove_below(&root, Path::new(GUARDED)).unwrap(), Vec::<PathBuf>::new());
    assert_eq!(files(&root), ALL[1..2]);
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn a_path_that_systemd_would_read_otherwise_is_refused() {
    let (root, exe) = host("paths", true);
    for path in ["guarded.json", "/var/lib/my node.json", "/var/lib/%i.json", "/var/lib/$NODE.json"] {
        let refused = install_below(&root, Path::new(path), &exe).unwrap_err().to_string();
        assert!(refused.starts_with(&format!("--guarded {path}: cannot stand in a unit")), "{refused}");
    }
    assert_eq!(files(&root), Vec::<String>::new());
    fs::remove_dir_all(root).unwrap();
}
