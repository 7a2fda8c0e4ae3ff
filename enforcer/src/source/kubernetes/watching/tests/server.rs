//! A server of Services that misbehaves when it is told to.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    Works,
    /// Watches are answered, with an error at once.
    Fails,
    /// As a load balancer without a server.
    Refuses,
    /// Takes connections and requests, and says nothing more, also on those that it had.
    Hangs,
    /// Watches that there are say nothing more; whatever is asked is answered.
    Mute,
    Over,
}

pub struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    mode: Mode,
    /// How often the mode was another one: what began before may have been silenced since.
    modes: u32,
    names: Vec<String>,
    asked: Vec<(Instant, String)>,
    /// Until a watch is ended.
    lasts: Duration,
}

impl Server {
    pub fn start(mode: Mode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("it listens");
        let lasts = Duration::from_mins(5);
        let state = State { mode, modes: 0, names: Vec::new(), asked: Vec::new(), lasts };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let (incoming, on) = (listener.try_clone().expect("it is copied"), Arc::clone(&shared));
        thread::spawn(move || {
            for client in incoming.incoming() {
                let (Ok(client), on) = (client, Arc::clone(&on)) else { return };
                if on.state().mode == Mode::Over {
                    return;
                }
                thread::spawn(move || on.serve(&client));
            }
        });
        Self { listener, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().expect("it has an address"))
    }

    pub fn be(&self, mode: Mode) {
        let mut state = self.shared.state();
        state.mode = mode;
        state.modes += 1;
        self.shared.changed.notify_all();
    }

    /// Watches end after so long from now on.
    pub fn end_watches_after(&self, lasts: Duration) {
        self.shared.state().lasts = lasts;
        self.shared.changed.notify_all();
    }

    pub fn add(&self, name: &str) {
        self.shared.state().names.push(name.to_owned());
        self.shared.changed.notify_all();
    }

    /// When it was asked for that, or, with ` watch`, to watch it.
    pub fn asked(&self, what: &str) -> Vec<Instant> {
        let state = self.shared.state();
        let found = state.asked.iter().filter(|(_, asked)| {
            let (path, parameters) = asked.split_once('?').unwrap_or((asked, ""));
            let watch = if parameters.contains("watch=true") { " watch" } else { "" };
            format!("{path}{watch}") == what
        });
        found.map(|(when, _)| *when).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.be(Mode::Over);
        // Ends the thread that waits for connections.
        let _ended = self.listener.local_addr().map(TcpStream::connect);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics")
    }

    /// Answers one request.
    fn serve(&self, client: &TcpStream) {
        let mut lines = BufReader::new(client).lines().map_while(Result::ok);
        let line = lines.next().unwrap_or_default();
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        while lines.next().is_some_and(|line| !line.is_empty()) {}
        let (mode, modes) = {
            let mut state = self.state();
            state.asked.push((Instant::now(), path.clone()));
            (state.mode, state.modes)
        };
        match mode {
            Mode::Hangs => return hold(client),
            Mode::Refuses => {
                answer(client, "503 Service Unavailable", &failure(503, "there is no backend"));
            }
            _ if path.starts_with("/apis/discovery.k8s.io/v1/") && path.contains("watch") => {
                return self.watch(client, modes, usize::MAX);
            }
            _ if path.contains("watch") => {
                let version = path
                    .split("resourceVersion=")
                    .nth(1)
                    .and_then(|text| text.split('&').next()?.parse().ok());
                return self.watch(client, modes, version.expect("a watch names its version"));
            }
            _ => answer(client, "200 OK", &self.document(&path)),
        }
        let _ended = client.shutdown(Shutdown::Both);
    }

    fn document(&self, path: &str) -> String {
        let names = self.state().names.clone();
        match path.split('?').next() {
            Some("/apis") => {
                let version = r#"{"groupVersion":"discovery.k8s.io/v1","version":"v1"}"#;
                format!(
                    r#"{{"kind":"APIGroupList","apiVersion":"v1","groups":[{{"name":"discovery.k8s.io","versions":[{version}],"preferredVersion":{version}}}]}}"#
                )
            }
            Some("/version") => {
                let fields = [
                    "major",
                    "minor",
                    "gitVersion",
                    "gitCommit",
                    "gitTreeState",
                    "buildDate",
                    "goVersion",
                    "compiler",
                    "platform",
                ];
                format!("{{{}}}", fields.map(|field| format!(r#""{field}":"1""#)).join(","))
            }
            Some("/api/v1/services") => {
                let items: Vec<String> =
                    names.iter().enumerate().map(|(at, name)| service(at, name)).collect();
                list(names.len(), &items.join(","))
            }
            _ => list(0, ""),
        }
    }

    /// What comes after that version; it is the number of names.
    fn watch(&self, mut client: &TcpStream, modes: u32, mut version: usize) {
        let _begun = client
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n");
        let began = Instant::now();
        let mut state = self.state();
        loop {
            match state.mode {
                Mode::Hangs | Mode::Mute if state.modes != modes => {
                    drop(state);
                    return hold(client);
                }
                Mode::Fails => {
                    let status = failure(500, "the watch cache is broken");
                    let _said =
                        client.write_all(format!("{{\"type\":\"ERROR\",\"object\":{status}}}\n").as_bytes());
                    break;
                }
                Mode::Over => break,
                _ => {}
            }
            let new: Vec<String> =
                state.names.iter().enumerate().skip(version).map(|(at, name)| service(at, name)).collect();
            for object in new {
                version += 1;
                let _said =
                    client.write_all(format!("{{\"type\":\"ADDED\",\"object\":{object}}}\n").as_bytes());
            }
            let Some(left) = state.lasts.checked_sub(began.elapsed()) else { break };
            state = self.changed.wait_timeout(state, left).expect("nobody panics").0;
        }
        drop(state);
        let _ended = client.shutdown(Shutdown::Both);
    }
}

/// Says nothing until the other end has gone.
fn hold(mut client: &TcpStream) {
    let _gone = client.read(&mut [0; 64]);
}

fn answer(mut client: &TcpStream, status: &str, body: &str) {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let _said = client.write_all((head + body).as_bytes());
}

fn list(version: usize, items: &str) -> String {
    format!(
        r#"{{"kind":"List","apiVersion":"v1","metadata":{{"resourceVersion":"{version}"}},"items":[{items}]}}"#
    )
}

/// Its version is the number of names up to it.
fn service(at: usize, name: &str) -> String {
    let version = at + 1;
    format!(
        r#"{{"kind":"Service","apiVersion":"v1","metadata":{{"name":"{name}","namespace":"shop","resourceVersion":"{version}"}},"spec":{{"clusterIP":"None"}}}}"#
    )
}

fn failure(code: u16, message: &str) -> String {
    format!(
        r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","code":{code},"reason":"x","message":"{message}"}}"#
    )
}
