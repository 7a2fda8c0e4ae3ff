//! `--wait`: until an object works, or is gone.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::Value;

use super::{Failure, input, out, place::Place, show::text};
use crate::model::ObjectKey;

#[derive(Args, Clone, Copy, Debug)]
pub struct WaitArgs {
    /// Wait until it works (`delete`: until it is gone), and say why it does not; exit code 4 where it never did
    #[arg(long)]
    pub wait: bool,
    /// How long
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = input::duration)]
    pub timeout: Duration,
}

/// How far apart the looks are.
const PAUSE: Duration = Duration::from_millis(200);

pub fn until_ready(place: &dyn Place, key: &ObjectKey, limit: Duration) -> anyhow::Result<ExitCode> {
    let look = || match place.get(key) {
        Ok(Some(object)) => works(&object, place.last_condition(key.kind)),
        Ok(None) => Err("it is gone".to_owned()),
        Err(error) => Err(format!("{error:#}")),
    };
    match watch(look, &mut out::note, &mut pauses(limit)) {
        Ok(name) => {
            let name = if name.is_empty() { name } else { format!(": {name}") };
            out::data(&format!("{key} is ready{name}\n"))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(why) => Ok(Failure::gave_up(&format!("{key} is not ready after {}: {why}", words(limit)))),
    }
}

pub fn until_gone(place: &dyn Place, key: &ObjectKey, limit: Duration) -> ExitCode {
    let look = || match place.remains(key) {
        Ok(None) => Ok(String::new()),
        Ok(Some(why)) => Err(why),
        Err(error) => Err(format!("{error:#}")),
    };
    match watch(look, &mut out::note, &mut pauses(limit)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(why) => Failure::gave_up(&format!("{key} is not gone after {}: {why}", words(limit))),
    }
}

/// Looks until it is as it should be, and says why it is not whenever that is another reason than before. The last one
/// is the error.
fn watch(
    mut look: impl FnMut() -> Result<String, String>,
    say: &mut dyn FnMut(&str),
    pause: &mut dyn FnMut() -> bool,
) -> Result<String, String> {
    let mut said = String::new();
    loop {
        let why = match look() {
            Ok(done) => return Ok(done),
            Err(why) => why,
        };
        if why != said {
            say(&format!("waiting: {why}"));
            said.clone_from(&why);
        }
        if !pause() {
            return Err(why);
        }
    }
}

/// False where the time is over.
fn pauses(limit: Duration) -> impl FnMut() -> bool {
    let end = Instant::now().checked_add(limit);
    move || {
        let left = end.map_or(PAUSE, |end| end.saturating_duration_since(Instant::now()));
        std::thread::sleep(PAUSE.min(left));
        !left.is_zero()
    }
}

fn words(limit: Duration) -> String {
    format!("{} s", limit.as_secs())
}

/// The way to what works; each is worth a reason.
const WAY: [&str; 3] = ["Valid", "Programmed", "Ready"];

/// The name that pods connect to, where everything holds up to the `last` condition and is said of what is written
/// now; else why not.
fn works(object: &Value, last: &str) -> Result<String, String> {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let way = WAY.iter().take_while(|kind| **kind != last).chain([&last]);
    for kind in ["Accepted"].iter().chain(way) {
        let Some(condition) = conditions.iter().find(|condition| condition["type"] == *kind) else {
            if *kind == last {
                return Err(format!("nobody has said yet whether it is {last}"));
            }
            continue;
        };
        let seen = [&condition["observedGeneration"], &object["status"]["observedGeneration"]];
        let seen = seen.into_iter().find_map(Value::as_i64);
        if let (Some(seen), Some(now)) = (seen, object["metadata"]["generation"].as_i64())
            && seen < now
        {
            return Err(format!("{kind} is said of generation {seen} yet, this is {now}"));
        }
        if condition["status"] != "True" {
            let (reason, message) = (text(&condition["reason"]), text(&condition["message"]));
            return Err(if message.is_empty() {
                format!("{kind} is {}: {reason}", text(&condition["status"]))
            } else {
                format!("{message} ({reason})")
            });
        }
    }
    let name = ["destinationDNS", "privateNetworkingFQDN"].map(|field| text(&object["status"][field]));
    Ok(name.concat())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(generation: i64, conditions: &[(&str, &str, i64)]) -> Value {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(kind, status, seen)| {
                json!({ "type": kind, "status": status, "reason": "R", "message": "", "observedGeneration": seen })
            })
            .collect();
        json!({
            "metadata": { "generation": generation },
            "status": { "conditions": conditions, "destinationDNS": "db.example" },
        })
    }

    #[test]
    fn it_works_when_the_last_condition_holds_for_what_is_written_now() {
        let table = [
            (object(1, &[]), Err("nobody has said yet whether it is Ready")),
            (object(1, &[("Valid", "True", 1)]), Err("nobody has said yet whether it is Ready")),
            (object(1, &[("Valid", "False", 1), ("Ready", "True", 1)]), Err("Valid is False: R")),
            (
                object(1, &[("Programmed", "Unknown", 1), ("Ready", "True", 1)]),
                Err("Programmed is Unknown: R"),
            ),
            (
                object(2, &[("Valid", "True", 2), ("Ready", "True", 1)]),
                Err("Ready is said of generation 1 yet, this is 2"),
            ),
            (object(1, &[("Accepted", "False", 1), ("Ready", "True", 1)]), Err("Accepted is False: R")),
            (object(2, &[("Valid", "True", 2), ("Ready", "True", 2)]), Ok("db.example")),
        ];
        for (object, expected) in table {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(works(&object, "Ready"), expected, "{object}");
        }
        let valid = object(1, &[("Valid", "True", 1), ("Ready", "False", 1)]);
        assert_eq!(
            works(&valid, "Valid"),
            Ok("db.example".to_owned()),
            "what comes behind is not waited for"
        );
    }

    #[test]
    fn each_reason_is_said_once_and_the_last_one_is_the_error() {
        let mut looks = ["a", "a", "b", "a"].into_iter().map(|why| Err(why.to_owned()));
        let mut said = Vec::new();
        let mut pauses = [true, true, true, false].into_iter();
        let end = watch(|| looks.next().unwrap(), &mut |text| said.push(text.to_owned()), &mut || {
            pauses.next().unwrap()
        });
        assert_eq!(end, Err("a".to_owned()));
        assert_eq!(said, ["waiting: a", "waiting: b", "waiting: a"]);
    }

    #[test]
    fn what_works_at_once_needs_no_pause() {
        let end = watch(|| Ok("x".to_owned()), &mut |_| panic!("nothing to say"), &mut || panic!("no pause"));
        assert_eq!(end, Ok("x".to_owned()));
    }
}
