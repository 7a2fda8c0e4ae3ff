//! Names of kinds as people type them: any case, plural, short, with the group behind.

use crate::model::{Kind, crd::GROUP};

/// The kind that is meant.
pub fn parse(text: &str) -> Result<Kind, String> {
    let typed = text.to_ascii_lowercase();
    let plain = typed.strip_suffix(&format!(".{GROUP}")).unwrap_or(&typed);
    if let Some(kind) = Kind::ALL.iter().find(|kind| names(**kind).iter().any(|name| name == plain)) {
        return Ok(*kind);
    }
    let all: Vec<String> = Kind::ALL.iter().map(|kind| word(*kind)).collect();
    Err(match super::names::nearest(plain, all.iter().map(String::as_str)) {
        Some(near) => format!("there is no kind \"{text}\": did you mean {near}?"),
        None => format!("there is no kind \"{text}\": expected one of {}", all.join(", ")),
    })
}

/// What a person types for it.
pub fn word(kind: Kind) -> String {
    kind.name().to_ascii_lowercase()
}

/// With its group, so that other tools know it as well: `postgres.enforcer.dev`, `pod`.
pub fn qualified(kind: Kind) -> String {
    if kind.is_ours() { format!("{}.{GROUP}", word(kind)) } else { word(kind) }
}

fn names(kind: Kind) -> Vec<String> {
    let mut names = vec![word(kind), kind.plural().to_owned(), kind.short().to_owned(), word(kind) + "s"];
    match kind {
        // As `create gateway` and the documents have it.
        Kind::TunnelGateway => names.extend(["gateway", "gateways", "gw"].map(str::to_owned)),
        Kind::KubernetesCluster => names.extend(["cluster", "clusters"].map(str::to_owned)),
        _ => {}
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_known_by_every_name_people_use() {
        for (text, kind) in [
            ("serviceconnection", Kind::ServiceConnection),
            ("ServiceConnections", Kind::ServiceConnection),
            ("serviceconnections.enforcer.dev", Kind::ServiceConnection),
            ("SC", Kind::ServiceConnection),
            ("postgreses", Kind::Postgres),
            ("kvs", Kind::KeyValueStore),
            ("mysql", Kind::MySQL),
            ("gateway", Kind::TunnelGateway),
        ] {
            assert_eq!(parse(text), Ok(kind), "{text}");
        }
    }

    #[test]
    fn no_name_means_two_kinds() {
        for kind in Kind::ALL {
            for name in names(*kind) {
                assert_eq!(parse(&name), Ok(*kind), "{name}");
            }
        }
    }

    #[test]
    fn a_slip_of_the_finger_gets_a_suggestion() {
        assert_eq!(
            parse("serviceconection"),
            Err("there is no kind \"serviceconection\": did you mean serviceconnection?".to_owned())
        );
        assert!(
            parse("zebra")
                .unwrap_err()
                .starts_with("there is no kind \"zebra\": expected one of namespace, ")
        );
    }
}
