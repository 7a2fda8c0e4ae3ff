//! The UAPI socket of a device: whole requests in, whole answers out.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
};

use crate::tunnel::uapi::Set;

/// Longest request, in bytes: room for ten thousand peers, not for a client that never stops.
const MAX_REQUEST: u64 = 8 << 20;

/// What a client wants, and where the answer goes.
pub(super) struct Request {
    /// `None`: it wants to read.
    pub set: Option<Set>,
    pub answer: oneshot::Sender<String>,
}

/// The socket in the file system; it goes with this value.
pub(super) struct Socket {
    path: PathBuf,
    pub listener: UnixListener,
}

impl Socket {
    /// Takes the place of whatever a killed process left at `path`.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        // Nobody can connect before the mode is set, because nobody knows this name. `wg` looks for *.sock only.
        let temporary = path.with_extension("new");
        let _ = fs::remove_file(&temporary);
        let listener = UnixListener::bind(&temporary)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600))?;
        fs::rename(&temporary, path)?;
        Ok(Self { path: path.to_owned(), listener })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Serves one client until it hangs up or says something that is no request.
pub(super) async fn converse(mut stream: UnixStream, device: mpsc::Sender<Request>) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    while let Some(text) = read_request(&mut reader).await? {
        let set = match text.as_str() {
            "get=1\n" => None,
            text => match Set::parse(text) {
                Ok(set) => Some(set),
                Err(error) => {
                    tracing::warn!(%error, "configuration request is not understood");
                    return writer.write_all(refusal(libc::EINVAL).as_bytes()).await;
                }
            },
        };
        let (answer, answered) = oneshot::channel();
        let sent = device.send(Request { set, answer }).await;
        let text = match (sent, answered.await) {
            (Ok(()), Ok(text)) => text,
            _ => refusal(libc::ENODEV),
        };
        writer.write_all(text.as_bytes()).await?;
    }
    Ok(())
}

/// Reads up to the empty line that ends a request; `None` at the end of the stream.
async fn read_request(reader: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<Option<String>> {
    let mut text = String::new();
    let mut reader = reader.take(MAX_REQUEST);
    loop {
        let start = text.len();
        if reader.read_line(&mut text).await? == 0 {
            return Ok(Some(text).filter(|text| !text.is_empty()));
        }
        if text[start..] == *"\n" {
            text.truncate(start);
            if !text.is_empty() {
                return Ok(Some(text));
            }
        }
    }
}

/// The answer to a request that failed, in the sign that `wg` expects.
pub(super) fn refusal(errno: i32) -> String {
    format!("errno={}\n\n", -errno)
}
