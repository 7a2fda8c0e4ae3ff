//! Asks endpoints whether they take connections: connect, and close.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use tokio::{
    net::TcpStream,
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
    let connected = matches!(timeout(TIMEOUT, TcpStream::connect(target)).await, Ok(Ok(_)));
    Report { target, connected }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::net::TcpListener;

    use super::*;

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
