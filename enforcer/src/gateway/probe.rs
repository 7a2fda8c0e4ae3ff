//! Asks endpoints whether they take connections, without ever opening one.
//!
//! The handshake is left half open: the acknowledgement that would complete it is held back, and a reset is sent
//! instead. The server's program never sees it. MySQL and MariaDB count connections that end before a login and then
//! block the address they came from, which at a masquerading gateway is the address of every client.

use std::{collections::BTreeSet, io, net::SocketAddr, time::Duration};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::TcpSocket,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

const INTERVAL: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(1);

/// Result of one probe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Report {
    pub target: SocketAddr,
    pub connected: bool,
}

/// Probes the targets every two seconds, and at once when they change, until nobody listens any more.
pub async fn run(mut targets: watch::Receiver<BTreeSet<SocketAddr>>, reports: mpsc::Sender<Report>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = targets.changed() => if changed.is_err() { return },
            () = reports.closed() => return,
        }
        let mut probes = JoinSet::new();
        for target in targets.borrow_and_update().iter().copied() {
            probes.spawn(probe(target));
        }
        while let Some(report) = probes.join_next().await {
            if let Ok(report) = report
                && reports.send(report).await.is_err()
            {
                return;
            }
        }
    }
}

async fn probe(target: SocketAddr) -> Report {
    let connected = matches!(timeout(TIMEOUT, knock(target)).await, Ok(Ok(())));
    Report { target, connected }
}

async fn knock(target: SocketAddr) -> io::Result<()> {
    let domain = if target.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    // Without quick acknowledgements the third packet of the handshake waits for data that never comes, and closing
    // with a linger time of zero sends the reset in its place.
    socket.set_tcp_quickack(false)?;
    socket.set_linger(Some(Duration::ZERO))?;
    TcpSocket::from_std_stream(socket.into()).connect(target).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_server_never_sees_a_probe() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        assert_eq!(probe(target).await, Report { target, connected: true });
        let mut real = tokio::net::TcpStream::connect(target).await.unwrap();
        let (_, accepted) = listener.accept().await.unwrap();
        assert_eq!(accepted, real.local_addr().unwrap(), "the first that is accepted is the real one");
        tokio::io::AsyncWriteExt::shutdown(&mut real).await.unwrap();
    }

    #[tokio::test]
    async fn who_listens_is_told_apart_from_who_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (up, down) = (listener.local_addr().unwrap(), closed.local_addr().unwrap());
        drop(closed);
        let (_targets, wanted) = watch::channel(BTreeSet::from([up, down]));
        let (told, mut reports) = mpsc::channel(2);
        tokio::spawn(run(wanted, told));
        let mut seen = BTreeMap::new();
        for _ in 0..2 {
            let report = reports.recv().await.unwrap();
            seen.insert(report.target, report.connected);
        }
        assert_eq!(seen, BTreeMap::from([(up, true), (down, false)]));
    }
}
