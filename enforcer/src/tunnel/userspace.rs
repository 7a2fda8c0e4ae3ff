//! Tunnel devices in a user-space process: ours (`enforcer tunnel`) or any other that has the standard socket.
//!
//! Makes the TUN and describes it for the process, then speaks the configuration protocol. Never reads or writes a
//! packet, so the device outlives both sides.

use std::{
    fs, io,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{
    Description, DeviceConfig, DeviceStatus, Tunnel, TunnelError, descriptions, diff, socket_path, tun, uapi,
    with_netlink,
};

/// How long to wait for the process to serve a device that was just described.
const APPEARS_WITHIN: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long the process may take for one answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

pub(super) struct Userspace {
    run_dir: PathBuf,
    netns: Option<PathBuf>,
}

impl Userspace {
    pub fn new(run_dir: &Path, netns: Option<&Path>) -> Self {
        Self { run_dir: run_dir.to_owned(), netns: netns.map(Into::into) }
    }

    fn description(&self, name: &str) -> PathBuf {
        descriptions(&self.run_dir).join(format!("{name}.json"))
    }

    fn describe(&self, name: &str, mtu: u32) -> io::Result<()> {
        let path = self.description(name);
        let description = Description {
            device: name.to_owned(),
            netns: self.netns.clone(),
            mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
        };
        let text = serde_json::to_vec_pretty(&description)?;
        if fs::read(&path).is_ok_and(|present| present == text) {
            return Ok(());
        }
        fs::create_dir_all(descriptions(&self.run_dir))?;
        super::process::replace_file(&path, &text)
    }
}

impl Tunnel for Userspace {
    fn mode(&self) -> &'static str {
        "userspace"
    }

    fn ensure_device(&mut self, name: &str, mtu: u32) -> Result<u32, TunnelError> {
        let netns = self.netns.as_deref();
        let present = with_netlink(netns, async |netlink| {
            match netlink.link(name).await? {
                // What is left of another mode has this name and cannot be a TUN.
                Some(link) if link.kind != "tun" => {
                    netlink.remove_device(link.ifindex).await?;
                    Ok(false)
                }
                link => Ok(link.is_some()),
            }
        })
        .map_err(TunnelError::link(name))?;
        if !present {
            tun::create_persistent(name, netns).map_err(TunnelError::device(name, "make the TUN device"))?;
        }
        let ifindex = with_netlink(netns, async |netlink| {
            let link = netlink.link(name).await?;
            let link = link.ok_or_else(|| crate::netlink::NetlinkError::NoDevice(name.to_owned()))?;
            if !link.up || link.mtu != mtu {
                netlink.set_up(link.ifindex, mtu, false).await?;
            }
            Ok(link.ifindex)
        })
        .map_err(TunnelError::link(name))?;
        self.describe(name, mtu).map_err(TunnelError::device(name, "write its description"))?;
        Ok(ifindex)
    }

    fn configure(&mut self, config: &DeviceConfig) -> Result<DeviceStatus, TunnelError> {
        let mut client = Client::connect(&config.name)?;
        let mut actual = client.get()?;
        let change = diff::difference(config, &actual);
        if !change.is_empty() {
            client.set(&change)?;
            actual = client.get()?;
        }
        Ok(actual.status())
    }

    fn remove_device(&mut self, name: &str) -> Result<(), TunnelError> {
        for path in [self.description(name), self.description(name).with_extension("conf")] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(TunnelError::device(name, "remove its description")(error));
                }
                _ => {}
            }
        }
        with_netlink(self.netns.as_deref(), async |netlink| match netlink.link(name).await? {
            Some(link) => netlink.remove_device(link.ifindex).await,
            None => Ok(()),
        })
        .map_err(TunnelError::link(name))
    }
}

/// One connection to the socket of a device.
struct Client<'a> {
    name: &'a str,
    stream: BufReader<UnixStream>,
}

impl<'a> Client<'a> {
    /// Waits a moment for the socket: the process may just be starting.
    fn connect(name: &'a str) -> Result<Self, TunnelError> {
        let path = socket_path(name);
        let deadline = Instant::now() + APPEARS_WITHIN;
        loop {
            match UnixStream::connect(&path) {
                Ok(stream) => {
                    let limits = stream
                        .set_read_timeout(Some(ANSWERS_WITHIN))
                        .and_then(|()| stream.set_write_timeout(Some(ANSWERS_WITHIN)));
                    limits.map_err(TunnelError::device(name, "limit the time of an answer"))?;
                    return Ok(Self { name, stream: BufReader::new(stream) });
                }
                Err(_) if Instant::now() < deadline => thread::sleep(LOOK_EVERY),
                Err(source) => return Err(TunnelError::NotServed { name: name.to_owned(), path, source }),
            }
        }
    }

    fn get(&mut self) -> Result<uapi::Device, TunnelError> {
        let answer = self.ask("get=1\n\n")?;
        uapi::Device::parse(&answer).map_err(|source| self.refused(source))
    }

    fn set(&mut self, set: &uapi::Set) -> Result<(), TunnelError> {
        let answer = self.ask(&set.encode())?;
        uapi::errno(&answer).map_err(|source| self.refused(source))
    }

    fn refused(&self, source: uapi::ParseError) -> TunnelError {
        TunnelError::Configuration { name: self.name.to_owned(), source }
    }

    fn ask(&mut self, request: &str) -> Result<String, TunnelError> {
        self.exchange(request).map_err(|source| TunnelError::NotServed {
            name: self.name.to_owned(),
            path: socket_path(self.name),
            source,
        })
    }

    fn exchange(&mut self, request: &str) -> io::Result<String> {
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut answer = String::new();
        while !answer.ends_with("\n\n") {
            if self.stream.read_line(&mut answer)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(answer)
    }
}
