//! Connections that are held until somebody ends them, and what each end is told then.

use std::{
    io::{BufRead as _, BufReader, Error, ErrorKind, Read as _, Result, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};

/// What a client asks of [`serve`] with its first line: silence, or data without end.
const IDLE: &str = "idle";
const STREAM: &str = "stream";
/// It says a byte now and then.
const POKE: &str = "poke";

/// Holds every connection as its first line asks, and prints how it ended: `TAG ended ConnectionReset`, or `eof`.
/// Never returns but with an error.
pub fn serve(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
    say("listening");
    loop {
        let (stream, _) = listener.accept()?;
        thread::spawn(move || {
            let mut line = String::new();
            // A probe of the gateway says nothing.
            if BufReader::new(&stream).read_line(&mut line).is_ok_and(|length| length > 0) {
                let mut words = line.split_whitespace();
                let (mode, tag) = (words.next().unwrap_or(IDLE), words.next().unwrap_or("-"));
                say(&format!("{tag} ended {}", held(&stream, mode)));
            }
        });
    }
}

fn held(mut stream: &TcpStream, mode: &str) -> String {
    let hello = stream.peer_addr().and_then(|peer| {
        let line = format!("ok {}\n", peer.ip().to_canonical());
        stream.write_all(line.as_bytes())
    });
    if let Err(error) = hello {
        return name(&error);
    }
    let chunk = [0; 16 * 1024];
    let mut byte = [0];
    loop {
        let step = if mode == STREAM { stream.write_all(&chunk).map(|()| 1) } else { stream.read(&mut byte) };
        match step {
            Ok(0) => return "eof".to_owned(),
            Ok(_) => {}
            Err(error) => return name(&error),
        }
    }
}

/// Connects, says `open` and whom the server sees when it has answered, and returns how the connection ended.
pub fn hold(to: SocketAddr, mode: &str, tag: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(20))?;
    stream.write_all(format!("{mode} {tag}\n").as_bytes())?;
    if mode == POKE {
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    }
    let mut buffer = [0; 16 * 1024];
    let mut opened = false;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok("eof".to_owned()),
            Ok(length) if !opened => {
                opened = true;
                let line = String::from_utf8_lossy(&buffer[..length]).into_owned();
                say(&format!("open {}", line.lines().next().unwrap_or_default()));
            }
            Ok(_) => {}
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) && mode == POKE =>
            {
                if let Err(error) = stream.write_all(b".") {
                    return Ok(name(&error));
                }
            }
            Err(error) => return Ok(name(&error)),
        }
    }
}

/// A connected UDP socket that asks again and again, says `open` at the first answer, and returns the error that
/// ends it.
pub fn hold_udp(to: SocketAddr) -> Result<String> {
    let any = if to.is_ipv4() { SocketAddr::from(([0; 4], 0)) } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    // Without it Linux keeps errors from a UDP socket that may pass, an unreachable host for one.
    if to.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
    }
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut opened = false;
    loop {
        let answer = socket.send(b"hello").and_then(|_| socket.recv(&mut [0; 2048]));
        match answer {
            Ok(_) if !opened => {
                opened = true;
                say("open");
            }
            Ok(_) => thread::sleep(Duration::from_millis(50)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // A call that finds the socket destroyed says that it is not connected; why is still to be had.
            Err(error) => return Ok(name(&socket.take_error()?.unwrap_or(error))),
        }
    }
}

/// Sends datagrams to every target without end; what becomes of them is nobody's concern here.
pub fn flood(targets: &[SocketAddr]) -> Result<()> {
    let v4 = UdpSocket::bind(("0.0.0.0", 0))?;
    let v6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
    loop {
        for target in targets {
            let socket = if target.is_ipv4() { &v4 } else { &v6 };
            // Without a route there is an error, and later there is a route.
            let _ = socket.send_to(b"flood", target);
        }
        thread::sleep(Duration::from_micros(500));
    }
}

fn name(error: &Error) -> String {
    format!("{:?}", error.kind())
}

#[expect(clippy::print_stdout, reason = "the log is what the tests read")]
fn say(text: &str) {
    println!("{text}");
}
