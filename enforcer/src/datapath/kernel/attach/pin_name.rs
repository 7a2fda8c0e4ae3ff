//! Names of pins: `from_pod@NETNS-INODE@IFINDEX@NAME` and `connect4@cgroup@ID` for links; a filter's has the path of its
//! network namespace as a fifth part, empty for the role's own.

use std::path::{Path, PathBuf};

use super::Target;
use crate::datapath::program::Program;

pub fn of_link(program: Program, target: &Target) -> String {
    match target {
        Target::Device { netns, ifindex, name } => {
            format!("{}@{netns}@{ifindex}@{}", program.name(), escape(name))
        }
        Target::Cgroup { id } => format!("{}@cgroup@{id}", program.name()),
    }
}

pub fn parse_link(name: &str) -> Option<(Program, Target)> {
    let mut parts = name.splitn(4, '@');
    let program = Program::from_name(parts.next()?)?;
    let target = match (parts.next()?, parts.next()?, parts.next()) {
        ("cgroup", id, None) => Target::Cgroup { id: id.parse().ok()? },
        (netns, ifindex, Some(name)) => Target::Device {
            netns: netns.parse().ok()?,
            ifindex: ifindex.parse().ok()?,
            name: unescape(name)?,
        },
        _ => return None,
    };
    Some((program, target))
}

/// What the pin of a link is for.
pub fn target_of_link(name: &str) -> Option<Target> {
    Some(parse_link(name)?.1)
}

/// What the pin of a filter is for.
pub fn target_of_filter(name: &str) -> Option<Target> {
    Some(parse_filter(name)?.1)
}

/// Of a program on a device in the namespace at this path; `None`: the role's own.
pub fn of_filter(program: Program, target: &Target, netns: Option<&Path>) -> String {
    let netns = netns.map(|netns| escape(&netns.to_string_lossy())).unwrap_or_default();
    format!("{}@{netns}", of_link(program, target))
}

pub fn parse_filter(name: &str) -> Option<(Program, Target, Option<PathBuf>)> {
    let (link, netns) = name.rsplit_once('@')?;
    let (program, target) = parse_link(link)?;
    let netns = if netns.is_empty() { None } else { Some(unescape(netns)?.into()) };
    matches!(target, Target::Device { .. }).then_some((program, target, netns))
}

/// A BPF file system refuses names with a dot, VLAN devices have one.
fn escape(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            escaped.push(char::from(byte));
        } else {
            escaped.extend(['%', hex(byte >> 4), hex(byte & 15)]);
        }
    }
    escaped
}

fn hex(digit: u8) -> char {
    char::from_digit(u32::from(digit), 16).unwrap_or('0')
}

fn unescape(escaped: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = escaped.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_says_what_it_is_for() {
        for (program, target, name) in [
            (
                Program::ToWire,
                Target::Device { netns: 4_026_531_840, ifindex: 3, name: "eth0.100@x%".into() },
                "to_wire@4026531840@3@eth0%2e100%40x%25",
            ),
            (Program::Connect4, Target::Cgroup { id: 77 }, "connect4@cgroup@77"),
        ] {
            assert_eq!(of_link(program, &target), name);
            assert_eq!(parse_link(name), Some((program, target)));
        }
        for name in ["", "from_pod", "from_pod@1", "nobody@1@2@eth0", "from_pod@x@2@eth0", "from_pod@1@2@%f"]
        {
            assert_eq!(parse_link(name), None, "{name}");
        }
    }

    #[test]
    fn the_pin_of_a_filter_also_says_where_to_look() {
        let target = Target::Device { netns: 7, ifindex: 3, name: "tunnel0".into() };
        for (netns, name) in [
            (None, "into_tunnel@7@3@tunnel0@"),
            (Some(PathBuf::from("/run/netns/a@b")), "into_tunnel@7@3@tunnel0@%2frun%2fnetns%2fa%40b"),
        ] {
            assert_eq!(of_filter(Program::IntoTunnel, &target, netns.as_deref()), name);
            assert_eq!(parse_filter(name), Some((Program::IntoTunnel, target.clone(), netns)));
        }
        for name in ["into_tunnel@7@3@tunnel0", "connect4@cgroup@77@", "into_tunnel@7@3@tunnel0@%x"] {
            assert_eq!(parse_filter(name), None, "{name}");
        }
    }
}
