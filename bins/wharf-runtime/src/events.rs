//! `events`: statistics and out-of-memory kills, one JSON object a line.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde_json::{Value, json};
use wharf_oci::runtime::Status;

use crate::args::Invocation;
use crate::error::Error;
use crate::{stats, store};

/// How long a kill may take to be counted: looked at this often, this many times.
const LOOK: Duration = Duration::from_millis(20);
const LOOKS: u32 = 50;

/// Prints events until the container ends, or its statistics once.
pub fn run(i: &Invocation) -> Result<u8, Error> {
    let interval = interval(i.value("interval").unwrap_or("5s"))?;
    let (folder, record) = store::open(&i.root, i.id())?;
    if folder.status(&record)? == Status::Stopped {
        return Err(Error::State(format!("container with id {} is not running", record.id)));
    }
    let container = record.container()?;
    let Some(group) = container.cgroup() else { return Err(Error::State("container has no cgroup".to_owned())) };
    let tell = |kind: &str, data: Option<Value>| {
        let mut event = json!({"type": kind, "id": record.id});
        if let Some(data) = data {
            event["data"] = data;
        }
        // Line by line: readers follow along a pipe.
        writeln!(std::io::stdout(), "{event}")
    };
    if i.is_set("stats") {
        let _ = tell("stats", Some(stats::of(group)?));
        return Ok(0);
    }
    let mut watch = group.watch_oom().map_err(Error::Cgroup)?;
    let mut kills = group.oom_kills().map_err(Error::Cgroup)?;
    let mut next = Instant::now() + interval;
    // Version 1 tells before it kills, and only once: the count is looked at again until then.
    let mut look: Option<(Instant, u32)> = None;
    loop {
        let until = look.map_or(next, |(when, _)| when.min(next));
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let pidfd = container.pidfd();
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        fds.extend(watch.iter().map(|w| PollFd::from_borrowed_fd(w.as_fd(), PollFlags::IN)));
        match poll(&mut fds, Some(&left)) {
            Err(Errno::INTR) => continue,
            other => other.map_err(|e| Error::Wait(e.into()))?,
        };
        let (ended, oom) = (!fds[0].revents().is_empty(), fds.get(1).is_some_and(|f| !f.revents().is_empty()));
        drop(fds);
        let mut told = Ok(());
        let due = look.take_if(|(when, _)| *when <= Instant::now());
        if (oom || due.is_some())
            && let Some(watch) = &mut watch
        {
            // Several wake-ups may tell of one kill, and one of several; the count says which.
            let now = watch.acknowledge().unwrap_or(kills);
            let times = due.map_or(0, |(_, times)| times + 1);
            if now == kills && times < LOOKS {
                look = Some((Instant::now() + LOOK, times));
            }
            for _ in kills..now {
                told = told.and_then(|()| tell("oom", None));
            }
            kills = now;
        }
        if ended {
            return Ok(0);
        }
        if Instant::now() >= next {
            next = Instant::now() + interval;
            let data = stats::of(group)?;
            told = told.and_then(|()| tell("stats", Some(data)));
        }
        if told.is_err() {
            // Nobody reads any more.
            return Ok(0);
        }
    }
}

/// Reads a duration as Go writes them: `500ms`, `5s`, `1m30s`.
fn interval(text: &str) -> Result<Duration, Error> {
    let wrong = || Error::Usage(format!("invalid value {text:?} for flag -interval: parse error"));
    let (mut rest, mut sum) = (text, 0.0);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, behind) = rest.split_at(end);
        let unit = behind.find(|c: char| c.is_ascii_digit()).map_or(behind, |at| &behind[..at]);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        sum += number.parse::<f64>().map_err(|_| wrong())? * seconds;
        rest = &behind[unit.len()..];
    }
    match Duration::try_from_secs_f64(sum) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(Error::Usage("duration interval must be greater than 0".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        let of = |text| interval(text).ok().map(|d| d.as_millis());
        assert_eq!(["5s", "1m30s", "250ms", "1.5s"].map(of), [Some(5000), Some(90_000), Some(250), Some(1500)]);
        assert_eq!(["", "0s", "5", "s", "1x", "-1s", "1e400s"].map(of), [None; 7]);
    }
}
