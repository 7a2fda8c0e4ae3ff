//! BPF filters of `clsact`: where programs of devices are on kernels that have no tcx.
//!
//! Several may be on one hook. They run by priority, and of one priority the newest first; ours are told apart by
//! their names. All of it is in the caller's namespace and blocks.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Direction as the device sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hook {
    Ingress,
    Egress,
}

impl Hook {
    const fn parent(self) -> TcHandle {
        let minor = match self {
            Self::Ingress => TcHandle::MIN_INGRESS,
            Self::Egress => TcHandle::MIN_EGRESS,
        };
        TcHandle { major: u16::MAX, minor }
    }
}

/// A BPF filter, of ours or of somebody else.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Filter {
    pub priority: u16,
    pub handle: u32,
    pub name: String,
    pub program_id: u32,
}

/// In front of everyone else's.
const PRIORITY: u16 = 1;

/// Every protocol.
const ETH_P_ALL: u16 = 3;

/// The BPF filters of a hook; none for a device without `clsact` and for one that is not there.
pub fn filters(ifindex: u32, hook: Hook) -> io::Result<Vec<Filter>> {
    let mut message = message(ifindex, hook.parent());
    message.header.info = u32::from(ETH_P_ALL.to_be());
    let answers = talk(RouteNetlinkMessage::GetTrafficFilter(message), NLM_F_DUMP)?;
    Ok(answers.iter().filter_map(filter_of).collect())
}

/// Puts a program into the filter of this name, without a moment between the old and the new one, or makes the filter
/// in front of those that are there.
///
/// # Errors
/// `EINVAL` where a filter of another kind than BPF has priority 1.
pub fn put(ifindex: u32, hook: Hook, name: &str, program: BorrowedFd<'_>) -> io::Result<()> {
    ensure_clsact(ifindex)?;
    let old = filters(ifindex, hook)?.into_iter().find(|filter| filter.name == name);
    let (priority, handle, create) = old.map_or((PRIORITY, 0, NLM_F_CREATE | NLM_F_EXCL), |old| {
        // The same priority and handle: the kernel puts the program into what is there.
        (old.priority, old.handle, 0)
    });
    let mut message = message(ifindex, hook.parent());
    message.header.handle = handle.into();
    message.header.info = info(priority);
    message.attributes = vec![
        TcAttribute::Kind(TcFilterBpf::KIND.to_owned()),
        TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd().cast_unsigned())),
            TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]),
    ];
    talk(RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_ACK | create).map(drop)
}

/// Takes the filter of this name off. One that is not there is fine.
pub fn remove(ifindex: u32, hook: Hook, name: &str) -> io::Result<()> {
    for filter in filters(ifindex, hook)?.into_iter().filter(|filter| filter.name == name) {
        let mut message = message(ifindex, hook.parent());
        message.header.handle = filter.handle.into();
        message.header.info = info(filter.priority);
        message.attributes = vec![TcAttribute::Kind(TcFilterBpf::KIND.to_owned())];
        talk(RouteNetlinkMessage::DelTrafficFilter(message), NLM_F_ACK)?;
    }
    Ok(())
}

/// A `clsact` that is there already, ours or not, is kept; it is never removed, others may use it.
fn ensure_clsact(ifindex: u32) -> io::Result<()> {
    let mut message = message(ifindex, TcHandle::CLSACT);
    message.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    message.attributes = vec![TcAttribute::Kind("clsact".to_owned())];
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    match talk(RouteNetlinkMessage::NewQueueDiscipline(message), flags) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        result => result.map(drop),
    }
}

fn message(ifindex: u32, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.parent = parent;
    message
}

const fn info(priority: u16) -> u32 {
    (priority as u32) << 16 | ETH_P_ALL.to_be() as u32
}

fn filter_of(answer: &RouteNetlinkMessage) -> Option<Filter> {
    let RouteNetlinkMessage::NewTrafficFilter(message) = answer else { return None };
    let options = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    let (mut name, mut program_id) = (None, None);
    for option in options {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(text)) => name = Some(text.clone()),
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => program_id = Some(*id),
            _ => {}
        }
    }
    // The first answer of each priority is about the priority itself and names no program.
    let priority = u16::try_from(message.header.info >> 16).ok()?;
    Some(Filter { priority, handle: message.header.handle.into(), name: name?, program_id: program_id? })
}

/// Sends a request and reads to the end of what is answered.
fn talk(request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (mut answers, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let size = socket.recv(&mut &mut buffer[..], 0)?;
        let mut rest = &buffer[..size];
        while !rest.is_empty() {
            let message =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => return Ok(answers),
                _ => {}
            }
            let length = message.header.length.next_multiple_of(4) as usize;
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}
