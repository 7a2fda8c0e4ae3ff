//! One device from its start to its end: gotatun between the TUN and a UDP socket, configured over the UAPI socket,
//! remembered on disk.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::FutureExt as _;
use gotatun::{device, x25519::PublicKey};
use tokio::{
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};

use super::{
    packets::{Reader, Writer, halves},
    peers,
    socket::{Request, Socket, converse, refusal},
    udp::Sockets,
};
use crate::tunnel::{Description, TunnelError, socket_path, tun, uapi};

/// How often to look for endpoints that moved and peers that gave up.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A session is refused after this many seconds, so a peer whose last handshake is older has none (WireGuard's
/// REJECT_AFTER_TIME).
const SESSION_SECONDS: u64 = 180;

/// Requests that wait while one is carried out.
const QUEUE: usize = 16;

/// Serves the device until it is no longer described (the sender of `mtu` is gone), or gone itself.
pub(super) async fn serve(
    description: &Description,
    configuration: &Path,
    mut mtu: watch::Receiver<u16>,
) -> Result<(), TunnelError> {
    let name = description.device.as_str();
    let wanted = load(name, configuration)?;
    let tun =
        tun::open(name, description.netns.as_deref()).map_err(TunnelError::device(name, "open the TUN"))?;
    let (writer, reader, lifetime) =
        halves(tun, mtu.clone()).map_err(TunnelError::device(name, "watch the TUN"))?;
    let mut served = Served::start(name, configuration, writer, reader).await?;
    if let Err(error) = served.change(wanted).await {
        tracing::warn!(device = name, %error, "saved configuration does not work yet, trying again");
    }
    let socket =
        Socket::bind(&socket_path(name)).map_err(TunnelError::device(name, "make its UAPI socket"))?;
    tracing::info!(device = name, peers = served.wanted.peers.len(), "device is served");
    let (sender, mut requests) = mpsc::channel::<Request>(QUEUE);
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = mtu.changed() => if changed.is_err() { break },
            accepted = socket.listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(converse(stream, sender.clone()));
                }
            }
            request = requests.recv() => {
                let Some(Request { set, answer }) = request else { break };
                let _ = answer.send(served.answer(set).await);
            }
            () = lifetime.end() => return Err(served.failed(name, "go on: the TUN is gone").await),
            () = served.device.wait() => return Err(served.failed(name, "go on: WireGuard stopped").await),
            _ = look.tick() => served.look_after().await,
        }
    }
    served.device.stop().await;
    Ok(())
}

/// Reads what the last process saved. A damaged file is not used: the agent has every peer and brings it again.
fn load(name: &str, path: &Path) -> Result<uapi::Device, TunnelError> {
    let mut device = uapi::Device::default();
    match fs::read_to_string(path) {
        Ok(text) => match uapi::Set::parse(&text) {
            Ok(set) => device.apply(&set),
            Err(error) => {
                tracing::error!(device = name, %error, "saved configuration is damaged, starting without it");
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(TunnelError::device(name, "read its saved configuration")(error)),
    }
    Ok(device)
}

struct Served {
    device: device::Device<(Sockets, Writer, Reader)>,
    path: PathBuf,
    /// As it should be; endpoints follow the peers.
    wanted: uapi::Device,
    /// What gotatun was given.
    given: uapi::Device,
    /// The UDP socket is open, or there is no key to need one.
    bound: bool,
    /// What the file holds.
    saved: String,
}

impl Served {
    async fn start(name: &str, path: &Path, writer: Writer, reader: Reader) -> Result<Self, TunnelError> {
        let device = device::build()
            .with_udp(Sockets::default())
            .with_ip_pair(writer, reader)
            .build()
            .await
            .map_err(io::Error::other)
            .map_err(TunnelError::device(name, "start WireGuard"))?;
        Ok(Self {
            device,
            path: path.to_owned(),
            wanted: uapi::Device::default(),
            given: uapi::Device::default(),
            bound: true,
            saved: String::new(),
        })
    }

    async fn failed(self, name: &str, what: &'static str) -> TunnelError {
        self.device.stop().await;
        TunnelError::device(name, what)(io::Error::from_raw_os_error(libc::ENODEV))
    }

    /// Carries out one request and gives the text of its answer.
    async fn answer(&mut self, set: Option<uapi::Set>) -> String {
        self.refresh().await;
        let Some(set) = set else {
            return self.wanted.encode();
        };
        let mut wanted = self.wanted.clone();
        wanted.apply(&set);
        // gotatun can neither forget a key nor mark packets of one device on purpose of ours.
        if wanted.fwmark != 0 || (wanted.private_key.is_none() && self.given.private_key.is_some()) {
            return refusal(libc::EOPNOTSUPP);
        }
        let changed = self.change(wanted).await;
        match changed.and_then(|()| self.save()) {
            Ok(()) => "errno=0\n\n".to_owned(),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "configuration could not be applied or saved");
                refusal(error.raw_os_error().unwrap_or(libc::EIO))
            }
        }
    }

    async fn change(&mut self, wanted: uapi::Device) -> io::Result<()> {
        let rebind = !self.bound;
        let (given, new) = (&self.given, &wanted);
        let written = self.device.write(async |device| peers::change(device, given, new, rebind).await).await;
        self.bound = written.is_ok();
        if wanted.private_key.is_some() {
            self.given = wanted.clone();
        }
        self.wanted = wanted;
        written.map_err(|error| match error {
            device::Error::Bind(error, _) | device::Error::IoError(error) => error,
            other => io::Error::other(other),
        })?;
        self.refresh().await;
        Ok(())
    }

    /// Takes port, endpoints and statistics from gotatun.
    async fn refresh(&mut self) {
        if self.given.private_key.is_none() || !self.bound {
            return;
        }
        let (port, peers) =
            self.device.read(async |device| (device.listen_port(), device.peers().await)).await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.wanted.listen_port = port;
        for live in peers {
            let Some(peer) = self.wanted.peers.get_mut(live.peer.public_key.as_bytes()) else { continue };
            peer.endpoint = live.peer.endpoint;
            peer.received_bytes = live.stats.rx_bytes as u64;
            peer.sent_bytes = live.stats.tx_bytes as u64;
            peer.last_handshake =
                live.stats.last_handshake.map_or(0, |age| now.saturating_sub(age).as_secs());
        }
        self.given.clone_from(&self.wanted);
    }

    fn save(&mut self) -> io::Result<()> {
        let text = self.wanted.to_set().encode();
        if text != self.saved {
            super::replace_file(&self.path, text.as_bytes())?;
            self.saved = text;
        }
        Ok(())
    }

    /// What a user of the socket never asks for, but a process that must carry on by itself needs.
    async fn look_after(&mut self) {
        if !self.bound {
            let result = self.change(self.wanted.clone()).await;
            if let Err(error) = result {
                tracing::warn!(path = %self.path.display(), %error, "UDP socket cannot be opened yet");
            }
            return;
        }
        self.refresh().await;
        // A peer that moved is found again after a restart only if its last place is on disk.
        if let Err(error) = self.save() {
            tracing::warn!(path = %self.path.display(), %error, "configuration is not saved");
        }
        self.wake_peers();
    }

    /// Starts the handshake that gotatun gave up.
    ///
    /// After 90 seconds without an answer it stays silent until a packet wants out, keepalive or not, and two such
    /// ends would never meet again by themselves.
    fn wake_peers(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        for (key, peer) in &self.wanted.peers {
            let silent = now.saturating_sub(peer.last_handshake) > SESSION_SECONDS;
            if silent && peer.keepalive != 0 && peer.endpoint.is_some() {
                // Polled once it has sent the first packet; a handshake on its way stays as it is.
                let _ = self.device.force_handshake(&PublicKey::from(*key)).now_or_never();
            }
        }
    }
}
