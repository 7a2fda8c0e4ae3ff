//! What is on the underlay: everything that the node sends or gets, judged against a list of what may be there.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::{
    Lab, Place, Running,
    network::{GATEWAY4, GATEWAY6, NODE_PORT, NODE4, NODE6, TUNNEL_PORT},
    wait,
};

/// A capture that runs.
pub struct Capture {
    process: Running,
    file: PathBuf,
    log: PathBuf,
}

/// What was captured.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// Frames by what they are: `ARP`, `ND`, `tunnel`.
    pub allowed: BTreeMap<&'static str, u64>,
    pub bytes: u64,
    /// Description of every other frame.
    pub foreign: Vec<String>,
    /// Whether a text occurs in any frame.
    data: Vec<u8>,
}

impl Judged {
    /// Whether these bytes stand in any frame.
    pub fn contains(&self, needle: &[u8]) -> bool {
        self.data.windows(needle.len()).any(|window| window == needle)
    }
}

impl Lab {
    /// On the underlay: everything that the node sends or gets.
    pub fn capture(&self, name: &str) -> Result<Capture> {
        self.capture_at(name, &self.id.netns("lan"), NODE_PORT)
    }

    /// On a device of a namespace.
    pub fn capture_at(&self, name: &str, netns: &str, device: &str) -> Result<Capture> {
        let file = self.id.dir.join(format!("{name}.pcap"));
        let log = self.id.log(&format!("{name}-tcpdump"));
        let path = file.to_string_lossy().into_owned();
        // As root, unbuffered, with room for bursts: a frame that is not captured would not be judged.
        let args =
            ["-i", device, "-U", "-Z", "root", "-B", "32768", "-s", "0", "--immediate-mode", "-w", &path];
        let place = Place { netns: netns.to_owned(), cgroup: self.id.tools() };
        let process = place.start_plain("tcpdump", &args, &log)?;
        wait::for_true("tcpdump listens", || {
            fs::read_to_string(&log).is_ok_and(|text| text.contains("listening on"))
        })?;
        Ok(Capture { process, file, log })
    }
}

impl Capture {
    /// Whether any frame so far is like this.
    pub fn has(&self, like: impl Fn(&[u8]) -> bool) -> bool {
        let data = fs::read(&self.file).unwrap_or_default();
        whole_frames(&data).is_ok_and(|(frames, _)| frames.into_iter().any(like))
    }

    /// Ends it and judges each frame.
    pub fn finish(self) -> Result<Judged> {
        let data = self.end()?;
        let mut judged = Judged::default();
        for frame in frames(&data)? {
            judged.bytes += frame.len() as u64;
            match kind(frame) {
                Some(kind) => *judged.allowed.entry(kind).or_default() += 1,
                None => judged.foreign.push(describe(frame)),
            }
        }
        judged.data = data;
        Ok(judged)
    }

    /// Ends it and describes the frames outside of the tunnel that are like this.
    pub fn finish_foreign(self, like: impl Fn(&[u8]) -> bool) -> Result<Vec<String>> {
        let data = self.end()?;
        let foreign = frames(&data)?.into_iter().filter(|frame| kind(frame) != Some("tunnel") && like(frame));
        Ok(foreign.map(describe).collect())
    }

    /// Ends it and says when each frame like this was there: microseconds of the Unix epoch.
    pub fn finish_times(self, like: impl Fn(&[u8]) -> bool) -> Result<Vec<u64>> {
        let data = self.end()?;
        let number =
            |at: usize| u64::from(u32::from_le_bytes(data[at..at + 4].try_into().expect("four bytes")));
        let start = data.as_ptr().addr();
        let time = |frame: &[u8]| {
            // The header of 16 bytes before a frame begins with its time.
            let at = frame.as_ptr().addr() - start - 16;
            number(at) * 1_000_000 + number(at + 4)
        };
        Ok(frames(&data)?.into_iter().filter(|frame| like(frame)).map(time).collect())
    }

    /// What it has written when it is over.
    fn end(mut self) -> Result<Vec<u8>> {
        self.process.signal(Signal::SIGINT)?;
        wait::until("tcpdump ends", || self.process.ended())?;
        let log = fs::read_to_string(&self.log).context("cannot read what tcpdump said")?;
        if !log.contains("0 packets dropped by kernel") {
            bail!("the capture has holes: {log}");
        }
        fs::read(&self.file).with_context(|| format!("cannot read {}", self.file.display()))
    }
}

/// Frames of a pcap file (little endian, microseconds: what tcpdump writes on the machines that we test on).
fn frames(data: &[u8]) -> Result<Vec<&[u8]>> {
    match whole_frames(data)? {
        (frames, []) => Ok(frames),
        _ => bail!("the pcap file ends within a frame"),
    }
}

/// The frames that are complete, and the rest.
fn whole_frames(mut data: &[u8]) -> Result<(Vec<&[u8]>, &[u8])> {
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes")) as usize;
    if data.len() < 24 || number(&data[..4]) != 0xa1b2_c3d4 {
        bail!("no pcap file");
    }
    data = &data[24..];
    let mut frames = Vec::new();
    while data.len() >= 16 {
        let length = number(&data[8..12]);
        let Some(frame) = data.get(16..16 + length) else { break };
        frames.push(frame);
        data = &data[16 + length..];
    }
    Ok((frames, data))
}

/// What may be there: link control, and the tunnel's own flow.
fn kind(frame: &[u8]) -> Option<&'static str> {
    let packet = frame.get(14..)?;
    match (frame[12], frame[13]) {
        (0x08, 0x06) => Some("ARP"),
        (0x08, 0x00) => {
            let header = usize::from(packet.first()? & 0xf) * 4;
            let ends = [address4(packet.get(12..16)?), address4(packet.get(16..20)?)];
            (packet.get(9)? == &17 && is_tunnel(&ends, [NODE4, GATEWAY4], packet.get(header..)?))
                .then_some("tunnel")
        }
        (0x86, 0xdd) => {
            let ends = [address6(packet.get(8..24)?), address6(packet.get(24..40)?)];
            match (packet.get(6)?, packet.get(40)?) {
                // Neighbour solicitation and advertisement.
                (58, 135 | 136) => Some("ND"),
                (17, _) if is_tunnel(&ends, [NODE6, GATEWAY6], packet.get(40..)?) => Some("tunnel"),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Between the node and the gateway's port, and shaped like WireGuard: types 1 to 4, three zero bytes.
fn is_tunnel(ends: &[String; 2], [node, gateway]: [&str; 2], udp: &[u8]) -> bool {
    let port = |at: usize| udp.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let [source, destination] = ends;
    let there = source == node && destination == gateway && port(2) == Some(TUNNEL_PORT);
    let back = source == gateway && destination == node && port(0) == Some(TUNNEL_PORT);
    (there || back) && matches!(udp.get(8..12), Some([1..=4, 0, 0, 0]))
}

fn address4(bytes: &[u8]) -> String {
    let bytes: [u8; 4] = bytes.try_into().expect("four bytes");
    std::net::Ipv4Addr::from(bytes).to_string()
}

fn address6(bytes: &[u8]) -> String {
    let bytes: [u8; 16] = bytes.try_into().expect("sixteen bytes");
    std::net::Ipv6Addr::from(bytes).to_string()
}

fn describe(frame: &[u8]) -> String {
    let ends = match (frame.get(12..14), frame.len()) {
        (Some([0x08, 0x00]), 34..) => {
            format!("{} > {} protocol {}", address4(&frame[26..30]), address4(&frame[30..34]), frame[23])
        }
        (Some([0x86, 0xdd]), 54..) => {
            format!("{} > {} protocol {}", address6(&frame[22..38]), address6(&frame[38..54]), frame[20])
        }
        (kind, _) => format!("EtherType {kind:02x?}"),
    };
    format!("{ends}, {} bytes", frame.len())
}

#[cfg(test)]
mod tests {
    use super::kind;

    fn udp4(source: [u8; 4], destination: [u8; 4], ports: [u16; 2], payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend(source);
        frame.extend(destination);
        frame.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
        frame.extend([0, 0, 0, 0]);
        frame.extend(payload);
        frame
    }

    #[test]
    fn only_wireguard_between_node_and_gateway_is_the_tunnel() {
        let (node, gateway) = ([192, 0, 2, 11], [192, 0, 2, 1]);
        let data = [4, 0, 0, 0, 9, 9, 9, 9];
        assert_eq!(kind(&udp4(node, gateway, [4000, 51820], &data)), Some("tunnel"));
        assert_eq!(kind(&udp4(gateway, node, [51820, 4000], &data)), Some("tunnel"));
        assert_eq!(kind(&udp4(node, gateway, [4000, 53], &data)), None, "another port");
        assert_eq!(kind(&udp4([10, 244, 0, 10], gateway, [4000, 51820], &data)), None, "another source");
        assert_eq!(kind(&udp4(node, gateway, [4000, 51820], b"select 1")), None, "not WireGuard");
    }
}
