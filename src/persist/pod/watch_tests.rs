//! Frames, and a watch against a scripted transport.

use std::sync::Arc;

use crossbeam_channel::unbounded;
use serde_json::{Value, json};

use crate::kube::ClientOptions;
use crate::kube::config::Auth;
use crate::kube::objects::parse_frame;
use crate::kube::scripted::{Chunk, Reply, Script, WAIT};

use super::*;

fn frame(kind: &str, name: &str, version: &str) -> Value {
    json!({"type": kind, "object": {"kind": "Pod", "metadata": {"name": name, "uid": "pod", "resourceVersion": version}}})
}

fn body(frames: &[Value], end: Option<Chunk>) -> Reply {
    let text: String = frames.iter().map(|frame| format!("{frame}\n")).collect();
    Reply::chunks(200, [Chunk::Bytes(text.into_bytes())].into_iter().chain(end).collect())
}

fn client(script: &Script) -> Client {
    Client::with_transport(Arc::new(script.clone()), &Auth::None, ClientOptions::default())
}

#[test]
fn frames_are_understood_or_start_the_watch_anew() {
    let parse_text = |text: &[u8]| {
        let decode: Decode<Box<Pod>> = Box::new(|json| crate::json::from_slice(json).map(|pod| Some(Box::new(pod))));
        parse_frame(text, Resource::PODS, &decode).and_then(meaning)
    };
    let parse = |value: Value| parse_text(value.to_string().as_bytes());
    assert!(matches!(parse(frame("ADDED", "p", "1")), Ok(Heard::Pod(pod)) if pod.metadata.name == "p"));
    assert!(matches!(parse(frame("MODIFIED", "p", "1")), Ok(Heard::Pod(_))));
    assert_eq!(parse(frame("BOOKMARK", "", "7")), Ok(Heard::Version("7".into())));
    assert_eq!(parse(frame("DELETED", "p", "8")), Ok(Heard::Version("8".into())));
    assert_eq!(parse(frame("LATER", "p", "8")), Ok(Heard::Nothing));
    assert_eq!(parse(json!({"type": "ERROR", "object": {"code": 410, "reason": "Expired"}})), Err("410 Expired".to_owned()));
    for text in [&b"{"[..], b"[]", b"{}", br#"{"type":"ADDED","object":7}"#, b"\xff"] {
        assert!(parse_text(text).is_err());
    }
}

#[test]
fn the_pod_is_watched_from_memory_and_only_watched() {
    let script = Script::new([
        body(&[frame("ADDED", "p", "5"), frame("BOOKMARK", "", "9")], Some(Chunk::Fail(io::ErrorKind::ConnectionReset))),
        Reply::json(410, &json!({"code": 410, "reason": "Expired"})),
        body(&[frame("ADDED", "other", "5"), frame("MODIFIED", "p", "12")], Some(Chunk::Hang)),
    ]);
    let (sender, receiver) = unbounded();
    let environment = Environment::for_tests(json!({"quarksJob": "q", "uid": "u", "run": 1}), "/nonexistent".as_ref());
    let watch = PodWatch::start(&client(&script), &environment, 1, sender, &unbounded().0).unwrap();
    for version in ["5", "12"] {
        let event = receiver.recv_timeout(WAIT).unwrap();
        let LoopEvent::Pod(pod) = event else { panic!("{event:?}") };
        assert_eq!(pod.metadata.resource_version, version.into());
    }
    drop(watch);
    assert!(receiver.try_recv().is_err());
    for seen in script.seen() {
        assert!(seen.path_and_query.starts_with("/api/v1/namespaces/ns/pods?watch=true"), "{seen:?}");
        assert!(seen.path_and_query.contains("resourceVersion=0&") && seen.path_and_query.ends_with("fieldSelector=metadata.name%3Dp"));
    }
}
