//! From a question on the wire to an answer on the wire.

use std::sync::Arc;

use hickory_proto::{
    op::{Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType, rdata::SOA},
};
use hickory_server::{
    net::runtime::Time,
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use tokio::sync::watch;

use super::{Addresses, Found, Zone};

/// Seconds that an answer, and the absence of one, may be remembered: names follow the YAML.
const TTL: u32 = 5;
/// Largest datagram that crosses the usual tunnels unfragmented.
const MOST_UDP: u16 = 1232;

pub(super) struct Answers {
    pub zones: watch::Receiver<Arc<Zone>>,
}

#[async_trait::async_trait]
impl RequestHandler for Answers {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response_handle: R,
    ) -> ResponseInfo {
        let zone = self.zones.borrow().clone();
        let reply = reply(&zone, request);
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload().clamp(512, MOST_UDP));
            edns
        });
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = reply.code;
        metadata.authoritative = reply.authoritative;
        let builder = MessageResponseBuilder::new(&request.queries, edns.as_ref());
        let response = builder.build(metadata, &reply.answers, &[], &reply.soa, &[]);
        response_handle.send_response(response).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "an answer could not be sent");
            let mut metadata = Metadata::new(request.metadata.id, MessageType::Response, OpCode::Query);
            metadata.response_code = ResponseCode::ServFail;
            Header { metadata, counts: HeaderCounts::default() }.into()
        })
    }
}

struct Reply {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    /// For the authority section of a negative answer.
    soa: Option<Record>,
}

impl Reply {
    fn failure(code: ResponseCode) -> Self {
        Self { code, authoritative: false, answers: Vec::new(), soa: None }
    }

    fn found(zone: &Zone, answers: Vec<Record>) -> Self {
        let soa = if answers.is_empty() { soa(zone) } else { None };
        Self { code: ResponseCode::NoError, authoritative: true, answers, soa }
    }
}

fn reply(zone: &Zone, request: &Request) -> Reply {
    if request.metadata.op_code != OpCode::Query {
        return Reply::failure(ResponseCode::NotImp);
    }
    let [question] = request.queries.queries() else { return Reply::failure(ResponseCode::FormErr) };
    if question.query_class() != DNSClass::IN {
        return Reply::failure(ResponseCode::Refused);
    }
    // The name is answered in the case in which it was asked: resolvers check it.
    let name = question.original().name();
    match zone.find(&name.to_ascii()) {
        Found::Outside => Reply::failure(ResponseCode::Refused),
        Found::NotReady => Reply::failure(ResponseCode::ServFail),
        Found::Nothing => Reply { code: ResponseCode::NXDomain, ..Reply::found(zone, Vec::new()) },
        Found::Apex if matches!(question.query_type(), RecordType::SOA | RecordType::ANY) => {
            Reply::found(zone, soa(zone).into_iter().collect())
        }
        Found::Apex | Found::Branch => Reply::found(zone, Vec::new()),
        Found::Service(addresses) => Reply::found(zone, records(name, addresses, question.query_type())),
    }
}

fn records(name: &Name, addresses: Addresses, asked: RecordType) -> Vec<Record> {
    let v4 = addresses.v4.map(|address| (RecordType::A, RData::A(address.into())));
    let v6 = addresses.v6.map(|address| (RecordType::AAAA, RData::AAAA(address.into())));
    let wanted = |kind| asked == kind || asked == RecordType::ANY;
    let records = v4.into_iter().chain(v6).filter(|(kind, _)| wanted(*kind));
    records.map(|(_, data)| Record::from_rdata(name.clone(), TTL, data)).collect()
}

/// How long the absence of a name may be remembered. There are no other servers, so the other times mean nothing.
fn soa(zone: &Zone) -> Option<Record> {
    let domain = Name::from_ascii(format!("{}.", zone.domain())).ok()?;
    let below = |label: &str| domain.prepend_label(label).ok();
    let data = SOA::new(below("ns")?, below("hostmaster")?, 1, 7200, 1800, 86400, TTL);
    Some(Record::from_rdata(domain.clone(), TTL, RData::SOA(data)))
}
