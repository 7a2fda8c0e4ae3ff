//! The UDP socket of a device, with buffers that hold a burst.

use std::io;

use gotatun::udp::{
    UdpTransportFactory, UdpTransportFactoryParams,
    socket::{UdpSocket, UdpSocketFactory},
};
use nix::sys::socket::{setsockopt, sockopt};

/// Bytes for each direction. One large TCP segment becomes some fifty datagrams at once, and the default buffer of
/// the kernel holds fewer than a hundred and fifty.
const BUFFER: usize = 7 << 20;

#[derive(Default)]
pub(super) struct Sockets(UdpSocketFactory);

impl UdpTransportFactory for Sockets {
    type Send = UdpSocket;
    type Recv = UdpSocket;

    async fn bind(&mut self, params: &UdpTransportFactoryParams) -> io::Result<(UdpSocket, UdpSocket)> {
        let (sender, receiver) = self.0.bind(params).await?;
        // The forced variants pass the limit of the machine and need CAP_NET_ADMIN, which opening the TUN needed too.
        let forced = setsockopt(&sender, sockopt::SndBufForce, &BUFFER)
            .and_then(|()| setsockopt(&sender, sockopt::RcvBufForce, &BUFFER));
        if let Err(error) = forced {
            tracing::warn!(%error, "UDP buffers keep their small default");
        }
        Ok((sender, receiver))
    }
}
