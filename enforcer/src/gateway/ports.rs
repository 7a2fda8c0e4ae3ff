//! Ports 61000–65535 belong to the kernel's translation: no socket of this namespace may be given one.

use std::{
    io,
    path::{Path, PathBuf},
};

use enforcer_common::gateway::{MASQUERADE_FIRST, MASQUERADE_LAST};

/// Both settings belong to the network namespace of whoever opens the file.
const SYSCTL: &str = "/proc/sys/net/ipv4";

#[derive(Debug, thiserror::Error)]
pub enum PortsError {
    #[error("cannot {action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("ip_local_port_range is {0:?}, expected two numbers")]
    Malformed(String),
    #[error(
        "ip_local_port_range begins at {first}, within the ports {MASQUERADE_FIRST}-{MASQUERADE_LAST} of the gateway: \
         expected a begin below them"
    )]
    NoRoom { first: u16 },
}

/// Takes the ports out of what the kernel gives to sockets. Returns what was changed, for a person.
pub fn reserve() -> Result<Vec<String>, PortsError> {
    reserve_below(Path::new(SYSCTL))
}

fn reserve_below(folder: &Path) -> Result<Vec<String>, PortsError> {
    let mut changed = Vec::new();
    let range_path = folder.join("ip_local_port_range");
    let range = read(&range_path)?;
    if let Some(narrowed) = narrow(&range)? {
        write(&range_path, &narrowed)?;
        changed.push(format!(
            "ip_local_port_range: {} → {narrowed}",
            range.split_whitespace().collect::<Vec<_>>().join(" ")
        ));
    }
    let reserved_path = folder.join("ip_local_reserved_ports");
    let reserved = read(&reserved_path)?;
    let wanted = format!("{MASQUERADE_FIRST}-{MASQUERADE_LAST}");
    if !reserved.trim().split(',').any(|range| range == wanted) {
        let all = if reserved.trim().is_empty() { wanted } else { format!("{},{wanted}", reserved.trim()) };
        write(&reserved_path, &all)?;
        changed.push(format!("ip_local_reserved_ports: {all}"));
    }
    Ok(changed)
}

/// The range without our ports; `None` where it has none of them.
fn narrow(range: &str) -> Result<Option<String>, PortsError> {
    let numbers: Option<Vec<u16>> = range.split_whitespace().map(|number| number.parse().ok()).collect();
    let Some([first, last]) = numbers.as_deref() else { return Err(PortsError::Malformed(range.to_owned())) };
    if *last < MASQUERADE_FIRST {
        return Ok(None);
    }
    if *first >= MASQUERADE_FIRST {
        return Err(PortsError::NoRoom { first: *first });
    }
    Ok(Some(format!("{first} {}", MASQUERADE_FIRST - 1)))
}

fn read(path: &Path) -> Result<String, PortsError> {
    std::fs::read_to_string(path).map_err(|source| PortsError::File {
        action: "read",
        path: path.into(),
        source,
    })
}

fn write(path: &Path, text: &str) -> Result<(), PortsError> {
    std::fs::write(path, text).map_err(|source| PortsError::File {
        action: "write",
        path: path.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_range_that_overlaps_is_narrowed() {
        assert_eq!(narrow("32768\t60999\n").unwrap(), None);
        assert_eq!(narrow("1024\t65535\n").unwrap().as_deref(), Some("1024 60999"));
        assert_eq!(
            narrow("61000 65535").unwrap_err().to_string(),
            "ip_local_port_range begins at 61000, within the ports 61000-65535 of the gateway: expected a begin below them"
        );
        assert_eq!(
            narrow("many").unwrap_err().to_string(),
            r#"ip_local_port_range is "many", expected two numbers"#
        );
    }

    #[test]
    fn reserving_twice_changes_nothing_more() {
        let folder = std::env::temp_dir().join(format!("enforcer-ports-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("ip_local_port_range"), "1024\t65535\n").unwrap();
        std::fs::write(folder.join("ip_local_reserved_ports"), "8080\n").unwrap();
        let changed = reserve_below(&folder).unwrap();
        let again = reserve_below(&folder).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(
            changed,
            ["ip_local_port_range: 1024 65535 → 1024 60999", "ip_local_reserved_ports: 8080,61000-65535"]
        );
        assert_eq!(again, Vec::<String>::new());
    }
}
