//! One question to one of the lab's services, by name, over one address family.

use anyhow::Result;

use super::{
    Outcome, Place,
    manifests::Service,
    servers::{PASSWORD, USER},
};

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// What a client got.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    Works,
    /// `EPERM`, at connect.
    NotPermitted,
    /// Nothing until the client's own limit.
    Silence,
    /// Anything else, in its words.
    Other(String),
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Works => "works",
            Self::NotPermitted => "not permitted",
            Self::Silence => "no answer",
            Self::Other(said) => said,
        })
    }
}

/// Seconds after which `timeout` ends a client.
const LIMIT: &str = "6";

impl Place {
    /// The address of a name, as programs here see it.
    pub fn resolve(&self, name: &str, family: Family) -> Result<Option<String>> {
        let database = match family {
            Family::V4 => "ahostsv4",
            Family::V6 => "ahostsv6",
        };
        let outcome = self.run("getent", &[database, name])?;
        Ok(outcome.stdout.split_whitespace().next().map(str::to_owned))
    }

    /// Resolves the service's name here and asks it something with its usual client.
    pub fn query(&self, service: Service, family: Family) -> Result<Answer> {
        let Some(address) = self.resolve(&service.fqdn(), family)? else {
            return Ok(Answer::Other(format!("{} has no {} address", service.fqdn(), family.name())));
        };
        self.query_at(service, &address)
    }

    pub fn query_at(&self, service: Service, address: &str) -> Result<Answer> {
        let (words, expected) = client(service, address);
        let words: Vec<&str> = [LIMIT].into_iter().chain(words.iter().map(String::as_str)).collect();
        Ok(judge(&self.run("timeout", &words)?, expected))
    }
}

/// Command line of a client, and what it prints when it works.
pub fn client(service: Service, address: &str) -> (Vec<String>, &'static str) {
    let (line, expected) = match service {
        Service::Postgres => (format!("psql -XAtq -h {address} -U {USER} -d {USER} -c select(1)"), "1"),
        Service::MySql => {
            (format!("mariadb --no-defaults -h {address} -u{USER} -p{PASSWORD} -Ne select(1)"), "1")
        }
        Service::KeyValueStore => (format!("redis-cli -h {address} ping"), "PONG"),
    };
    (line.split(' ').map(str::to_owned).collect(), expected)
}

pub fn judge(outcome: &Outcome, expected: &str) -> Answer {
    let said = outcome.said();
    if outcome.success && outcome.stdout.trim() == expected {
        Answer::Works
    } else if outcome.was_not_permitted() {
        Answer::NotPermitted
    } else if said.is_empty() || said.contains("timeout expired") {
        Answer::Silence
    } else {
        Answer::Other(said)
    }
}
