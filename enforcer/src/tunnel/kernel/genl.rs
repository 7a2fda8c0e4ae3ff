//! Generic netlink to the family `wireguard`: one request, its answers. Knows nothing of what is asked.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_packet_generic::{
    GenlFamily as _, GenlMessage,
    ctrl::{GenlCtrl, GenlCtrlCmd, nlas::GenlCtrlAttrs},
};
use netlink_packet_wireguard::WireguardMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

/// A socket in the namespace of the thread that opened it.
pub(super) struct Genl {
    socket: Socket,
    family: u16,
}

impl Genl {
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let mut genl = Self { socket, family: 0 };
        genl.family = genl.resolve()?;
        Ok(genl)
    }

    /// The number of the family, which the kernel gives out when the module is loaded.
    fn resolve(&mut self) -> io::Result<u16> {
        let query = GenlMessage::from_payload(GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName(WireguardMessage::family_name().to_owned())],
        });
        let answers = self.exchange(query, NLM_F_REQUEST | NLM_F_ACK)?;
        answers
            .iter()
            .flat_map(|answer| &answer.payload.nlas)
            .find_map(|attribute| match attribute {
                GenlCtrlAttrs::FamilyId(id) => Some(*id),
                _ => None,
            })
            .ok_or_else(|| io::Error::other("netlink family wireguard has no number"))
    }

    /// Asks for a change and waits for the word that it is made.
    pub fn request(&mut self, message: WireguardMessage) -> io::Result<()> {
        let message = self.addressed(message);
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK).map(|_| ())
    }

    pub fn dump(&mut self, message: WireguardMessage) -> io::Result<Vec<WireguardMessage>> {
        let message = self.addressed(message);
        let answers = self.exchange(message, NLM_F_REQUEST | NLM_F_DUMP)?;
        Ok(answers.into_iter().map(|answer| answer.payload).collect())
    }

    fn addressed(&self, message: WireguardMessage) -> GenlMessage<WireguardMessage> {
        let mut message = GenlMessage::from_payload(message);
        message.set_resolved_family_id(self.family);
        message
    }

    /// Sends and collects answers up to the acknowledgement or the end of the dump.
    fn exchange<T>(&mut self, payload: GenlMessage<T>, flags: u16) -> io::Result<Vec<GenlMessage<T>>>
    where
        T: std::fmt::Debug,
        GenlMessage<T>: NetlinkSerializable + NetlinkDeserializable,
    {
        let mut message = NetlinkMessage::from(payload);
        message.header.flags = flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<GenlMessage<T>>::deserialize(rest).map_err(io::Error::other)?;
                match answer.payload {
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => return Ok(answers),
                    _ => {}
                }
                let length = answer.header.length.next_multiple_of(4) as usize;
                rest = rest.get(length..).unwrap_or_default();
            }
        }
    }
}
