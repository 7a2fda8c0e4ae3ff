//! A line to an API server that a test can cut, and mend again.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result};
use enforcer::netns::{path_of, run_in};

/// Ends with this value, and all connections with it.
pub struct Line {
    listener: TcpListener,
    state: Arc<State>,
}

struct State {
    server: SocketAddr,
    is_cut: AtomicBool,
    /// Bytes that a connection brings from the server before it breaks.
    most: AtomicU64,
    /// Connections that broke because of that.
    broken: AtomicU64,
    connections: Mutex<BTreeMap<u64, [TcpStream; 2]>>,
}

impl Line {
    /// Listens there, in a network namespace if one is named, and connects to the server from this one.
    pub fn open(netns: Option<&str>, listen: SocketAddr, server: SocketAddr) -> Result<Self> {
        let bind = || TcpListener::bind(listen);
        let listener = netns.map_or_else(|| Ok(bind()), |netns| run_in(&path_of(netns), bind));
        let listener = listener?.with_context(|| format!("cannot listen on {listen}"))?;
        let state = Arc::new(State {
            server,
            is_cut: AtomicBool::new(false),
            most: AtomicU64::new(u64::MAX),
            broken: AtomicU64::new(0),
            connections: Mutex::default(),
        });
        let line = Self { listener: listener.try_clone()?, state: Arc::clone(&state) };
        thread::spawn(move || {
            for (number, client) in (0..).zip(listener.incoming()) {
                let Ok(client) = client else { return };
                // Dropped if it is cut, so that whoever connects is told at once.
                if !state.is_cut.load(Ordering::SeqCst) {
                    let _refused = state.join(number, client);
                }
            }
        });
        Ok(line)
    }

    /// Ends every connection; no other is taken.
    pub fn cut(&self) {
        self.state.is_cut.store(true, Ordering::SeqCst);
        self.interrupt();
    }

    pub fn mend(&self) {
        self.state.is_cut.store(false, Ordering::SeqCst);
    }

    /// Ends every connection; others are taken.
    pub fn interrupt(&self) {
        let connections = std::mem::take(&mut *self.state.connections());
        for end in connections.into_values().flatten() {
            let _ended = end.shutdown(Shutdown::Both);
        }
    }

    /// From now on a connection breaks when it has brought so many bytes.
    pub fn break_after(&self, bytes: u64) {
        self.state.most.store(bytes, Ordering::SeqCst);
    }

    /// How many broke so.
    pub fn broken(&self) -> u64 {
        self.state.broken.load(Ordering::SeqCst)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.cut();
        // Ends the thread that waits for connections.
        // SAFETY: the descriptor is open for as long as this value is.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
    }
}

impl State {
    fn connections(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, [TcpStream; 2]>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(self: &Arc<Self>, number: u64, client: TcpStream) -> Result<()> {
        let server = TcpStream::connect(self.server)?;
        for end in [&client, &server] {
            end.set_nodelay(true)?;
        }
        self.connections().insert(number, [client.try_clone()?, server.try_clone()?]);
        for (from, to, is_answer) in
            [(client.try_clone()?, server.try_clone()?, false), (server, client, true)]
        {
            let state = Arc::clone(self);
            thread::spawn(move || {
                state.carry(&from, &to, is_answer);
                for end in [from, to] {
                    let _ended = end.shutdown(Shutdown::Both);
                }
                state.connections().remove(&number);
            });
        }
        Ok(())
    }

    /// Until either end does not go on.
    fn carry(&self, mut from: &TcpStream, mut to: &TcpStream, is_answer: bool) {
        let (mut carried, mut buffer) = (0, vec![0; 16 << 10]);
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            carried += count as u64;
            if is_answer && carried > self.most.load(Ordering::SeqCst) {
                self.broken.fetch_add(1, Ordering::SeqCst);
                return;
            }
            if to.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    }
}
