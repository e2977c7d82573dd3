//! How a build is shown on standard error: as lines for logs, as a board on a terminal, as JSON, or not at all.
//!
//! Source: moby/buildkit `util/progress/progressui`.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant};

use base64::Engine;
use serde_json::{Value, json};
use wharf_proto_buildkit::Timestamp;
use wharf_proto_buildkit::control::{StatusResponse, Vertex, VertexStatus, VertexWarning};

use crate::exit::Exit;
use crate::terminal;

/// How often a board is drawn at most.
pub const FRAME: Duration = Duration::from_millis(100);

/// How long a step of the lines may be quiet before another one speaks.
const QUIET: Duration = Duration::from_millis(500);

/// Lines of a running step's output on the board.
const TAIL: usize = 6;

/// Bytes of output kept of a step, for the case that it fails.
const KEPT: usize = 16 << 10;

/// A way to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A board that is drawn over.
    Board,
    /// Lines.
    Lines,
    /// One JSON object for each event.
    Json,
    /// Nothing.
    Quiet,
}

impl Mode {
    /// Reads `--progress` (or `BUILDKIT_PROGRESS`), and what fits the terminal.
    ///
    /// # Errors
    /// Buildx's texts.
    pub fn of(text: &str, quiet: bool) -> Result<Self, Exit> {
        let mode = match text {
            "auto" | "" if terminal::stderr_is() => Self::Board,
            "auto" | "" | "plain" => Self::Lines,
            "tty" if terminal::stderr_is() => Self::Board,
            "tty" => return Err(Exit::new("failed to get console: provided file is not a console")),
            "rawjson" => Self::Json,
            "quiet" => Self::Quiet,
            "none" => Self::Quiet,
            other => return Err(Exit::new(format!("invalid progress mode {other}"))),
        };
        Ok(if quiet { Self::Quiet } else { mode })
    }
}

fn seconds(time: Timestamp) -> f64 {
    time.seconds as f64 + f64::from(time.nanos) / 1e9
}

fn now() -> f64 {
    let time = wharf_types::Timestamp::now();
    time.seconds() as f64 + f64::from(time.subsec_nanos()) / 1e9
}

fn size(bytes: i64) -> String {
    let (mut value, mut unit) = (bytes as f64, 0);
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes}B") } else { format!("{value:.2}{}", UNITS[unit]) }
}

/// A step as it is known.
struct Known {
    number: usize,
    name: String,
    started: Option<f64>,
    completed: Option<f64>,
    cached: bool,
    error: String,
    /// By id, in the order in which they came.
    statuses: Vec<VertexStatus>,
    /// The end of its output.
    output: Vec<u8>,
    /// What is to be printed when it is its turn.
    lines: String,
    /// Whether the last line of the output is not ended yet.
    open: bool,
}

impl Known {
    fn running(&self) -> bool {
        self.started.is_some() && self.completed.is_none()
    }

    fn time(&self) -> f64 {
        self.started.map_or(0.0, |s| (self.completed.unwrap_or_else(now) - s).max(0.0))
    }
}

fn status_text(status: &VertexStatus) -> String {
    let mut text = status.id.clone();
    if status.total > 0 && status.current < status.total {
        text.push_str(&format!(" {} / {}", size(status.current), size(status.total)));
    } else if status.current > 0 {
        text.push_str(&format!(" {}", size(status.current)));
    }
    text
}

fn status_time(status: &VertexStatus) -> Option<f64> {
    Some(seconds(status.completed?) - seconds(status.started?))
}

/// What is shown.
pub struct Show {
    mode: Mode,
    title: String,
    begun: f64,
    order: Vec<String>,
    steps: HashMap<String, Known>,
    warnings: Vec<VertexWarning>,
    current: Option<String>,
    spoke: Instant,
    drawn: usize,
    drawn_at: Option<Instant>,
    colors: bool,
}

impl Show {
    /// Begins; `title` names the daemon.
    pub fn begin(mode: Mode, title: &str) -> Self {
        let colors = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let mut show = Self {
            mode,
            title: title.to_owned(),
            begun: now(),
            order: Vec::new(),
            steps: HashMap::new(),
            warnings: Vec::new(),
            current: None,
            spoke: Instant::now(),
            drawn: 0,
            drawn_at: None,
            colors,
        };
        if mode == Mode::Lines {
            show.write(&format!("#0 building with {title:?} instance using docker driver\n\n"));
        }
        show
    }

    fn write(&mut self, text: &str) {
        // Progress that nobody can see is no reason to end a build.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    /// Takes an event.
    pub fn take(&mut self, event: &StatusResponse) {
        if self.mode == Mode::Json {
            let line = format!("{}\n", json_of(event));
            self.write(&line);
        }
        for vertex in &event.vertexes {
            self.take_vertex(vertex);
        }
        for status in &event.statuses {
            self.take_status(status);
        }
        for log in &event.logs {
            self.take_log(&log.vertex, log.timestamp.map_or_else(now, seconds), &log.msg);
        }
        self.warnings.extend(event.warnings.iter().cloned());
        match self.mode {
            Mode::Lines => self.speak(false),
            Mode::Board => self.draw(false),
            Mode::Json | Mode::Quiet => {}
        }
    }

    /// Time went by.
    pub fn tick(&mut self) {
        match self.mode {
            Mode::Lines => self.speak(false),
            Mode::Board => self.draw(false),
            Mode::Json | Mode::Quiet => {}
        }
    }

    fn take_vertex(&mut self, vertex: &Vertex) {
        let count = self.steps.len();
        let known = self.steps.entry(vertex.digest.clone()).or_insert_with(|| {
            self.order.push(vertex.digest.clone());
            Known {
                number: count + 1,
                name: String::new(),
                started: None,
                completed: None,
                cached: false,
                error: String::new(),
                statuses: Vec::new(),
                output: Vec::new(),
                lines: String::new(),
                open: false,
            }
        });
        // A name may hold whatever stands in the Dockerfile.
        known.name = vertex.name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        known.started = vertex.started.map(seconds).or(known.started);
        let ended = known.completed.is_none() && vertex.completed.is_some();
        known.completed = vertex.completed.map(seconds);
        known.cached |= vertex.cached;
        known.error.clone_from(&vertex.error);
        if ended {
            let number = known.number;
            if std::mem::take(&mut known.open) {
                known.lines.push('\n');
            }
            let end = match () {
                () if known.error.ends_with("context canceled") => format!("#{number} CANCELED\n"),
                () if !known.error.is_empty() => format!("#{number} ERROR: {}\n", known.error),
                () if known.cached => format!("#{number} CACHED\n"),
                () => format!("#{number} DONE {:.1}s\n", known.time()),
            };
            known.lines.push_str(&end);
        }
    }

    fn take_status(&mut self, status: &VertexStatus) {
        let Some(known) = self.steps.get_mut(&status.vertex) else { return };
        let done = status.completed.is_some();
        let old = known.statuses.iter_mut().find(|s| s.id == status.id);
        let fresh = match old {
            Some(old) => {
                let fresh = done && old.completed.is_none();
                // The first time counts.
                let started = old.started.or(status.started);
                *old = VertexStatus { started, ..status.clone() };
                fresh
            }
            None => {
                known.statuses.push(status.clone());
                done
            }
        };
        if fresh {
            let took = status_time(status).filter(|t| *t >= 0.1).map(|t| format!(" {t:.1}s")).unwrap_or_default();
            known.lines.push_str(&format!("#{} {}{took} done\n", known.number, status_text(status)));
        }
    }

    fn take_log(&mut self, vertex: &str, time: f64, bytes: &[u8]) {
        let Some(known) = self.steps.get_mut(vertex) else { return };
        known.output.extend_from_slice(bytes);
        if known.output.len() > 2 * KEPT {
            known.output.drain(..KEPT);
        }
        let text = String::from_utf8_lossy(bytes);
        let since = (time - known.started.unwrap_or(time)).max(0.0);
        for line in text.split_inclusive('\n') {
            if !known.open {
                known.lines.push_str(&format!("#{} {since:.3} ", known.number));
            }
            known.lines.push_str(line);
            known.open = !line.ends_with('\n');
        }
    }

    /// Prints what steps have to say: one at a time, until it ends or is quiet while others wait.
    fn speak(&mut self, last: bool) {
        loop {
            if let Some(digest) = self.current.clone() {
                let Some(known) = self.steps.get_mut(&digest) else { return };
                let text = std::mem::take(&mut known.lines);
                let (over, number, open) = (known.completed.is_some(), known.number, known.open);
                if !text.is_empty() {
                    self.spoke = Instant::now();
                    self.write(&text);
                }
                if over {
                    self.current = None;
                    self.write("\n");
                    continue;
                }
                let others = self.steps.iter().any(|(d, k)| *d != digest && !k.lines.is_empty());
                if !others || !(last || self.spoke.elapsed() > QUIET) {
                    return;
                }
                self.write(if open { "\n" } else { "" });
                if let Some(known) = self.steps.get_mut(&digest) {
                    known.open = false;
                }
                self.write(&format!("#{number} ...\n\n"));
                self.current = None;
            }
            let next = self.order.iter().find(|d| self.steps.get(*d).is_some_and(|k| !k.lines.is_empty())).cloned();
            let Some(next) = next else { return };
            let Some(known) = self.steps.get_mut(&next) else { return };
            let head = format!("#{} {}\n", known.number, known.name);
            self.write(&head);
            self.spoke = Instant::now();
            self.current = Some(next);
        }
    }

    /// Draws the board over the one before.
    fn draw(&mut self, last: bool) {
        if !last && self.drawn_at.is_some_and(|at| at.elapsed() < FRAME) {
            return;
        }
        self.drawn_at = Some(Instant::now());
        let [height, width] = terminal::size_of_stderr();
        let (height, width) = (height.max(10) as usize, width.max(40) as usize);
        let lines = self.board(width, if last { usize::MAX } else { height - 1 }, last);
        let mut out = String::new();
        if self.drawn > 0 {
            out.push_str(&format!("\x1b[{}A", self.drawn));
        }
        out.push_str("\x1b[0G");
        for line in &lines {
            out.push_str(line);
            out.push_str("\x1b[K\n");
        }
        // Lines of a longer board before.
        out.push_str("\x1b[J");
        self.drawn = lines.len();
        self.write(&out);
    }

    fn paint(&self, text: String, color: &str) -> String {
        if self.colors { format!("\x1b[{color}m{text}\x1b[0m") } else { text }
    }

    /// The board's lines; those of steps that are over go first when there are too many.
    fn board(&self, width: usize, height: usize, last: bool) -> Vec<String> {
        let steps: Vec<&Known> =
            self.order.iter().filter_map(|d| self.steps.get(d)).filter(|k| k.started.is_some()).collect();
        let done = steps.iter().filter(|k| k.completed.is_some() && k.error.is_empty()).count();
        let end = if last { " FINISHED" } else { "" };
        let head = format!("[+] Building {:.1}s ({done}/{}){end}", (now() - self.begun).max(0.0), steps.len());
        let mut blocks: Vec<(bool, Vec<String>)> = Vec::new();
        for known in &steps {
            let over = known.completed.is_some();
            let color = match () {
                () if known.error.ends_with("context canceled") => "33",
                () if !known.error.is_empty() => "31",
                () if over => "34",
                () => "",
            };
            let mark = match () {
                () if known.cached => "CACHED ",
                () if known.error.ends_with("context canceled") => "CANCELED ",
                () if !known.error.is_empty() => "ERROR ",
                () => "",
            };
            let paint = |text: String| if color.is_empty() { text } else { self.paint(text, color) };
            let mut block = vec![paint(row(&format!(" => {mark}{}", known.name), Some(known.time()), width))];
            for status in &known.statuses {
                let time = status_time(status).or_else(|| status.started.map(|s| (now() - seconds(s)).max(0.0)));
                block.push(paint(row(&format!(" => => {}", status_text(status)), time, width)));
            }
            if known.running() && !known.output.is_empty() {
                let text = String::from_utf8_lossy(&known.output);
                let tail: Vec<&str> = text.lines().rev().take(TAIL).collect();
                for line in tail.into_iter().rev() {
                    // What a step prints must not move our cursor.
                    let line: String = line.chars().filter(|c| !c.is_control()).collect();
                    block.push(self.paint(row(&format!(" => => # {line}"), None, width), "2"));
                }
            }
            blocks.push((over, block));
        }
        let mut count: usize = blocks.iter().map(|(_, b)| b.len()).sum();
        let mut at = 0;
        while count + 1 > height && at < blocks.len() {
            if blocks[at].0 {
                count -= blocks.remove(at).1.len();
            } else {
                at += 1;
            }
        }
        let mut lines = vec![row_of(&head, &self.title, width)];
        lines.extend(blocks.into_iter().flat_map(|(_, b)| b));
        if lines.len() > height {
            lines.truncate(height);
        }
        lines
    }

    /// Shows the end: what was not shown yet, warnings, and the output of the step that failed.
    pub fn end(&mut self, failed: Option<&str>) {
        match self.mode {
            Mode::Lines => self.speak(true),
            Mode::Board => self.draw(true),
            Mode::Json => {}
            Mode::Quiet => {}
        }
        if matches!(self.mode, Mode::Lines | Mode::Board) {
            self.warn();
        }
        if self.mode == Mode::Json {
            return;
        }
        let step = failed.and_then(|digest| self.steps.get(digest));
        if let Some(known) = step.filter(|k| !k.output.is_empty() || self.mode != Mode::Quiet) {
            let mut text = format!("------\n > {}:\n", known.name);
            let output = String::from_utf8_lossy(&known.output);
            let lines: Vec<&str> = output.lines().rev().take(20).collect();
            for line in lines.into_iter().rev() {
                text.push_str(&format!("{line}\n"));
            }
            text.push_str("------\n");
            self.write(&text);
        }
    }

    fn warn(&mut self) {
        if self.warnings.is_empty() {
            return;
        }
        let count = self.warnings.len();
        let plural = if count == 1 { "" } else { "s" };
        let mut text = format!("\n {count} warning{plural} found (use docker --debug to expand):\n");
        for warning in &self.warnings {
            let line = warning.ranges.first().and_then(|r| r.start.as_ref()).map_or(0, |p| p.line);
            let short = String::from_utf8_lossy(&warning.short).into_owned();
            let place = if line > 0 { format!(" (line {line})") } else { String::new() };
            text.push_str(&format!(" - {short}{place}\n"));
        }
        self.write(&text);
    }
}

/// A text at the left, a time at the right.
fn row(text: &str, time: Option<f64>, width: usize) -> String {
    row_of(text, &time.map(|t| format!("{t:.1}s")).unwrap_or_default(), width)
}

fn row_of(left: &str, right: &str, width: usize) -> String {
    let room = width.saturating_sub(right.chars().count() + 1);
    let mut text: String = left.chars().take(room).collect();
    if right.is_empty() {
        return text;
    }
    let used = text.chars().count();
    text.extend(std::iter::repeat_n(' ', room - used + 1));
    text.push_str(right);
    text
}

/// A time as JSON has it.
fn json_time(time: Option<Timestamp>) -> Value {
    time.map_or(Value::Null, |t| {
        Value::String(wharf_types::Timestamp::from_unix(t.seconds, u32::try_from(t.nanos).unwrap_or(0)).to_string())
    })
}

/// An event as BuildKit's client prints it: what is empty is left out.
fn json_of(event: &StatusResponse) -> Value {
    fn clean(value: Value) -> Value {
        let Value::Object(map) = value else { return value };
        let empty = |v: &Value| match v {
            Value::Null => true,
            Value::String(s) => s.is_empty(),
            Value::Array(a) => a.is_empty(),
            Value::Bool(b) => !*b,
            _ => false,
        };
        Value::Object(map.into_iter().filter(|(_, v)| !empty(v)).collect())
    }
    let bytes = |b: &[u8]| base64::engine::general_purpose::STANDARD.encode(b);
    let vertexes = event.vertexes.iter().map(|v| {
        clean(json!({
            "digest": v.digest, "inputs": v.inputs, "name": v.name, "started": json_time(v.started),
            "completed": json_time(v.completed), "cached": v.cached, "error": v.error,
        }))
    });
    let statuses = event.statuses.iter().map(|s| {
        clean(json!({
            "id": s.id, "vertex": s.vertex, "name": s.name, "total": s.total, "current": s.current,
            "timestamp": json_time(s.timestamp), "started": json_time(s.started), "completed": json_time(s.completed),
        }))
    });
    let logs = event.logs.iter().map(|l| {
        clean(json!({
            "vertex": l.vertex, "stream": l.stream, "data": bytes(&l.msg), "timestamp": json_time(l.timestamp),
        }))
    });
    let warnings = event.warnings.iter().map(|w| {
        clean(json!({
            "vertex": w.vertex, "level": w.level, "short": bytes(&w.short),
            "detail": w.detail.iter().map(|d| bytes(d)).collect::<Vec<_>>(), "url": w.url,
        }))
    });
    clean(json!({
        "vertexes": vertexes.collect::<Vec<_>>(), "statuses": statuses.collect::<Vec<_>>(),
        "logs": logs.collect::<Vec<_>>(), "warnings": warnings.collect::<Vec<_>>(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_as_wide_as_the_terminal() {
        assert_eq!(row(" => x", Some(1.23), 20), " => x           1.2s");
        assert_eq!(row(" => a name that is too long", Some(0.0), 20), " => a name that 0.0s");
        assert_eq!(size(69), "69B");
        assert_eq!(size(28_350), "28.35kB");
    }

    fn vertex(digest: &str, name: &str, completed: bool) -> Vertex {
        let time = Timestamp { seconds: 1, nanos: 0 };
        Vertex {
            digest: digest.into(),
            name: name.into(),
            started: Some(time),
            completed: completed.then_some(time),
            ..Vertex::default()
        }
    }

    #[test]
    fn a_board_too_high_drops_what_is_over_and_control_characters_never_reach_it() {
        let mut show = Show::begin(Mode::Quiet, "x");
        let vertexes = (0..9).map(|n| vertex(&n.to_string(), &format!("step\x1b[2J{n}"), n < 8)).collect();
        show.take(&StatusResponse { vertexes, ..StatusResponse::default() });
        let lines = show.board(60, 5, false);
        assert_eq!(lines.len(), 5);
        assert!(lines[4].contains("[2J8"), "{lines:?}");
        assert!(lines.iter().all(|l| !l.contains("\x1b[2J")), "{lines:?}");
    }
}
