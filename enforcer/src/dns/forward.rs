//! Asks other servers what is not ours, where an administrator wants that.
//!
//! Made of hickory's own client, which is in the tree with the server: a port and an identity of their own for every
//! question, and answers checked against both. Its resolver would bring a cache and a dozen crates for what the
//! upstreams do anyway.
//!
//! One question is out once, however many ask it meanwhile. So a loop that leads back here, by whatever way, ends
//! with the time that the question has, and costs no second one.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use hickory_proto::{
    op::{DnsRequest, DnsRequestOptions, Message, Query, ResponseCode},
    rr::Name,
};
use hickory_server::net::{
    runtime::TokioRuntimeProvider,
    tcp::TcpClientStream,
    udp::UdpClientStream,
    xfer::{DnsHandle as _, DnsRequestSender as _, FirstAnswer as _},
};
use tokio::sync::Semaphore;

/// Where a server listens if nothing else is said.
const PORT: u16 = 53;
/// What one server has for one question, over UDP and, where the answer is long, over TCP as well.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Then the question is sent a second time.
const RETRY: Duration = Duration::from_millis(800);
/// Servers that are asked for one question: clients wait five seconds.
const MOST_SERVERS: usize = 2;
/// Requests that wait for others at once; more are told to try again.
const MOST_WAITING: usize = 1024;

type Asked = (Name, u16);
type Answer = Shared<BoxFuture<'static, Option<Arc<Message>>>>;

#[derive(Debug)]
pub struct Forwarder {
    shared: Arc<Inner>,
    room: Semaphore,
}

struct Inner {
    upstreams: Vec<SocketAddr>,
    /// Place of the one that answered last.
    last: AtomicUsize,
    out: Mutex<BTreeMap<Asked, Answer>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("upstreams", &self.upstreams).finish_non_exhaustive()
    }
}

/// `192.0.2.53`, `192.0.2.53:5353`, `2001:db8::53`, `[2001:db8::53]:5353`.
pub(super) fn upstream(text: &str) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT)).or_else(|_| text.parse());
    address.map_err(|_| "expected ADDRESS or ADDRESS:PORT of a DNS server".to_owned())
}

/// The first of the upstreams that leads back to where we listen ourselves.
pub(super) fn own_upstream(upstreams: &[SocketAddr], listen: &[SocketAddr]) -> Option<SocketAddr> {
    // Only addresses of this machine can be bound.
    let is_here = |ip: IpAddr| UdpSocket::bind((ip, 0)).is_ok();
    let leads_back = |upstream: &&SocketAddr| {
        let (ip, port) = (upstream.ip().to_canonical(), upstream.port());
        listen.iter().any(|own| {
            let own_ip = own.ip().to_canonical();
            own.port() == port
                && (own_ip == ip || ip.is_unspecified() || own_ip.is_unspecified() && is_here(ip))
        })
    };
    upstreams.iter().find(leads_back).copied()
}

impl Forwarder {
    /// `None` without upstreams: then nobody is asked.
    pub fn new(upstreams: Vec<SocketAddr>) -> Option<Self> {
        let inner = Inner { upstreams, last: AtomicUsize::new(0), out: Mutex::default() };
        (!inner.upstreams.is_empty())
            .then(|| Self { shared: Arc::new(inner), room: Semaphore::new(MOST_WAITING) })
    }

    /// `None`: nobody has answered in time, or too many wait already.
    pub(super) async fn ask(&self, question: &Query) -> Option<Arc<Message>> {
        let _place = self.room.try_acquire().ok()?;
        self.answer(question).await
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.room.available_permits()
    }

    fn answer(&self, question: &Query) -> Answer {
        let asked = (question.name().to_lowercase(), question.query_type().into());
        let mut out = self.shared.out.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = out.get(&asked) {
            return answer.clone();
        }
        let (inner, question, key) = (Arc::clone(&self.shared), question.clone(), asked.clone());
        let task = tokio::spawn(async move {
            let answer = inner.ask_all(&question).await.map(Arc::new);
            inner.out.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            answer
        });
        let answer = task.map(|joined| joined.ok().flatten()).boxed().shared();
        out.insert(asked, answer.clone());
        answer
    }
}

impl Inner {
    /// Begins with the server that answered last. One that cannot answer is no better than one that does not.
    async fn ask_all(&self, question: &Query) -> Option<Message> {
        let first = self.last.load(Ordering::Relaxed);
        let mut failed = None;
        for turn in 0..self.upstreams.len().min(MOST_SERVERS) {
            let place = (first + turn) % self.upstreams.len();
            let upstream = self.upstreams[place];
            match tokio::time::timeout(TIMEOUT, ask(upstream, question)).await {
                Ok(Ok(message)) => {
                    self.last.store(place, Ordering::Relaxed);
                    if !matches!(
                        message.metadata.response_code,
                        ResponseCode::ServFail | ResponseCode::Refused
                    ) {
                        return Some(message);
                    }
                    failed = Some(message);
                }
                Ok(Err(error)) => tracing::debug!(%upstream, %error, "a server has not answered"),
                Err(_) => tracing::debug!(%upstream, "a server has not answered in time"),
            }
        }
        failed
    }
}

async fn ask(upstream: SocketAddr, question: &Query) -> Result<Message, hickory_server::net::NetError> {
    let mut options = DnsRequestOptions::default();
    options.edns_payload_len = super::MOST_UDP;
    options.retry_interval = RETRY;
    let request = DnsRequest::from_query(question.clone(), options);
    let provider = TokioRuntimeProvider::new();
    let mut udp = UdpClientStream::builder(upstream, provider.clone())
        .with_timeout(Some(TIMEOUT))
        .with_max_retries(2)
        .with_os_port_selection(true)
        .build();
    let answer = udp.send_message(request.clone()).first_answer().await?;
    if !answer.metadata.truncation {
        return Ok(answer.into_message());
    }
    let tcp = TcpClientStream::exchange(upstream, None, TIMEOUT, Some(1), provider).await?;
    Ok(tcp.send(request).first_answer().await?.into_message())
}
