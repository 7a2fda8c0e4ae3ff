//! Whether a server is there at all. A watch that hears nothing cannot tell: mostly there is nothing to hear.

use tokio::sync::watch;

use super::{Pace, Waits, Word, Words, one};
use crate::source::kubernetes::Cluster;

/// Asks the server now and then until nobody listens any more. When it is not there, whoever watches it is told so once:
/// what goes on after that may go on without them.
pub(super) async fn run(
    cluster: Cluster,
    number: usize,
    say: Words,
    silences: watch::Sender<()>,
    pace: Pace,
) {
    let (mut waits, mut is_there) = (Waits::new(pace), true);
    tokio::time::sleep(pace.pulse).await;
    loop {
        let answer = one::answer(pace.answer, cluster.client.apiserver_version()).await;
        // Any answer is one, also a refusal.
        let why = answer.err().filter(one::Failure::is_no_answer).map(|failure| failure.text());
        let (was_there, wait) = (is_there, if why.is_some() { waits.next() } else { pace.pulse });
        is_there = why.is_none();
        if was_there && !is_there {
            silences.send_replace(());
        }
        if is_there {
            waits.reset();
        }
        if !(was_there && is_there) && say.send((number, Word::Trouble(why))).await.is_err() {
            return;
        }
        tokio::time::sleep(wait).await;
    }
}
