//! The API server as programs in another network namespace reach it: under its own address.

use std::{
    io,
    net::{TcpListener, TcpStream},
    path::Path,
    thread,
};

use anyhow::{Context, Result};

use super::{ControlPlane, SERVER_PORT};

impl ControlPlane {
    /// From now on whoever connects to the server's address in this namespace, whose `lo` is up, reaches it; for as
    /// long as this process lives, also after a restart of the server.
    pub fn reach_from(&self, netns: &str) -> Result<()> {
        let at = (self.address, SERVER_PORT);
        let path = Path::new("/run/netns").join(netns);
        let listener = enforcer::netns::run_in(&path, || TcpListener::bind(at))
            .flatten()
            .with_context(|| format!("cannot listen at {at:?} in {netns}"))?;
        thread::spawn(move || {
            for inner in listener.incoming().map_while(Result::ok) {
                // A server that is away refuses: so do we.
                if let Ok(outer) = TcpStream::connect(at) {
                    join(inner, outer);
                }
            }
        });
        Ok(())
    }
}

/// What one says the other hears, until either ends.
fn join(inner: TcpStream, outer: TcpStream) {
    let ends = (inner.try_clone(), outer.try_clone());
    let (Ok(inner_too), Ok(outer_too)) = ends else { return };
    for (mut from, mut to) in [(inner, outer_too), (outer, inner_too)] {
        thread::spawn(move || {
            // Either end may break off whenever it likes.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Both);
        });
    }
}
