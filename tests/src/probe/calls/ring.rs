//! Calls that go through io_uring. The outer error is the ring's own: a kernel or an administrator without it.

use std::{
    io::{Error, Result},
    net::SocketAddr,
    os::fd::AsRawFd as _,
    time::Duration,
};

use io_uring::{IoUring, opcode, squeue, types};
use socket2::{SockAddr, Socket};

pub fn connect(socket: &Socket, to: SocketAddr, patience: Duration) -> Result<Result<()>> {
    let to = SockAddr::from(to);
    let entry = opcode::Connect::new(types::Fd(socket.as_raw_fd()), to.as_ptr().cast(), to.len()).build();
    run(&entry, patience)
}

pub fn send(socket: &Socket, to: SocketAddr, text: &[u8], patience: Duration) -> Result<Result<()>> {
    let to = SockAddr::from(to);
    let mut part = libc::iovec { iov_base: text.as_ptr().cast_mut().cast(), iov_len: text.len() };
    // SAFETY: all bytes zero is a valid message header: no address, no buffers.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = to.as_ptr().cast_mut().cast();
    message.msg_namelen = to.len();
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    let entry = opcode::SendMsg::new(types::Fd(socket.as_raw_fd()), &raw const message).build();
    run(&entry, patience)
}

/// Submits one entry, whose pointers must be good until this returns, and waits for its end.
fn run(entry: &squeue::Entry, patience: Duration) -> Result<Result<()>> {
    let mut ring = IoUring::new(2)?;
    // SAFETY: what the entry points to belongs to the callers, who wait; what is cancelled by dropping the ring has
    // read its address and message already.
    unsafe { ring.submission().push(entry) }.map_err(Error::other)?;
    let patience = types::Timespec::from(patience);
    let limit = types::SubmitArgs::new().timespec(&patience);
    ring.submitter().submit_with_args(1, &limit)?;
    // The count of submissions hides that time was up.
    let end = ring.completion().next().map_or(-libc::ETIME, |end| end.result());
    Ok(if end < 0 { Err(Error::from_raw_os_error(-end)) } else { Ok(()) })
}
