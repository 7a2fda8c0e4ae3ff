//! The serving end of the control socket.

use std::{io, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::broadcast,
};

use super::{Answer, MonitorEvent, Request, Views, explain, render};

/// Longest request; a client that sends more is cut off.
const MAX_REQUEST: u64 = 64 * 1024;

/// Serves the socket at `path` until the process ends. A socket file that a dead process left is replaced: whoever
/// calls this holds the role's lock.
pub async fn serve(
    path: PathBuf,
    views: Views,
    events: Option<broadcast::Sender<MonitorEvent>>,
) -> anyhow::Result<()> {
    // Bound beside its place and moved there: nobody can connect before the mode is set.
    let beside = path.with_extension("sock.new");
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", beside.display()));
        }
        _ => {}
    }
    let listener =
        UnixListener::bind(&beside).with_context(|| format!("cannot listen at {}", beside.display()))?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot set the mode of {}", beside.display()))?;
    std::fs::rename(&beside, &path).with_context(|| format!("cannot listen at {}", path.display()))?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (views, events) = (views.clone(), events.clone());
                tokio::spawn(async move {
                    if let Err(error) = answer(stream, views, events).await {
                        tracing::debug!(%error, "a client of the control socket went away");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: give others the time to close theirs.
                tracing::warn!(%error, "cannot accept a client on the control socket");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(
    stream: UnixStream,
    mut views: Views,
    events: Option<broadcast::Sender<MonitorEvent>>,
) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader.take(MAX_REQUEST)).lines();
    while let Some(line) = lines.next_line().await? {
        let request = match serde_json::from_str(&line) {
            Ok(request) => request,
            Err(error) => {
                send(&mut writer, &Answer::Error(format!("not a request: {error}"))).await?;
                continue;
            }
        };
        let reply = match request {
            Request::Status => Answer::Ok(views.fresh().await.role.clone()),
            Request::Get { kind, namespace, name } => {
                let view = views.fresh().await;
                let wanted = view.snapshot.objects.iter().filter(|(key, _)| {
                    key.kind == kind
                        && namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
                        && name.as_ref().is_none_or(|name| *name == key.name)
                });
                Answer::Ok(wanted.map(|(key, object)| render::object(&view, key, object)).collect())
            }
            Request::Explain(question) => {
                let now =
                    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
                let steps = explain::explain(&*views.fresh().await, &question, now);
                Answer::Ok(json!(steps))
            }
            Request::Monitor => match &events {
                Some(events) => {
                    let events = events.subscribe();
                    send(&mut writer, &Answer::Ok(Value::Null)).await?;
                    return monitor(&mut writer, events).await;
                }
                None => Answer::Error("this role sees no packets: ask an agent or a gateway".to_owned()),
            },
        };
        send(&mut writer, &reply).await?;
    }
    Ok(())
}

async fn monitor(
    writer: &mut (impl tokio::io::AsyncWrite + Unpin),
    mut events: broadcast::Receiver<MonitorEvent>,
) -> io::Result<()> {
    loop {
        match events.recv().await {
            Ok(event) => send(writer, &event).await?,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                send(writer, &json!({ "missed": missed })).await?;
            }
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        }
    }
}

async fn send(
    writer: &mut (impl tokio::io::AsyncWrite + Unpin),
    value: &impl serde::Serialize,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        control::{View, ask, events},
        model::{Kind, Metadata, Object, ObjectKey, Spec},
        store::Snapshot,
    };

    fn view() -> View {
        let metadata = Metadata { name: "shop".into(), ..Metadata::default() };
        let object = Arc::new(Object { metadata, spec: Spec::Namespace });
        let objects = [(ObjectKey::new(Kind::Namespace, "", "shop"), object)].into();
        let snapshot = Arc::new(Snapshot { revision: 1, objects, ..Snapshot::default() });
        View { snapshot, role: json!({ "role": "agent" }), ..View::default() }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_gets_the_latest_view_and_every_event_after_it_asked() {
        let path = std::env::temp_dir().join(format!("enforcer-control-{}.sock", std::process::id()));
        let (asked, views) = Views::asked();
        tokio::spawn(async move {
            loop {
                asked.wanted().await;
                asked.answer(view());
            }
        });
        let (event_sender, _) = broadcast::channel(8);
        let server = tokio::spawn(serve(path.clone(), views, Some(event_sender.clone())));
        while !path.exists() {
            tokio::task::yield_now().await;
        }
        let socket = path.clone();
        let (status, objects, mode, mut lines) = tokio::task::spawn_blocking(move || {
            let get = Request::Get { kind: Kind::Namespace, namespace: None, name: None };
            let mode = std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
            (ask(&socket, &Request::Status), ask(&socket, &get), mode, events(&socket).unwrap())
        })
        .await
        .unwrap();
        assert_eq!(status.unwrap(), json!({ "role": "agent" }));
        let shop =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" }, "status": {} });
        assert_eq!(objects.unwrap(), json!([shop]));
        assert_eq!(mode, 0o600, "only root may ask");

        let event = MonitorEvent { kind: "denied".into(), ..MonitorEvent::default() };
        event_sender.send(event.clone()).unwrap();
        let line = tokio::task::spawn_blocking(move || lines.next().unwrap().unwrap()).await.unwrap();
        assert_eq!(serde_json::from_str::<MonitorEvent>(&line).unwrap(), event);
        server.abort();
        std::fs::remove_file(path).unwrap();
    }
}
