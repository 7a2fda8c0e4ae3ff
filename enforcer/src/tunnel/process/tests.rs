//! Files of the tunnel process.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("enforcer-tunnel-{name}-{}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn a_description_that_cannot_be_used_hides_no_other() {
    let folder = folder("descriptions");
    fs::write(folder.join("ef-1.json"), r#"{"device": "ef-1", "netns": "/run/netns/x", "mtu": 1420}"#)
        .unwrap();
    fs::write(folder.join("ef-2.json"), r#"{"device": "ef-2", "mtu": 1280}"#).unwrap();
    fs::write(folder.join("ef-3.json"), r#"{"device": "../../etc/x", "mtu": 1420}"#).unwrap();
    fs::write(folder.join("ef-4.json"), "{").unwrap();
    fs::write(folder.join("ef-1.conf"), "set=1\n").unwrap();
    let found = read_descriptions(&folder).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    let expected = [
        Description { device: "ef-1".into(), netns: Some("/run/netns/x".into()), mtu: 1420 },
        Description { device: "ef-2".into(), netns: None, mtu: 1280 },
    ];
    assert_eq!(found.into_values().collect::<Vec<_>>(), expected);
}

#[test]
fn a_replaced_file_is_for_its_owner_only_whatever_was_there() {
    let folder = folder("replace");
    let path = folder.join("ef-1.conf");
    for rest in [&path, &folder.join("ef-1.conf.tmp")] {
        fs::write(rest, "an old text that is longer").unwrap();
        fs::set_permissions(rest, fs::Permissions::from_mode(0o644)).unwrap();
    }
    replace_file(&path, b"new").unwrap();
    let (text, mode) =
        (fs::read_to_string(&path).unwrap(), fs::metadata(&path).unwrap().permissions().mode());
    let names = fs::read_dir(&folder).unwrap().count();
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!((text.as_str(), mode & 0o777, names), ("new", 0o600, 1));
}
