//! Events of the programs, as they come through the ring buffer.

use std::io;

use aya::maps::{MapData, RingBuf};
use enforcer_common::event::Event;
use futures::Stream;
use tokio::io::unix::AsyncFd;
use zerocopy::FromBytes;

use super::Kernel;

/// The reader's end of the ring buffer.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Kernel {
    /// The events; `None` if they were taken before. Needs a tokio runtime with I/O.
    pub fn take_events(&mut self) -> io::Result<Option<Events>> {
        let Some(ring) = self.readers.events.take() else { return Ok(None) };
        // SAFETY: the ring owns the descriptor of its map for as long as it lives, and always gives out this one.
        let ring = unsafe { AsyncFd::register(ring)? };
        Ok(Some(Events { ring }))
    }
}

impl Events {
    /// Waits for the next event. Cancelling it loses none.
    pub async fn next(&mut self) -> io::Result<Event> {
        loop {
            if let Some(event) = self.take() {
                return Ok(event);
            }
            let mut ready = self.ring.readable_mut().await?;
            // An event that came between the look and the wait has set the readiness again.
            ready.clear_ready();
        }
    }

    /// The next event that is already there.
    pub fn take(&mut self) -> Option<Event> {
        let item = self.ring.get_mut().next()?;
        // Records are of one size, the programs reserve nothing else.
        Event::read_from_prefix(&item).ok().map(|(event, _)| event)
    }

    /// The events as a stream that ends with the first error.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Event>> + Send {
        futures::stream::try_unfold(self, |mut events| async move {
            let event = events.next().await?;
            Ok(Some((event, events)))
        })
    }
}
