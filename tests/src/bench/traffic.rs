//! Traffic between two namespaces, made by threads of this process: what passes in a given time.
//!
//! Where both ends are the kernel's and ours, they are kept on one CPU and time in which somebody else had it does not
//! count: what is measured is work, not where the scheduler puts it.
#![expect(clippy::cast_precision_loss, reason = "no rate is as large as that")]

use std::{
    fs::File,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use enforcer::netns;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

/// What a 64-byte frame carries beside headers and checksum.
const PAYLOAD: [u8; 18] = [0; 18];
const LIMIT: Duration = Duration::from_secs(20);

/// Path of a namespace of a lab.
pub fn path(netns: &str) -> PathBuf {
    netns::path_of(netns)
}

/// Runs in a namespace, on the CPU that measurements are made on.
fn inside<T: Send>(netns: &str, f: impl FnOnce() -> io::Result<T> + Send) -> Result<T> {
    let run = || {
        stay_on_one_cpu()?;
        f()
    };
    netns::run_in(&path(netns), run).flatten().with_context(|| format!("in {netns}"))
}

fn stay_on_one_cpu() -> io::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(0)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cpus)?)
}

/// Answers connections to a port in a namespace until the process ends: a connection's first byte says what it wants.
/// Tells when those that are held were reset.
pub fn serve(netns: &str, port: u16) -> Result<mpsc::Receiver<Instant>> {
    let listener = listen(netns, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
    let (sender, resets) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let resets = sender.clone();
            thread::spawn(move || answer(stream, &resets));
        }
    });
    Ok(resets)
}

/// A listening socket in a namespace.
pub fn listen(netns: &str, at: SocketAddr) -> Result<TcpListener> {
    Ok(netns::run_in(&path(netns), || TcpListener::bind(at)).flatten()?)
}

/// First byte of a connection.
const ECHO: u8 = b'e';
const SINK: u8 = b's';
const HOLD: u8 = b'h';

fn answer(mut stream: TcpStream, resets: &mpsc::Sender<Instant>) -> io::Result<()> {
    let mut wanted = [0];
    if stream.read(&mut wanted)? == 0 {
        return Ok(());
    }
    stream.set_nodelay(true)?;
    match wanted[0] {
        ECHO => {
            stay_on_one_cpu()?;
            while stream.read(&mut wanted)? != 0 {
                stream.write_all(&wanted)?;
            }
            Ok(())
        }
        HOLD => {
            stream.write_all(&wanted)?;
            // Nobody listens any more only when the bench is over.
            let _over = reset_at(stream).map(|reset| resets.send(reset));
            Ok(())
        }
        _ => sink(stream),
    }
}

/// Takes everything, and says in the end how much it was.
fn sink(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 18];
    let mut total: u64 = 0;
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return stream.write_all(&total.to_be_bytes());
        }
        total += length as u64;
    }
}

/// A connection that the other end keeps.
pub fn hold(netns: &str, to: SocketAddr) -> Result<TcpStream> {
    let open = || {
        let mut stream = connect(to, HOLD)?;
        stream.read_exact(&mut [0])?;
        Ok::<_, io::Error>(stream)
    };
    Ok(netns::run_in(&path(netns), open).flatten()?)
}

/// Waits until a connection is reset.
pub fn reset_at(mut end: TcpStream) -> io::Result<Instant> {
    end.set_read_timeout(Some(LIMIT))?;
    match end.read(&mut [0]) {
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted) => {
            Ok(Instant::now())
        }
        Err(error) => Err(error),
        Ok(length) => Err(io::Error::other(format!("{length} bytes instead of a reset"))),
    }
}

fn connect(to: SocketAddr, wanted: u8) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&to, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.set_nodelay(true)?;
    stream.write_all(&[wanted])?;
    Ok(stream)
}

/// Two ends of one connection, both in the hands of one thread: a request is answered without anybody being woken.
pub struct Exchange {
    client: TcpStream,
    server: TcpStream,
}

impl Exchange {
    pub fn open(netns: &str, to: SocketAddr, there: &str) -> Result<Self> {
        let listener = listen(there, to)?;
        let client = netns::run_in(&path(netns), || TcpStream::connect_timeout(&to, LIMIT)).flatten()?;
        let (server, _) = listener.accept()?;
        for end in [&client, &server] {
            end.set_nodelay(true)?;
            end.set_read_timeout(Some(LIMIT))?;
        }
        Ok(Self { client, server })
    }

    /// Requests a second, a byte each way.
    pub fn rate(&mut self, time: Duration) -> Result<f64> {
        thread::scope(|scope| scope.spawn(|| self.run(time)).join()).expect("a sender does not panic")
    }

    fn run(&mut self, time: Duration) -> Result<f64> {
        stay_on_one_cpu()?;
        let (mut byte, mut count) = ([0], 0_u32);
        let mut watch = Stopwatch::start()?;
        let end = Instant::now() + time;
        watch.restart()?;
        while Instant::now() < end {
            for _ in 0..16 {
                self.client.write_all(&byte)?;
                self.server.read_exact(&mut byte)?;
                self.server.write_all(&byte)?;
                self.client.read_exact(&mut byte)?;
                count += 1;
            }
        }
        Ok(f64::from(count) / watch.busy()?.as_secs_f64())
    }
}

/// The time in which a thread was not kept from its CPU by somebody else. What the kernel does for it counts.
struct Stopwatch {
    schedstat: File,
    start: Instant,
    waited: Duration,
}

impl Stopwatch {
    fn start() -> io::Result<Self> {
        let schedstat = File::open("/proc/thread-self/schedstat")?;
        Ok(Self { schedstat, start: Instant::now(), waited: Duration::ZERO })
    }

    fn restart(&mut self) -> io::Result<()> {
        self.waited = self.waited()?;
        self.start = Instant::now();
        Ok(())
    }

    fn busy(&self) -> io::Result<Duration> {
        let took = self.start.elapsed();
        Ok(took.saturating_sub(self.waited()?.saturating_sub(self.waited)))
    }

    /// Time in run queues: the second number.
    fn waited(&self) -> io::Result<Duration> {
        let mut text = [0; 128];
        let length = self.schedstat.read_at(&mut text, 0)?;
        let text = String::from_utf8_lossy(&text[..length]);
        let ns = text.split_whitespace().nth(1).and_then(|number| number.parse().ok());
        Ok(Duration::from_nanos(ns.ok_or(ErrorKind::InvalidData)?))
    }
}

/// Microseconds of one request and its answer, a byte each, over one connection.
pub fn round_trip_us(netns: &str, to: SocketAddr, time: Duration) -> Result<f64> {
    inside(netns, || {
        let mut stream = connect(to, ECHO)?;
        let mut byte = [0];
        let mut ask = || stream.write_all(&byte).and_then(|()| stream.read_exact(&mut byte));
        (0..20).try_for_each(|_| ask())?;
        let (start, mut count) = (Instant::now(), 0_u32);
        while start.elapsed() < time {
            ask()?;
            count += 1;
        }
        Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(count))
    })
}

/// Megabits a second that one connection carries, as the receiver counts them.
pub fn stream_mbps(netns: &str, to: SocketAddr, time: Duration) -> Result<f64> {
    // Not kept on one CPU: the tunnel's two ends are processes of their own, and the kernel's.
    let run = || -> io::Result<f64> {
        let mut stream = connect(to, SINK)?;
        let buffer = vec![0; 1 << 17];
        let start = Instant::now();
        while start.elapsed() < time {
            stream.write_all(&buffer)?;
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut total = [0; 8];
        stream.read_exact(&mut total)?;
        Ok(u64::from_be_bytes(total) as f64 * 8.0 / 1e6 / start.elapsed().as_secs_f64())
    };
    netns::run_in(&path(netns), run).flatten().with_context(|| format!("in {netns}"))
}

/// 64-byte datagrams a second that arrive at a device of another namespace.
pub fn datagrams_pps(netns: &str, to: SocketAddr, arrive: (&str, &str), time: Duration) -> Result<f64> {
    let (there, device) = arrive;
    let before = received(there, device)?;
    let (sent, took) = inside(netns, || {
        let mut watch = Stopwatch::start()?;
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(to)?;
        let (end, mut sent) = (Instant::now() + time, 0_u32);
        watch.restart()?;
        while Instant::now() < end {
            for _ in 0..64 {
                match socket.send(&PAYLOAD) {
                    Ok(_) => sent += 1,
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok((sent, watch.busy()?))
    })?;
    let arrived = received(there, device)? - before;
    anyhow::ensure!(
        arrived * 10 >= u64::from(sent) * 9,
        "{arrived} of {sent} datagrams arrived: the receiver is the bottleneck"
    );
    Ok(arrived as f64 / took.as_secs_f64())
}

/// Microseconds until a new connection stands.
pub fn connection_us(netns: &str, to: SocketAddr, count: u32) -> Result<f64> {
    inside(netns, || {
        let start = Instant::now();
        (0..count).try_for_each(|_| connect_and_reset(to))?;
        Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(count))
    })
}

/// Nanoseconds of a new connection, accepted at once and ended: work of this machine only, nobody is woken.
pub fn accepted_ns(netns: &str, listener: &TcpListener, to: SocketAddr, count: u32) -> Result<f64> {
    inside(netns, || {
        let mut watch = Stopwatch::start()?;
        watch.restart()?;
        for _ in 0..count {
            connect_and_reset(to)?;
            drop(listener.accept()?);
        }
        Ok(watch.busy()?.as_secs_f64() * 1e9 / f64::from(count))
    })
}

/// The end is a reset: the port is free at once.
fn connect_and_reset(to: SocketAddr) -> io::Result<()> {
    let stream = TcpStream::connect_timeout(&to, LIMIT)?;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}

/// Packets that a device has got.
fn received(netns: &str, device: &str) -> Result<u64> {
    let table =
        netns::run_in(&path(netns), || std::fs::read_to_string("/proc/thread-self/net/dev")).flatten()?;
    let prefix = format!("{device}:");
    let line = table.lines().find_map(|line| line.trim().strip_prefix(&prefix));
    let packets = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    packets.with_context(|| format!("{netns} has no device {device}"))
}
