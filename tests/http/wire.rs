//! The golden stories once more, through the sockets of the real program.

use kvstore::http::request::Method;

use crate::server::{Heard, Server};
use crate::stories::{Story, load};

/// Replays one golden story: the events of the parser tell what the program must do.
fn replay(server: &Server, story: &Story) {
    let name = &story.name;
    let mut talk = server.connect();
    let mut events = story.want.iter();
    let bytes: usize = story.pieces.iter().map(Vec::len).sum();
    for (n, piece) in story.pieces.iter().enumerate() {
        if n > 0 && story.want.first().is_some_and(|first| first == "continue") && n == 1 {
            assert!(matches!(talk.hear(Method::Post), Heard::Interim), "{name}");
            events.next();
        }
        talk.send(piece);
    }
    let unfinished = story
        .want
        .last()
        .is_some_and(|last| last.starts_with("in "))
        || story.want.len() == 1;
    let rejected = story
        .want
        .last()
        .is_some_and(|last| last.starts_with("reject"));
    if unfinished && !rejected {
        talk.finish_sending();
    }
    let mut closes = rejected;
    for event in events.filter(|event| *event != "idle" && !event.starts_with("in ")) {
        let method = if event.starts_with("HEAD ") {
            Method::Head
        } else {
            Method::Get
        };
        let reply = match talk.hear(method) {
            Heard::Answer(reply) => reply,
            // More unread bytes than are put up with: the reset may overtake the answer.
            Heard::Closed { reset: true } if bytes > 200_000 => return,
            other => panic!("{name}: {event}: {other:?}"),
        };
        closes |= event.ends_with(" close");
        match event
            .strip_prefix("reject ")
            .and_then(|rest| rest.split_once(' '))
        {
            Some((status, text)) => {
                assert_eq!(reply.status.to_string(), status, "{name}");
                assert_eq!(reply.body, format!("{text}\n").as_bytes(), "{name}");
                assert!(!reply.keep_alive, "{name}");
            }
            None => assert!(
                (200..500).contains(&reply.status),
                "{name}: {event}: {reply:?}"
            ),
        }
    }
    if unfinished && !rejected {
        assert!(
            matches!(talk.hear(Method::Get), Heard::Closed { .. }),
            "{name}: an answer to half a request"
        );
    } else {
        assert_eq!(talk.is_kept(), !closes, "{name}");
    }
    server.assert_serves(name);
}

#[test]
fn stories_hold_on_the_wire() {
    let server = Server::start();
    let stories: Vec<Story> = load()
        .into_iter()
        .flat_map(|(_, _, stories)| stories)
        .collect();
    let mut told = 0;
    for story in &stories {
        // The story tests have small limits of their own.
        let ours = |event: &String| event.starts_with("reject 413");
        if story.want.iter().any(ours) && !story.name.starts_with("# 69") {
            continue;
        }
        replay(&server, story);
        told += 1;
    }
    assert!(told > 150, "{told} stories");
}
