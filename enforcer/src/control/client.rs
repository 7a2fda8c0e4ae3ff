//! The asking end of the control socket.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{Answer, Request};

/// Roles in the order in which they are asked when nobody says which.
const ROLES: [&str; 3] = ["agent.sock", "gateway.sock", "controller.sock"];

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no role is running here: there is no control socket below {0} (use --socket)")]
    NoSocket(PathBuf),
    #[error("several roles are running here, choose one with --socket: {0}")]
    SeveralSockets(String),
    #[error("cannot talk to {path}: {hint}")]
    Talk {
        path: PathBuf,
        hint: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{path} sent what is not an answer")]
    NotAnAnswer {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{0}")]
    Refused(String),
}

/// Finds the socket to ask: the given one; else the only agent below `run_dir`, else the only gateway, else the only
/// controller. `run_dir` may be a role's own directory or the one above.
pub fn find_socket(socket: Option<&Path>, run_dir: &Path) -> Result<PathBuf, ClientError> {
    if let Some(socket) = socket {
        return Ok(socket.into());
    }
    let mut folders = vec![run_dir.to_owned()];
    if let Ok(entries) = std::fs::read_dir(run_dir) {
        folders.extend(entries.flatten().map(|entry| entry.path()));
    }
    folders.sort_unstable();
    for role in ROLES {
        let found: Vec<_> =
            folders.iter().map(|folder| folder.join(role)).filter(|path| path.exists()).collect();
        match found.as_slice() {
            [] => {}
            [only] => return Ok(only.clone()),
            several => {
                let list: Vec<_> = several.iter().map(|path| path.display().to_string()).collect();
                return Err(ClientError::SeveralSockets(list.join(", ")));
            }
        }
    }
    Err(ClientError::NoSocket(run_dir.into()))
}

/// Asks once.
pub fn ask(socket: &Path, request: &Request) -> Result<Value, ClientError> {
    let mut lines = connect(socket, request)?;
    first(socket, &mut lines)
}

/// Follows the events of a role; every item is a line of JSON.
pub fn events(
    socket: &Path,
) -> Result<impl Iterator<Item = Result<String, ClientError>> + use<>, ClientError> {
    let mut lines = connect(socket, &Request::Monitor)?;
    first(socket, &mut lines)?;
    let socket = socket.to_owned();
    Ok(lines.map(move |line| line.map_err(|source| talk(&socket, source))))
}

fn connect(socket: &Path, request: &Request) -> Result<io::Lines<BufReader<UnixStream>>, ClientError> {
    let mut stream = UnixStream::connect(socket).map_err(|source| talk(socket, source))?;
    let mut line = serde_json::to_vec(request)
        .map_err(|source| ClientError::NotAnAnswer { path: socket.into(), source })?;
    line.push(b'\n');
    stream.write_all(&line).map_err(|source| talk(socket, source))?;
    Ok(BufReader::new(stream).lines())
}

fn first(socket: &Path, lines: &mut io::Lines<BufReader<UnixStream>>) -> Result<Value, ClientError> {
    let line = lines
        .next()
        .unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))
        .map_err(|source| talk(socket, source))?;
    match serde_json::from_str(&line) {
        Ok(Answer::Ok(value)) => Ok(value),
        Ok(Answer::Error(message)) => Err(ClientError::Refused(message)),
        Err(source) => Err(ClientError::NotAnAnswer { path: socket.into(), source }),
    }
}

fn talk(path: &Path, source: io::Error) -> ClientError {
    let hint = match source.kind() {
        io::ErrorKind::NotFound => "is the role running, and is this its --run-dir?",
        io::ErrorKind::ConnectionRefused => "its process is gone",
        io::ErrorKind::PermissionDenied => "only root may",
        _ => "the connection broke",
    };
    ClientError::Talk { path: path.into(), hint, source }
}
