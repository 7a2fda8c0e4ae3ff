//! Manifests: sorted dependencies, without default features, all from the workspace, with the workspace's lints.

use super::File;

pub fn check(file: &File) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut section = "";
    let mut last = "";
    let is_root = file.path.components().count() == 1;
    for (index, line) in file.text.lines().enumerate() {
        if line.starts_with('[') {
            (section, last) = (line, "");
            continue;
        }
        let Some((name, value)) = line.split_once(" = ").filter(|_| section.contains("dependencies")) else {
            continue;
        };
        if name < last {
            complaints.push(file.complain(index + 1, &format!("{name} is not in its place: after {last}")));
        }
        last = name;
        if is_root && !value.contains("default-features = false") {
            complaints.push(file.complain(index + 1, &format!("{name} lacks `default-features = false`")));
        }
        if !is_root && !value.contains("workspace = true") {
            complaints.push(file.complain(index + 1, &format!("{name} is no dependency of the workspace")));
        }
    }
    if !is_root && !file.text.contains("[lints]\nworkspace = true") {
        complaints.push(file.complain(1, "lacks `[lints]` with `workspace = true`"));
    }
    complaints
}
