//! From a question to its answer. Pure but for what others are asked.

use std::collections::BTreeSet;

use hickory_proto::{
    op::{OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{CNAME, PTR, SOA, SRV, TXT},
    },
};
use hickory_server::server::Request;

use super::{
    Zone,
    forward::Forwarder,
    service::Addresses,
    zone::{Found, Target},
};

/// Seconds that an answer, and the absence of one, may be remembered: names follow the objects.
pub(super) const TTL: u32 = 5;
/// Version of the specification that the names follow.
const VERSION: &str = "1.1.0";
/// Names of ours that lead on to another one of ours are followed so often.
const MOST_ALIASES: usize = 8;
/// Priority and weight of SRV records: all are alike.
const PRIORITY: u16 = 0;
const WEIGHT: u16 = 100;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reply {
    pub code: ResponseCode,
    pub authoritative: bool,
    pub answers: Vec<Record>,
    /// Of a negative answer of ours its SOA.
    pub authorities: Vec<Record>,
    pub additionals: Vec<Record>,
}

impl Reply {
    pub fn failure(code: ResponseCode) -> Self {
        Self {
            code,
            authoritative: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
        }
    }

    fn of_ours(code: ResponseCode, answers: Vec<Record>) -> Self {
        Self { authoritative: true, answers, ..Self::failure(code) }
    }
}

/// The only question of a request, or why it is not answered.
pub(super) fn question(request: &Request) -> Result<&Query, ResponseCode> {
    if request.metadata.op_code != OpCode::Query {
        return Err(ResponseCode::NotImp);
    }
    let [question] = request.queries.queries() else { return Err(ResponseCode::FormErr) };
    if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return Err(ResponseCode::BADVERS);
    }
    // The name is answered in the case in which it was asked: resolvers check it.
    let question = question.original();
    let is_transfer = matches!(question.query_type(), RecordType::AXFR | RecordType::IXFR);
    if question.query_class() != DNSClass::IN || is_transfer {
        return Err(ResponseCode::Refused);
    }
    Ok(question)
}

pub(super) async fn reply(zone: &Zone, forwarder: Option<&Forwarder>, question: &Query) -> Reply {
    let (mut reply, next) = own(zone, question);
    let (Some(next), Some(forwarder)) = (next, forwarder) else { return reply };
    let Some(message) = forwarder.ask(&next).await else { return Reply::failure(ResponseCode::ServFail) };
    reply.code = message.metadata.response_code;
    reply.answers.extend(message.answers.iter().cloned());
    reply.authorities.extend(message.authorities.iter().cloned());
    reply.additionals.extend(message.additionals.iter().cloned());
    reply
}

/// What can be said without others, and what they are to be asked where there are any.
pub(super) fn own(zone: &Zone, question: &Query) -> (Reply, Option<Query>) {
    let asked = question.query_type();
    let mut name = question.name().clone();
    let mut aliases = Vec::new();
    loop {
        let next = Query::query(name.clone(), asked);
        let found = zone.find(&name);
        let reply = match found {
            // The end of an alias is for whoever asks to find, unless others tell us.
            Found::Outside if !aliases.is_empty() => {
                return (Reply::of_ours(ResponseCode::NoError, aliases), Some(next));
            }
            Found::Outside => return (Reply::failure(ResponseCode::Refused), Some(next)),
            Found::NotReady => Reply::failure(ResponseCode::ServFail),
            Found::Alias(target) => {
                aliases.push(record(&name, RData::CNAME(CNAME(target.clone()))));
                if aliases.len() > MOST_ALIASES {
                    return (Reply::failure(ResponseCode::ServFail), None);
                }
                if matches!(asked, RecordType::CNAME | RecordType::ANY) {
                    return (Reply::of_ours(ResponseCode::NoError, aliases), None);
                }
                name = target;
                continue;
            }
            found => found_reply(zone, &name, asked, found, aliases),
        };
        return (reply, None);
    }
}

fn found_reply(zone: &Zone, name: &Name, asked: RecordType, found: Found, mut answers: Vec<Record>) -> Reply {
    let code = if found == Found::Nothing { ResponseCode::NXDomain } else { ResponseCode::NoError };
    // A name behind an address is a zone of its own.
    let apex = if matches!(found, Found::Pointers(_)) { name.clone() } else { zone.domain.clone() };
    let aliases = answers.len();
    let mut additionals = Vec::new();
    for data in data(found, &apex, &mut additionals) {
        let kind = data.record_type();
        if asked == kind || asked == RecordType::ANY {
            answers.push(record(name, data));
        }
    }
    if answers.len() > aliases {
        return Reply { additionals, ..Reply::of_ours(code, answers) };
    }
    let authorities = soa(&apex).map(|soa| record(&apex, soa)).into_iter().collect();
    Reply { authorities, ..Reply::of_ours(code, answers) }
}

/// All that stands at a name.
fn data(found: Found, apex: &Name, additionals: &mut Vec<Record>) -> Vec<RData> {
    match found {
        Found::Outside | Found::NotReady | Found::Nothing | Found::Branch | Found::Alias(_) => Vec::new(),
        Found::Apex => soa(apex).into_iter().collect(),
        Found::Version => vec![RData::TXT(TXT::new(vec![VERSION.to_owned()]))],
        Found::Addresses(found) => addresses(&found).collect(),
        Found::Ports(targets) => {
            let mut told = BTreeSet::new();
            let srv = |Target { name, port, addresses: found }: Target| {
                if told.insert(name.clone()) {
                    additionals.extend(addresses(&found).map(|data| record(&name, data)));
                }
                RData::SRV(SRV::new(PRIORITY, WEIGHT, port, name))
            };
            targets.into_iter().map(srv).collect()
        }
        Found::Pointers(names) => names.into_iter().map(|name| RData::PTR(PTR(name))).collect(),
    }
}

fn addresses(found: &Addresses) -> impl Iterator<Item = RData> {
    found.iter().map(|address| (*address).into())
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL, data)
}

/// How long the absence of a name may be remembered. There are no other servers, so the other times mean nothing.
fn soa(apex: &Name) -> Option<RData> {
    let below = |label: &str| apex.prepend_label(label).ok();
    let data = SOA::new(below("ns")?, below("hostmaster")?, 1, 7200, 1800, 86400, TTL);
    Some(RData::SOA(data))
}
