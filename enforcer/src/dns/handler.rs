//! Between the wire and the answers.

use std::sync::Arc;

use hickory_proto::op::{Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode};
use hickory_server::{
    net::runtime::Time,
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use tokio::sync::watch;

use super::{
    Forwarder, MOST_UDP, Zone,
    answer::{self, Reply},
};

pub(super) struct Handler {
    pub zones: watch::Receiver<Arc<Zone>>,
    pub forwarder: Option<Forwarder>,
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response_handle: R,
    ) -> ResponseInfo {
        let mut reply = match answer::question(request) {
            Ok(question) => {
                let zone = self.zones.borrow().clone();
                answer::reply(&zone, self.forwarder.as_ref(), question).await
            }
            Err(code) => Reply::failure(code),
        };
        take_turns(&mut reply, request.metadata.id);
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload().clamp(512, MOST_UDP));
            edns.set_dnssec_ok(asked.flags().dnssec_ok);
            edns
        });
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = reply.code;
        metadata.authoritative = reply.authoritative;
        metadata.recursion_available = self.forwarder.is_some();
        let builder = MessageResponseBuilder::new(&request.queries, edns.as_ref());
        let response = builder.build(metadata, &reply.answers, &reply.authorities, &[], &reply.additionals);
        response_handle.send_response(response).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "an answer could not be sent");
            let mut metadata = Metadata::new(request.metadata.id, MessageType::Response, OpCode::Query);
            metadata.response_code = ResponseCode::ServFail;
            Header { metadata, counts: HeaderCounts::default() }.into()
        })
    }
}

/// Many clients take the first of several addresses: it is another one every time.
fn take_turns(reply: &mut Reply, turn: u16) {
    let is_one_set = reply.authoritative
        && reply
            .answers
            .windows(2)
            .all(|pair| pair[0].name == pair[1].name && pair[0].record_type() == pair[1].record_type());
    if is_one_set && !reply.answers.is_empty() {
        let turn = usize::from(turn) % reply.answers.len();
        reply.answers.rotate_left(turn);
    }
}
