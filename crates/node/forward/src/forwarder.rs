//! One container's forwarding: a thread that reads the spool, delivers, and notes how far it got.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wharf_error::Chain;
use wharf_logs::{Config, Ending, Message, Place, Progress, Reader, RemoteKind};

use crate::cursor::Cursor;
use crate::{ForwardError, Info, fluentd, gelf, journald, splunk, syslog};

/// How long a connection without confirmations has to live on before what was written to it counts as delivered.
pub const SETTLED: Duration = Duration::from_secs(1);
/// Pauses between attempts: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long the thread of a forwarder takes to see that it is to end.
const STACK: usize = 256 << 10;

/// Something that takes messages.
pub(crate) trait Sink: Send {
    /// Delivers all, in order, or fails; after a failure the sink connects anew and gets them again.
    fn deliver(&mut self, messages: &[Message]) -> io::Result<()>;
    /// Whether delivered means that the other side has it.
    fn confirms(&self) -> bool;
    /// Whether the connection still lives.
    fn check(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is to be forwarded.
#[derive(Debug)]
pub struct Request {
    /// The container's folder.
    pub folder: OwnedFd,
    /// Its log configuration, with a remote driver.
    pub config: Config,
    /// What messages tell of it.
    pub info: Info,
}

#[derive(Debug, Default)]
struct State {
    ending: Option<Ending>,
    /// The container has ended: deliver what is there, then stop.
    finished: bool,
    /// Stop now.
    abandoned: bool,
    /// The thread is done.
    done: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits; true if it is to stop.
    fn pause(&self, time: Duration) -> bool {
        let state = self.lock();
        let (state, _) =
            self.changed.wait_timeout_while(state, time, |s| !s.abandoned).unwrap_or_else(PoisonError::into_inner);
        state.abandoned
    }
}

/// A running forwarder. Dropping it leaves the thread to itself.
#[derive(Clone, Debug)]
pub struct Forwarder(Arc<Shared>);

/// Whether everything of a container that has ended was delivered, as its folder says.
pub fn is_drained(folder: &OwnedFd) -> bool {
    crate::cursor::read(folder).drained
}

impl Forwarder {
    /// Starts forwarding from where it got to last time. Checks the options and what they name; that the other side can be
    /// reached is not required, because the spool holds what comes until then.
    pub fn start(request: Request) -> Result<Option<Forwarder>, ForwardError> {
        let Some(remote) = request.config.remote.clone() else { return Ok(None) };
        let sink: Box<dyn Sink> = match remote.kind {
            RemoteKind::Journald => Box::new(journald::Journal::new(&request.info, journald::SOCKET.as_ref())?),
            RemoteKind::Syslog => Box::new(syslog::Syslog::new(&remote, &request.info)?),
            RemoteKind::Gelf => Box::new(gelf::Gelf::new(&remote, &request.info)?),
            RemoteKind::Fluentd => Box::new(fluentd::Fluentd::new(&remote, &request.info)?),
            RemoteKind::Splunk => Box::new(splunk::Splunk::new(&remote, &request.info)?),
        };
        let cursor = Cursor::open(&request.folder).map_err(ForwardError::Thread)?;
        let shared = Arc::new(Shared::default());
        let run = Run { request, sink, cursor, shared: shared.clone(), pending: VecDeque::new(), trouble: false };
        std::thread::Builder::new()
            .name("forward".to_owned())
            .stack_size(STACK)
            .spawn(move || run.deliver_all())
            .map_err(ForwardError::Thread)?;
        Ok(Some(Forwarder(shared)))
    }

    /// Tells that the container has ended: what it put out is delivered, however long that takes, then the thread ends.
    pub fn finish(&self) {
        let mut state = self.0.lock();
        state.finished = true;
        if let Some(ending) = &state.ending {
            ending.finish();
        }
    }

    /// Ends the thread soon, whatever is left. What was delivered is noted.
    pub fn abandon(&self) {
        let mut state = self.0.lock();
        state.abandoned = true;
        if let Some(ending) = &state.ending {
            ending.finish();
        }
        self.0.changed.notify_all();
    }

    /// Waits until the thread is done; false if it is not after that time. Blocks.
    pub fn wait(&self, time: Duration) -> bool {
        let state = self.0.lock();
        let (state, _) =
            self.0.changed.wait_timeout_while(state, time, |s| !s.done).unwrap_or_else(PoisonError::into_inner);
        state.done
    }

    /// Whether the thread is done.
    pub fn is_done(&self) -> bool {
        self.0.lock().done
    }
}

struct Run {
    request: Request,
    sink: Box<dyn Sink>,
    cursor: Cursor,
    shared: Arc<Shared>,
    /// What was written to a connection that confirms nothing, and when.
    pending: VecDeque<(Instant, Place)>,
    /// Whether the trouble was logged.
    trouble: bool,
}

/// Why one pass over the log ended.
enum Ended {
    Drained,
    Abandoned,
}

impl Run {
    fn deliver_all(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.pass(&mut pause) {
                Ok(Ended::Drained) => {
                    if let Err(error) = self.cursor.set_drained(true) {
                        tracing::warn!(container = self.request.info.id, %error, "cannot note that the log is delivered");
                    }
                    break;
                }
                Ok(Ended::Abandoned) => break,
                Err(error) => error,
            };
            if !self.trouble {
                let driver = self.request.config.remote.as_ref().map_or("", |r| r.kind.name());
                tracing::warn!(container = self.request.info.id, driver, %error, "cannot deliver the log; it is kept and tried again");
                self.trouble = true;
            }
            self.pending.clear();
            if self.shared.pause(pause) {
                break;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        let mut state = self.shared.lock();
        state.ending = None;
        state.done = true;
        self.shared.changed.notify_all();
    }

    fn open(&mut self) -> io::Result<Reader> {
        let from = self.cursor.stored.place();
        let request = &self.request;
        let opened = Reader::open_at(request.folder.as_fd(), &request.info.id, &request.config, from.as_ref());
        let (reader, found) = opened.map_err(|e| io::Error::other(Chain(&e).to_string()))?;
        if !found {
            tracing::warn!(
                container = request.info.id,
                "the log was rotated away before it was delivered: a part is lost"
            );
        }
        let mut state = self.shared.lock();
        state.ending = reader.ending();
        if state.finished || state.abandoned {
            state.ending.iter().for_each(Ending::finish);
        }
        Ok(reader)
    }

    /// Reads from the stored place and delivers, until the end or until something fails.
    fn pass(&mut self, pause: &mut Duration) -> io::Result<Ended> {
        let broken = |e: wharf_logs::LogError| io::Error::other(Chain(&e).to_string());
        let mut reader = self.open()?;
        let mut messages = Vec::new();
        loop {
            messages.clear();
            let progress = reader.read_messages(&mut messages).map_err(broken)?;
            if self.shared.lock().abandoned {
                return Ok(Ended::Abandoned);
            }
            if let Some(last) = messages.last() {
                if self.cursor.stored.drained {
                    self.cursor.set_drained(false)?;
                }
                self.sink.deliver(&messages)?;
                if std::mem::take(&mut self.trouble) {
                    tracing::info!(container = self.request.info.id, "the log is delivered again");
                }
                *pause = FIRST_PAUSE;
                if self.shared.lock().abandoned {
                    // Another may have taken over, and gone on from the place that is noted.
                    return Ok(Ended::Abandoned);
                }
                let place = last.next.clone();
                match self.sink.confirms() {
                    true => self.cursor.save(&place, false)?,
                    false => self.pending.push_back((Instant::now(), place)),
                }
            }
            self.settle()?;
            match progress {
                Progress::More => {}
                Progress::Idle => {
                    let left = self.pending.front().map(|(at, _)| SETTLED.saturating_sub(at.elapsed()));
                    reader.wait(left.map(|l| l + Duration::from_millis(1))).map_err(broken)?;
                }
                Progress::End => return self.last(),
            }
        }
    }

    /// Notes what has been on its way for long enough.
    fn settle(&mut self) -> io::Result<()> {
        let mut settled = None;
        while self.pending.front().is_some_and(|(at, _)| at.elapsed() >= SETTLED) {
            settled = self.pending.pop_front();
        }
        if let Some((_, place)) = settled {
            self.sink.check()?;
            self.cursor.save(&place, false)?;
        }
        Ok(())
    }

    /// After the last message: waits until all is settled.
    fn last(&mut self) -> io::Result<Ended> {
        while let Some((at, _)) = self.pending.front() {
            let left = SETTLED.saturating_sub(at.elapsed());
            if self.shared.pause(left) {
                return Ok(Ended::Abandoned);
            }
            self.settle()?;
        }
        Ok(Ended::Drained)
    }
}
