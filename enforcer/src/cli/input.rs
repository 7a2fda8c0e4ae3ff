//! Values of flags: from what a person types to what stands in an object. Pure.

use ipnet::IpNet;

use super::{kinds, names};
use crate::{
    model::{
        AllowedBackend, AllowedPorts, DestinationRef, Kind, PortRef, Protocol, ServicePort, ServiceReference,
        SourceKind,
    },
    validate::value::dns_label,
};

/// `KIND/NAME` of what a connection may lead to.
pub fn destination(text: &str) -> Result<DestinationRef, String> {
    let (kind, name) = reference(text, "postgres/orders")?;
    if kind.is_destination() {
        return Ok(DestinationRef { kind, name, namespace: None });
    }
    let all = Kind::ALL.iter().filter(|kind| kind.is_destination());
    let all: Vec<_> = all.map(|kind| kinds::word(*kind)).collect();
    Err(format!("a {kind} is no destination, expected one of {}", all.join(", ")))
}

/// `KIND/NAME` of what a connection may come from.
pub fn source(text: &str) -> Result<(SourceKind, String), String> {
    let (kind, name) = reference(text, "kubernetescluster/my-cluster")?;
    match kind {
        Kind::KubernetesCluster => Ok((SourceKind::KubernetesCluster, name)),
        Kind::Application => Ok((SourceKind::Application, name)),
        _ => Err(format!("a {kind} is no source, expected kubernetescluster/NAME or application/NAME")),
    }
}

fn reference(text: &str, example: &str) -> Result<(Kind, String), String> {
    match text.split_once('/') {
        Some((kind, name)) if !name.is_empty() && !name.contains('/') => {
            Ok((kinds::parse(kind)?, name.to_owned()))
        }
        _ => Err(format!("expected KIND/NAME, like {example}")),
    }
}

/// `PORT[/PROTOCOL]`.
pub fn port(text: &str) -> Result<PortRef, String> {
    let (port, protocol) = with_protocol(text)?;
    Ok(PortRef { port: number(port)?, protocol })
}

/// `[NAME=]PORT[:TARGET][/PROTOCOL]`.
pub fn offered_port(text: &str) -> Result<ServicePort, String> {
    let (rest, protocol) = with_protocol(text)?;
    let (name, rest) = rest.split_once('=').unwrap_or(("", rest));
    if rest.len() < text.len() && text.contains('=') {
        dns_label(name)?;
    }
    let (port, target) = match rest.split_once(':') {
        Some((port, target)) => (port, Some(number(target)?)),
        None => (rest, None),
    };
    Ok(ServicePort { name: name.to_owned(), port: number(port)?, protocol, target_port: target })
}

/// `NAME=KIND/NAME`.
pub fn service(text: &str) -> Result<ServiceReference, String> {
    let Some((name, target)) = text.split_once('=') else {
        return Err("expected NAME=KIND/NAME, like cache=keyvaluestore/sessions".to_owned());
    };
    dns_label(name)?;
    Ok(ServiceReference { name: name.to_owned(), target: destination(target)? })
}

/// `CIDR:PORTS`, where ports are numbers and ranges: `10.0.0.0/8:5432,6000-6100/UDP`. A single address is its own
/// range; one of IPv6 stands in brackets then.
pub fn backend(text: &str) -> Result<AllowedBackend, String> {
    let expected = "expected CIDR:PORTS, like 10.0.0.0/8:5432,6000-6100/UDP";
    // Behind the prefix length, or behind an address without one: IPv6 has colons of its own.
    let (range, ports) = match (text.split_once('/'), text.split_once("]:")) {
        (_, Some((address, ports))) => (address.trim_start_matches('['), ports),
        (Some((address, rest)), None) if !address.contains(',') => {
            let at = rest.find(':').ok_or_else(|| expected.to_owned())? + address.len() + 1;
            (&text[..at], &text[at + 1..])
        }
        _ => text.split_once(':').ok_or_else(|| expected.to_owned())?,
    };
    let cidr = match range.parse::<std::net::IpAddr>() {
        Ok(address) => IpNet::from(address).to_string(),
        // What it is instead of a range is said where YAML is checked, too.
        Err(_) => range.to_owned(),
    };
    let ports = ports.split(',').map(port_range).collect::<Result<_, _>>()?;
    Ok(AllowedBackend { cidr, ports })
}

fn port_range(text: &str) -> Result<AllowedPorts, String> {
    let (rest, protocol) = with_protocol(text)?;
    let (port, end_port) = match rest.split_once('-') {
        Some((port, end)) => (port, Some(number(end)?)),
        None => (rest, None),
    };
    Ok(AllowedPorts { port: number(port)?, end_port, protocol })
}

fn with_protocol(text: &str) -> Result<(&str, Protocol), String> {
    match text.rsplit_once('/') {
        None => Ok((text, Protocol::Tcp)),
        Some((rest, protocol)) => match protocol.to_ascii_uppercase().as_str() {
            "TCP" => Ok((rest, Protocol::Tcp)),
            "UDP" => Ok((rest, Protocol::Udp)),
            _ => Err(format!("\"{protocol}\" is no protocol, expected TCP or UDP")),
        },
    }
}

fn number(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("\"{text}\" is not a port, expected 1 to 65535")),
    }
}

/// What an object of commands is called: `KIND NAME…`, `KIND/NAME…`, or kinds alone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    pub kind: Kind,
    /// `None`: all of them.
    pub name: Option<String>,
}

/// Takes the words behind `get`, `describe` and `delete`.
pub fn targets(words: &[String]) -> Result<Vec<Target>, String> {
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if first.contains('/') {
        let target = |word: &String| {
            let (kind, name) = reference(word, "postgres/orders")?;
            Ok(Target { kind, name: Some(name) })
        };
        return words.iter().map(target).collect();
    }
    if first.contains(',') {
        let every = |kind: &str| Ok(Target { kind: kinds::parse(kind)?, name: None });
        return match &words[1..] {
            [] => first.split(',').map(every).collect(),
            [name, ..] => Err(format!("\"{name}\": expected no name behind several kinds, or KIND/NAME…")),
        };
    }
    let kind = kinds::parse(first)?;
    let named = |name: &String| match name.split_once('/') {
        Some(_) => Err(format!("\"{name}\": expected a name, as the first word is the kind {kind}")),
        None => Ok(Target { kind, name: Some(name.clone()) }),
    };
    match &words[1..] {
        [] => Ok(vec![Target { kind, name: None }]),
        names => names.iter().map(named).collect(),
    }
}

/// `60s`, `2m`, `1h`, or seconds alone.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) => (number, text.as_bytes()[number.len()]),
        None => (text, b's'),
    };
    let scale = match unit {
        b'm' => 60,
        b'h' => 3600,
        _ => 1,
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale));
    seconds.map(std::time::Duration::from_secs).ok_or_else(|| "expected a time like 60s, 2m or 1h".to_owned())
}

/// `: did you mean orders?`, where that is likely; nothing else.
pub fn did_you_mean<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> String {
    names::nearest(typed, known).map(|near| format!(": did you mean {near}?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn said<T: serde::Serialize>(result: Result<T, String>) -> Result<Value, String> {
        result.map(|value| json!(value))
    }

    #[test]
    fn ports_are_written_as_people_write_them() {
        let good = [
            ("5432", json!({ "port": 5432, "protocol": "TCP" })),
            ("db=5432:6432", json!({ "name": "db", "port": 5432, "protocol": "TCP", "targetPort": 6432 })),
            ("53/udp", json!({ "port": 53, "protocol": "UDP" })),
        ];
        for (text, expected) in good {
            assert_eq!(said(offered_port(text)), Ok(expected), "{text}");
        }
        for (text, message) in [
            ("0", "\"0\" is not a port, expected 1 to 65535"),
            ("x=65536", "\"65536\" is not a port, expected 1 to 65535"),
            ("5432:", "\"\" is not a port, expected 1 to 65535"),
            ("53/sctp", "\"sctp\" is no protocol, expected TCP or UDP"),
        ] {
            assert_eq!(said(offered_port(text)), Err(message.to_owned()), "{text}");
        }
        assert!(offered_port("=5432").unwrap_err().starts_with("\"\" is no DNS label"));
        assert_eq!(said(port("53/UDP")), Ok(json!({ "port": 53, "protocol": "UDP" })));
    }

    #[test]
    fn backends_are_ranges_with_ports_in_both_families() {
        let tcp = |port: u16| json!({ "port": port, "protocol": "TCP" });
        let range = json!({ "port": 6000, "endPort": 6100, "protocol": "UDP" });
        let good = [
            ("10.0.0.0/8:5432", "10.0.0.0/8", vec![tcp(5432)]),
            ("10.0.0.0/8:5432,6000-6100/UDP", "10.0.0.0/8", vec![tcp(5432), range.clone()]),
            ("192.0.2.7:5432", "192.0.2.7/32", vec![tcp(5432)]),
            ("192.0.2.7:5432,6000-6100/UDP", "192.0.2.7/32", vec![tcp(5432), range]),
            ("2001:db8::/32:5432", "2001:db8::/32", vec![tcp(5432)]),
            ("[2001:db8::7]:5432", "2001:db8::7/128", vec![tcp(5432)]),
        ];
        for (text, cidr, ports) in good {
            assert_eq!(said(backend(text)), Ok(json!({ "cidr": cidr, "ports": ports })), "{text}");
        }
        let expected = "expected CIDR:PORTS, like 10.0.0.0/8:5432,6000-6100/UDP".to_owned();
        for text in ["10.0.0.0/8", "10.0.0.1"] {
            assert_eq!(said(backend(text)), Err(expected.clone()), "{text}");
        }
    }

    #[test]
    fn references_say_what_they_may_be() {
        let kind = DestinationRef { kind: Kind::KeyValueStore, name: "my-kvs".into(), namespace: None };
        assert_eq!(destination("keyvaluestore/my-kvs"), Ok(kind));
        assert_eq!(source("KC/blue"), Ok((SourceKind::KubernetesCluster, "blue".to_owned())));
        for (text, message) in [
            ("orders", "expected KIND/NAME, like postgres/orders"),
            ("postgres/", "expected KIND/NAME, like postgres/orders"),
            ("postgers/orders", "there is no kind \"postgers\": did you mean postgres?"),
            (
                "pod/web",
                "a Pod is no destination, expected one of keyvaluestore, mysql, mysqldatabase, postgres, \
                 postgresdatabase",
            ),
        ] {
            assert_eq!(destination(text), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn objects_are_named_by_kind_and_names_or_both_at_once() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let of = |kind, name: &str| Target { kind, name: Some(name.to_owned()) };
        assert_eq!(targets(&words("pg a b")), Ok(vec![of(Kind::Postgres, "a"), of(Kind::Postgres, "b")]));
        assert_eq!(
            targets(&words("pg/a sc/b")),
            Ok(vec![of(Kind::Postgres, "a"), of(Kind::ServiceConnection, "b")])
        );
        assert_eq!(targets(&words("pg")), Ok(vec![Target { kind: Kind::Postgres, name: None }]));
        let all = |kind| Target { kind, name: None };
        assert_eq!(targets(&words("pg,sc")), Ok(vec![all(Kind::Postgres), all(Kind::ServiceConnection)]));
        let message = "\"a\": expected no name behind several kinds, or KIND/NAME…".to_owned();
        assert_eq!(targets(&words("pg,sc a")), Err(message));
        let message = "\"sc/b\": expected a name, as the first word is the kind Postgres".to_owned();
        assert_eq!(targets(&words("pg a sc/b")), Err(message));
        assert_eq!(targets(&words("pg/a b")), Err("expected KIND/NAME, like postgres/orders".to_owned()));
    }

    #[test]
    fn a_time_has_a_unit_or_is_in_seconds() {
        let seconds = |text| duration(text).map(|time| time.as_secs());
        assert_eq!(seconds("60"), Ok(60));
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("2m"), Ok(120));
        assert_eq!(seconds("1h"), Ok(3600));
        for text in ["", "s", "-1s", "1d", "99999999999999999h"] {
            assert_eq!(seconds(text), Err("expected a time like 60s, 2m or 1h".to_owned()), "{text}");
        }
    }
}
