//! The store's promises: all or nothing, names are unique, nothing acknowledged is lost by kill -9, a full disk is an
//! error and no more. Kill tests run this very program as their victim.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wharf_error::{HasKind, Kind};
use wharf_metadata::{Batch, Record, Store, StoreError, Table};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    text: String,
    #[serde(default)]
    turn: u64,
}

impl Record for Note {
    const TABLE: Table = Table::Meta;
    const VERSION: u32 = 2;

    fn upgrade(version: u32, stored: serde_json::Value) -> Result<Self, String> {
        match (version, stored.as_str()) {
            (1, Some(text)) => Ok(Self { text: text.to_owned(), turn: 0 }),
            _ => Err(format!("version {version} cannot be upgraded")),
        }
    }
}

/// The first version of the same record.
#[derive(Serialize, Deserialize)]
struct OldNote(String);

impl Record for OldNote {
    const TABLE: Table = Table::Meta;
    const VERSION: u32 = 1;
}

/// A later version, which this program does not know.
#[derive(Serialize, Deserialize)]
struct NewNote(u8);

impl Record for NewNote {
    const TABLE: Table = Table::Meta;
    const VERSION: u32 = 3;
}

fn note(text: &str) -> Note {
    Note { text: text.to_owned(), turn: 0 }
}

fn fresh() -> (tempfile::TempDir, Store) {
    let folder = tempfile::Builder::new().prefix("wharf-metadata-").tempdir().expect("temporary folder");
    let store = Store::open(&folder.path().join("wharf/meta.redb")).expect("open");
    (folder, store)
}

fn put(store: &Store, key: &str, text: &str) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    batch.put(key, &note(text));
    store.commit(batch)
}

#[test]
fn what_is_committed_is_read_and_there_after_reopening() {
    let (folder, store) = fresh();
    put(&store, "a", "one").expect("commit");
    put(&store, "b", "two").expect("commit");
    let before = store.view().expect("view");
    let mut batch = Batch::new();
    batch.remove(Table::Meta, "a").put("b", &note("three"));
    store.commit(batch).expect("commit");
    assert_eq!(before.get::<Note>("a").expect("read"), Some(note("one")), "a view does not change");
    assert_eq!(store.view().expect("view").get::<Note>("a").expect("read"), None);
    drop((before, store));
    let store = Store::open(&folder.path().join("wharf/meta.redb")).expect("open");
    let all = store.view().expect("view").all::<Note>().expect("read");
    assert_eq!(all, [("b".to_owned(), note("three"))]);
}

#[test]
fn a_name_has_one_holder_and_the_loser_changes_nothing() {
    let (_folder, store) = fresh();
    let claim = |id: &str| {
        let mut batch = Batch::new();
        batch.claim("container", "web", id).put(id, &note("mine"));
        store.commit(batch)
    };
    claim("one").expect("free");
    claim("one").expect("claiming again is no conflict");
    let refused = claim("two").expect_err("taken");
    assert!(matches!(&refused, StoreError::NameTaken { holder, .. } if holder == "one"), "{refused:?}");
    assert_eq!(refused.kind(), Kind::Conflict);
    let view = store.view().expect("view");
    assert_eq!(view.get::<Note>("two").expect("read"), None);
    assert_eq!(view.holder("container", "web").expect("read").as_deref(), Some("one"));
    assert_eq!(view.holder("network", "web").expect("read"), None, "another space has its own names");
    let mut batch = Batch::new();
    batch.release("container", "web").claim("container", "web-2", "one").claim("containers", "x", "y");
    store.commit(batch).expect("commit");
    let names = store.view().expect("view").names("container").expect("names");
    assert_eq!(names, [("web-2".to_owned(), "one".to_owned())]);
}

#[test]
fn of_many_that_want_one_name_at_once_exactly_one_gets_it() {
    let (_folder, store) = fresh();
    let tickets: Vec<_> = (0..100)
        .map(|i| {
            let mut batch = Batch::new();
            batch.claim("container", "one", &i.to_string());
            store.submit(batch)
        })
        .collect();
    let outcomes: Vec<_> = tickets.into_iter().map(wharf_metadata::Ticket::wait).collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
}

#[test]
fn conditions_are_checked_before_anything_changes() {
    let (_folder, store) = fresh();
    put(&store, "a", "one").expect("commit");
    let mut batch = Batch::new();
    batch.put("b", &note("two")).expect_absent(Table::Meta, "a");
    assert!(matches!(store.commit(batch), Err(StoreError::Exists { .. })));
    let mut batch = Batch::new();
    batch.put("b", &note("two")).expect_present(Table::Meta, "c");
    assert_eq!(store.commit(batch).expect_err("missing").kind(), Kind::NotFound);
    assert_eq!(store.view().expect("view").get::<Note>("b").expect("read"), None);
}

#[test]
fn older_records_are_upgraded_and_newer_ones_refused() {
    let (_folder, store) = fresh();
    let mut batch = Batch::new();
    batch.put("old", &OldNote("kept".to_owned())).put("new", &NewNote(1));
    store.commit(batch).expect("commit");
    let view = store.view().expect("view");
    assert_eq!(view.get::<Note>("old").expect("upgraded"), Some(note("kept")));
    let refused = view.get::<Note>("new").expect_err("newer");
    assert_eq!(refused.kind(), Kind::DataLoss);
    let mut seen = Vec::new();
    view.each::<Note>(|key, record| {
        seen.push((key.to_owned(), record.is_ok()));
        Ok(())
    })
    .expect("one damaged record does not hide the others");
    assert_eq!(seen, [("new".to_owned(), false), ("old".to_owned(), true)]);
}

#[test]
fn a_ticket_can_be_awaited_without_any_runtime() {
    use std::future::Future;
    use std::task::{Context, Wake};
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let (_folder, store) = fresh();
    let mut batch = Batch::new();
    batch.put("a", &note("one"));
    let mut ticket = Box::pin(store.submit(batch));
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let end = Instant::now() + Duration::from_secs(20);
    while ticket.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
        assert!(Instant::now() < end, "the ticket was never woken");
        std::thread::park_timeout(Duration::from_secs(1));
    }
    assert!(store.view().expect("view").get::<Note>("a").expect("read").is_some());
}

#[test]
fn dropping_the_store_commits_what_was_submitted() {
    let (folder, store) = fresh();
    let ticket = {
        let mut batch = Batch::new();
        batch.put("a", &note("one"));
        store.submit(batch)
    };
    drop(store);
    ticket.wait().expect("committed");
    let store = Store::open(&folder.path().join("wharf/meta.redb")).expect("open");
    assert!(store.view().expect("view").get::<Note>("a").expect("read").is_some());
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("meta.redb");
    let text = "this is no database, and it is longer than a header of one ".repeat(200);
    fs::write(&path, &text).expect("file");
    assert!(matches!(Store::open(&path), Err(StoreError::Open { .. })));
    assert_eq!(fs::read_to_string(&path).expect("file"), text);
}

const VICTIM: &str = "WHARF_TEST_VICTIM";

/// The victim of the kill tests: commits in several threads and prints each key once it is acknowledged. Does
/// nothing when run as an ordinary test.
#[test]
fn victim() {
    let Ok(path) = std::env::var(VICTIM) else { return };
    let store = Store::open(Path::new(&path)).expect("open");
    let first = store.view().expect("view").all::<Note>().expect("read").len() as u64;
    std::thread::scope(|scope| {
        for worker in 0..3u64 {
            let store = &store;
            scope.spawn(move || {
                for turn in 0.. {
                    let key = format!("{first}-{worker}-{turn}");
                    let mut batch = Batch::new();
                    // Two records and a name, to see that a batch is never half there.
                    batch.put(&key, &Note { text: "x".repeat(300), turn }).claim("key", &key, &key);
                    store.commit(batch).expect("commit");
                    // One write(2) for each line: what is printed is whole, and so was acknowledged.
                    rustix::io::write(std::io::stdout(), format!("acknowledged {key}\n").as_bytes()).expect("print");
                }
            });
        }
    });
}

fn kill_loop(rounds: u32) {
    let folder = tempfile::Builder::new().prefix("wharf-metadata-").tempdir().expect("temporary folder");
    let path = folder.path().join("meta.redb");
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut acknowledged = 0;
    for round in 0..rounds {
        if round % 40 == 0 {
            // A small file opens faster, and growing one is a case of its own.
            let _ = fs::remove_file(&path);
        }
        let mut victim = Command::new(std::env::current_exe().expect("own path"));
        victim.args(["--exact", "victim", "--nocapture", "--test-threads=1"]).env(VICTIM, &path);
        let mut victim = victim.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("victim");
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let quota = random % 24;
        let mut lines = BufReader::new(victim.stdout.take().expect("stdout")).lines();
        let mut keys = Vec::new();
        let mut take = |line: String| keys.extend(line.split_once("acknowledged ").map(|(_, key)| key.to_owned()));
        for _ in 0..quota {
            match lines.next() {
                Some(line) => take(line.expect("line")),
                None => break,
            }
        }
        victim.kill().expect("kill");
        lines.map_while(Result::ok).for_each(&mut take);
        victim.wait().expect("reaped");
        let store = Store::open(&path).unwrap_or_else(|e| panic!("round {round}: {:?}", e));
        let view = store.view().expect("view");
        for key in &keys {
            assert!(
                view.get::<Note>(key).expect("read").is_some(),
                "round {round}: {key} was acknowledged and is lost"
            );
        }
        for (key, _) in view.all::<Note>().expect("all records parse") {
            assert_eq!(view.holder("key", &key).expect("read").as_deref(), Some(key.as_str()), "half a batch");
        }
        acknowledged += keys.len();
    }
    assert!(acknowledged > rounds as usize, "the victims did too little: {acknowledged}");
}

#[test]
fn no_acknowledged_commit_is_lost_by_kill_9() {
    let long = std::env::var_os("WHARF_LONG").is_some();
    kill_loop(if long { 2_000 } else { 200 });
}

/// Mounts a small tmpfs in a mount namespace of this thread and runs `inside` there.
fn on_a_small_disk(inside: impl FnOnce(&Path) + Send) {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    let folder = tempfile::Builder::new().prefix("wharf-metadata-").tempdir().expect("temporary folder");
    std::thread::scope(|scope| {
        let path = folder.path();
        let inside = scope.spawn(move || {
            wharf_sys::clone::unshare(wharf_sys::clone::flags::NEWNS).expect("unshare");
            let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
            mount_change("/", private).expect("private mounts");
            mount("tmpfs", path, "tmpfs", MountFlags::empty(), c"size=6m").expect("tmpfs");
            inside(path);
        });
        inside.join().expect("the thread on the small disk");
    });
}

#[test]
fn a_full_disk_is_an_error_and_the_store_stays_usable() {
    on_a_small_disk(|folder| {
        // The writer thread is started within, so it has the same mount namespace.
        let store = Store::open(&folder.join("meta.redb")).expect("open");
        put(&store, "first", "kept").expect("commit");
        fs::write(folder.join("ballast"), vec![0; 2 << 20]).expect("ballast");
        let big = "x".repeat(100_000);
        let mut committed = 0;
        let refused = loop {
            match put(&store, &committed.to_string(), &big) {
                Ok(()) => committed += 1,
                Err(e) => break e,
            }
            assert!(committed < 1_000, "the disk never filled");
        };
        assert!(matches!(refused, StoreError::Commit(_)), "{refused:?}");
        let view = store.view().expect("still readable");
        assert_eq!(view.get::<Note>("first").expect("read"), Some(note("kept")));
        assert_eq!(view.all::<Note>().expect("read").len(), committed + 1, "exactly what was acknowledged is there");
        drop(view);
        fs::remove_file(folder.join("ballast")).expect("room again");
        put(&store, "last", &big).expect("room again");
        assert!(store.view().expect("view").get::<Note>("last").expect("read").is_some());
    });
}
