//! The TUN device as gotatun's source and sink of IP packets.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use gotatun::{
    packet::{Ip, Packet, PacketBufPool},
    tun::{IpRecv, IpSend, MtuWatcher},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
};

/// Most packets taken from the TUN at once.
const BATCH: usize = 64;

/// The half that takes packets from the TUN.
pub(super) struct Reader {
    tun: Arc<AsyncFd<OwnedFd>>,
    mtu: watch::Receiver<u16>,
    batch: Vec<Packet<Ip>>,
}

/// The half that hands packets to the TUN.
pub(super) struct Writer {
    tun: Arc<AsyncFd<OwnedFd>>,
}

/// Tells when the device is deleted, also while nobody reads it because there is no key yet.
pub(super) struct Lifetime(Arc<AsyncFd<OwnedFd>>);

impl Lifetime {
    /// Waits for the end of the device.
    pub async fn end(&self) {
        // A TUN that is merely down is not in error; whatever else fails here ends it for us as well.
        let _ = self.0.ready(Interest::ERROR).await;
    }
}

/// Wraps an open TUN. `mtu` is its MTU in bytes: a request by name would ask the namespace of this process.
#[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
pub(super) fn halves(tun: OwnedFd, mtu: watch::Receiver<u16>) -> io::Result<(Writer, Reader, Lifetime)> {
    // SAFETY: an OwnedFd names the same open descriptor until it is dropped, and nothing takes it out again.
    let tun = Arc::new(unsafe { AsyncFd::register(tun) }?);
    let reader = Reader { tun: Arc::clone(&tun), mtu, batch: Vec::with_capacity(BATCH) };
    Ok((Writer { tun: Arc::clone(&tun) }, reader, Lifetime(tun)))
}

impl IpRecv for Reader {
    async fn recv<'a>(
        &'a mut self,
        pool: &mut PacketBufPool,
    ) -> io::Result<impl Iterator<Item = Packet<Ip>> + Send + 'a> {
        self.batch.clear();
        while self.batch.is_empty() {
            // A device that is deleted becomes an error, and never readable.
            let mut ready = self.tun.ready(Interest::READABLE | Interest::ERROR).await?;
            while self.batch.len() < BATCH {
                let mut packet = pool.get();
                match ready.try_io(|tun| Ok(nix::unistd::read(tun.as_fd(), &mut packet)?)) {
                    Ok(Ok(length)) => {
                        packet.truncate(length);
                        // What is too short for an IP header cannot come from a TUN, and is not worth an error.
                        self.batch.extend(packet.try_into_ip());
                    }
                    Ok(Err(error)) => return Err(gone(&error)),
                    Err(_would_block) => break,
                }
            }
        }
        Ok(self.batch.drain(..))
    }

    fn mtu(&self) -> MtuWatcher {
        self.mtu.clone().into()
    }
}

impl IpSend for Writer {
    async fn send(&mut self, packet: Packet<Ip>) -> io::Result<()> {
        let packet = packet.into_bytes();
        let write = |tun: &OwnedFd| Ok(nix::unistd::write(tun.as_fd(), &packet)?);
        match self.tun.async_io(Interest::WRITABLE, write).await {
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) => Err(error),
            Err(error) => {
                // The device is down, or the packet makes no sense to the kernel: the next one may fare better.
                tracing::trace!(%error, "packet from the tunnel is lost at the device");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }
}

/// Whatever a read fails with, the device is of no use any more; this is the number that gotatun stops at.
fn gone(error: &io::Error) -> io::Error {
    tracing::debug!(%error, "reading the device failed");
    io::Error::from_raw_os_error(libc::EBADFD)
}
