//! Servers that answer badly, late, or not at all; how long what takes is a matter of milliseconds here.

use std::time::{Duration, Instant};

use super::*;
use crate::source::kubernetes::Hearing;

mod server;

use server::{Mode, Server};

/// Far beyond what anything takes, also on a busy machine.
const WATCHDOG: Duration = Duration::from_mins(1);

/// What only a bound that a test does not mean could end ends long after [`WATCHDOG`].
fn pace() -> Pace {
    Pace {
        answer: Duration::from_mins(5),
        watch: Duration::from_mins(4),
        late: Duration::from_mins(1),
        pulse: Duration::from_mins(5),
        brief: Duration::from_millis(20),
        first: Duration::from_millis(20),
        longest: Duration::from_millis(320),
    }
}

fn follow(server: &Server, pace: Pace) -> Watched {
    let cluster = Cluster::of(kube::Config::new(server.url().parse().unwrap())).unwrap();
    let interest = Interest { pods: Pods::None, only_services: true, written: Written::Nothing };
    let cluster = cluster.without_retries();
    let servers = Servers { ours: cluster.clone(), others: cluster, interest, pace };
    servers.follow()
}

/// Waits until what is heard, or told, is so.
async fn until<T: Clone>(what: &str, of: &mut watch::Receiver<T>, is_so: impl FnMut(&T) -> bool) -> T {
    let found = tokio::time::timeout(WATCHDOG, of.wait_for(is_so)).await;
    found.unwrap_or_else(|_| panic!("waited in vain: {what}")).expect("it goes on").clone()
}

async fn told(watched: &mut Watched, names: &[&str]) {
    let seen = |told: &Told| told.snapshot.objects.keys().map(|key| key.name.clone()).collect::<Vec<_>>();
    until(&names.join(" "), &mut watched.told, |told| seen(told) == names).await;
}

fn says(heard: &Hearing, words: &str) -> bool {
    heard.silent.as_deref().is_some_and(|silent| silent.contains(words))
}

async fn asked(server: &Server, how_often: usize, path: &str) -> Vec<Duration> {
    let began = Instant::now();
    loop {
        let times: Vec<Instant> = server.asked(path);
        if times.len() >= how_often {
            return times.windows(2).map(|two| two[1] - two[0]).collect();
        }
        assert!(began.elapsed() < WATCHDOG, "it was asked {} times", times.len());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until everything is watched, and until that is heard: a list is heard before its watch begins.
async fn watched_all(server: &Server, watched: &mut Watched) {
    until("it is heard", &mut watched.heard, |heard| heard.silent.is_none()).await;
    for what in ["/api/v1/services watch", "/apis/discovery.k8s.io/v1/endpointslices watch"] {
        asked(server, 1, what).await;
    }
}

fn assert_growing(between: &[Duration]) {
    for (number, between) in between.iter().enumerate() {
        let least = (pace().first * (1 << number)).min(pace().longest) * 3 / 4;
        assert!(*between >= least, "{between:?} before question {number}, expected {least:?} and more");
    }
}

#[tokio::test]
async fn a_server_whose_watches_fail_at_once_is_asked_less_and_less() {
    let server = Server::start(Mode::Fails);
    let mut watched = follow(&server, pace());
    let between = asked(&server, 7, "/api/v1/services watch").await;
    assert_growing(&between);
    let why = "the watch cache is broken";
    until("why is said", &mut watched.heard, |heard| says(heard, why)).await;
    server.end_watches_after(Duration::from_millis(100));
    server.be(Mode::Works);
    until("it is heard again", &mut watched.heard, |heard| heard.silent.is_none()).await;
    server.add("late");
    told(&mut watched, &["late"]).await;
}

#[tokio::test]
async fn a_server_that_refuses_everything_is_asked_less_and_less_and_its_words_are_said() {
    let server = Server::start(Mode::Refuses);
    let mut watched = follow(&server, pace());
    assert_growing(&asked(&server, 7, "/apis").await);
    until("why is said", &mut watched.heard, |heard| says(heard, "there is no backend")).await;
    server.be(Mode::Works);
    until("it is heard", &mut watched.heard, |heard| heard.silent.is_none()).await;
}

#[tokio::test]
async fn a_server_that_hangs_is_noticed_without_a_watch_that_ends_and_caught_up_with() {
    let server = Server::start(Mode::Works);
    server.add("early");
    let quick = Pace { answer: Duration::from_secs(1), pulse: Duration::from_millis(50), ..pace() };
    let mut watched = follow(&server, quick);
    told(&mut watched, &["early"]).await;
    watched_all(&server, &mut watched).await;

    // What has been connected until now hears nothing more of it, not even an end.
    server.be(Mode::Hangs);
    server.add("late");
    let why = format!("{}: it does not answer; what it said last is in force", server.url());
    until("it is said", &mut watched.heard, |heard| heard.silent.as_ref() == Some(&why)).await;
    server.be(Mode::Works);
    told(&mut watched, &["early", "late"]).await;
    until("it is heard again", &mut watched.heard, |heard| heard.silent.is_none()).await;
}

#[tokio::test]
async fn a_watch_that_says_nothing_and_does_not_end_is_said_and_asked_for_again() {
    let server = Server::start(Mode::Works);
    let quick = Pace { watch: Duration::from_secs(1), late: Duration::from_secs(1), ..pace() };
    let mut watched = follow(&server, quick);
    watched_all(&server, &mut watched).await;

    server.be(Mode::Mute);
    server.add("late");
    let why = "it does not end a watch that should be over";
    until("it is said", &mut watched.heard, |heard| says(heard, why)).await;
    told(&mut watched, &["late"]).await;
    server.end_watches_after(Duration::from_millis(100));
    until("it is heard again", &mut watched.heard, |heard| heard.silent.is_none()).await;
}

#[test]
fn what_the_readme_says_of_a_silent_server_is_so() {
    let pace = Pace::default();
    assert_eq!((pace.pulse + pace.answer).as_secs(), 25, "until a server that hangs is noticed");
    assert_eq!((pace.watch + pace.late).as_secs(), 65, "until a watch that hangs is noticed");
}
