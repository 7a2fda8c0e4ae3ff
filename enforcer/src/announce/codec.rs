//! Frames: a length (`u32`, big endian), then so many bytes of JSON.

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::AnnounceError;

/// Longest frame in bytes: ten thousand bindings with long labels, and room.
pub const MAX_FRAME: usize = 16 << 20;

/// A frame as it goes out.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, AnnounceError> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message).map_err(AnnounceError::Malformed)?;
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(AnnounceError::TooLong { length, limit: MAX_FRAME });
    }
    frame[..4].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(frame)
}

/// Sends one message.
pub async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> Result<(), AnnounceError> {
    let frame = encode(message)?;
    stream.write_all(&frame).await.map_err(|source| AnnounceError::Io { action: "write", source })
}

/// Collects frames from a stream. Cancelling [`Reader::read`] loses nothing: what has come stays here.
#[derive(Debug)]
pub struct Reader<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + Unpin> Reader<S> {
    pub const fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// The stream, to answer on it. Reading from it would take bytes out of a frame.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The next message.
    pub async fn read<M: DeserializeOwned>(&mut self) -> Result<M, AnnounceError> {
        loop {
            if let Some(body) = self.take_frame()? {
                return serde_json::from_slice(&body).map_err(AnnounceError::Malformed);
            }
            let read = self
                .stream
                .read_buf(&mut self.buffer)
                .await
                .map_err(|source| AnnounceError::Io { action: "read", source })?;
            if read == 0 {
                return Err(AnnounceError::Closed);
            }
        }
    }

    /// The body of the first frame, if it is complete. The length is judged before anything is kept for it.
    fn take_frame(&mut self) -> Result<Option<Vec<u8>>, AnnounceError> {
        let Some((head, rest)) = self.buffer.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*head) as usize;
        if length > MAX_FRAME {
            return Err(AnnounceError::TooLong { length, limit: MAX_FRAME });
        }
        if rest.len() < length {
            return Ok(None);
        }
        let body = rest[..length].to_vec();
        self.buffer.drain(..4 + length);
        Ok(Some(body))
    }
}

impl Reader<TcpStream> {
    /// Both directions apart, so that one can be waited for while the other is used.
    pub fn split(self) -> (Reader<OwnedReadHalf>, OwnedWriteHalf) {
        let (reader, writer) = self.stream.into_split();
        (Reader { stream: reader, buffer: self.buffer }, writer)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        announce::{Answer, Binding, LiveGrant, Request},
        model::Protocol,
    };

    fn body(message: &impl Serialize) -> String {
        String::from_utf8(encode(message).unwrap()[4..].to_vec()).unwrap()
    }

    #[test]
    fn the_messages_have_these_names_on_the_wire() {
        let binding = Binding {
            uid: "u".into(),
            generation: 3,
            v4: Some([198, 19, 0, 2].into()),
            cluster: "c".into(),
            namespace: "shop".into(),
            pod: "cart".into(),
            ..Binding::default()
        };
        assert_eq!(
            body(&Request::Hello { version: 1, node: "n".into() }),
            r#"{"type":"hello","version":1,"node":"n"}"#
        );
        assert_eq!(
            body(&Request::Upsert { binding }),
            r#"{"type":"upsert","binding":{"uid":"u","generation":3,"v4":"198.19.0.2","cluster":"c","#
                .to_owned()
                + r#""namespace":"shop","namespaceLabels":{},"pod":"cart","labels":{}}}"#
        );
        let grant = LiveGrant { service: [198, 18, 0, 7].into(), protocol: Protocol::Tcp, port: 6379 };
        assert_eq!(
            body(&Answer::Live { uid: "u".into(), generation: 3, grants: BTreeSet::from([grant]) }),
            r#"{"type":"live","uid":"u","generation":3,"grants":[{"service":"198.18.0.7","#.to_owned()
                + r#""protocol":"TCP","port":6379}]}"#
        );
        assert_eq!(body(&Answer::Released { uid: "u".into() }), r#"{"type":"released","uid":"u"}"#);
    }

    #[tokio::test]
    async fn frames_are_found_wherever_the_stream_is_cut() {
        let messages = [
            Request::Hello { version: 1, node: "n".into() },
            Request::Snapshot { generation: 1, bindings: vec![Binding::default(), Binding::default()] },
            Request::Remove { uid: "x".into() },
        ];
        let stream: Vec<u8> = messages.iter().flat_map(|message| encode(message).unwrap()).collect();
        for cut in 0..=stream.len() {
            let (first, second) = stream.split_at(cut);
            let mut reader = Reader::new(tokio::io::AsyncReadExt::chain(first, second));
            for message in &messages {
                assert_eq!(reader.read::<Request>().await.unwrap(), *message, "cut at {cut}");
            }
            assert_eq!(
                reader.read::<Request>().await.unwrap_err().to_string(),
                "announce connection closed by the other end"
            );
        }
    }

    #[tokio::test]
    async fn a_frame_that_is_too_long_is_refused_by_its_length_alone() {
        let length = MAX_FRAME as u32 + 1;
        let head = length.to_be_bytes();
        let error = Reader::new(head.as_slice()).read::<Request>().await.unwrap_err();
        assert_eq!(error.to_string(), "announce frame of 16777217 bytes, expected at most 16777216");
    }

    #[tokio::test]
    async fn what_is_no_message_is_an_error() {
        for text in ["", "null", "{}", r#"{"type":"snapshot"}"#, r#"{"type":"nonsense"}"#] {
            let mut frame = (text.len() as u32).to_be_bytes().to_vec();
            frame.extend_from_slice(text.as_bytes());
            let error = Reader::new(frame.as_slice()).read::<Request>().await.unwrap_err();
            assert_eq!(error.to_string(), "announce frame is no message of this protocol", "{text}");
        }
    }
}
