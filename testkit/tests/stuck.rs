//! A container whose process waits for a FUSE file system that never answers: killed, it stays in the kernel (state D), and
//! nobody else waits for it. Long tier: a forced removal is given up ten seconds after the signal, which itself may take two where
//! processes of a cgroup are frozen to be killed together (v1).

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use testkit::{Daemon, Residue, eventually};

/// Operations of `linux/fuse.h`.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

/// A file system with one file, `stuck`, about which nothing is ever answered.
struct Silent {
    place: PathBuf,
    device: Arc<OwnedFd>,
    asked: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    server: Option<std::thread::JoinHandle<()>>,
}

impl Silent {
    fn mount(place: &Path) -> Self {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let device = rustix::fs::open("/dev/fuse", flags, Mode::empty()).expect("the kernel has FUSE");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let options = std::ffi::CString::new(options).expect("plain");
        rustix::mount::mount("silent", place, "fuse", MountFlags::empty(), Some(options.as_c_str())).expect("mounted");
        let (device, asked, over) =
            (Arc::new(device), Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let parts = (device.clone(), asked.clone(), over.clone());
        let server = Some(std::thread::spawn(move || serve(&parts.0, &parts.1, &parts.2)));
        Self { place: place.to_owned(), device, asked, over, server }
    }

    /// Fails everything that waits.
    fn abort(&self) {
        use std::os::unix::fs::MetadataExt;
        // Looking at the root is answered.
        let number = rustix::fs::minor(std::fs::metadata(&self.place).expect("answered").dev());
        let connections = "/sys/fs/fuse/connections";
        if !Path::new(connections).join(number.to_string()).exists() {
            // Not every host has it mounted; closing the device does the same, once the server has let go of it.
            return;
        }
        std::fs::write(Path::new(connections).join(number.to_string()).join("abort"), "1").expect("aborted");
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        let _ = self.server.take().map(std::thread::JoinHandle::join);
        let _ = rustix::mount::unmount(&self.place, UnmountFlags::DETACH);
        debug_assert_eq!(Arc::strong_count(&self.device), 1, "closing it ends the connection");
    }
}

fn serve(device: &OwnedFd, asked: &AtomicBool, over: &AtomicBool) {
    let mut file = std::fs::File::from(device.try_clone().expect("a descriptor"));
    let mut request = vec![0; 1 << 17];
    while !over.load(Ordering::Acquire) {
        let wait = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        if poll(&mut [PollFd::new(device, PollFlags::IN)], Some(&wait)).unwrap_or(0) == 0 {
            continue;
        }
        // Aborted, or unmounted.
        let Ok(length) = file.read(&mut request) else { return };
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().expect("four bytes"));
        let (operation, unique) = (word(4), &request[8..16]);
        let body: Result<Vec<u8>, i32> = match operation {
            FORGET | BATCH_FORGET | INTERRUPT => continue,
            LOOKUP if request[40..length].starts_with(b"stuck\0") => {
                asked.store(true, Ordering::Release);
                continue;
            }
            LOOKUP => Err(2),
            INIT => {
                let mut answer = vec![0; 64];
                answer[..4].copy_from_slice(&7_u32.to_ne_bytes());
                answer[4..8].copy_from_slice(&31_u32.to_ne_bytes());
                answer[20..24].copy_from_slice(&4096_u32.to_ne_bytes());
                Ok(answer)
            }
            GETATTR => {
                // Valid for no time; inode 1, a folder.
                let mut answer = vec![0; 104];
                answer[16..24].copy_from_slice(&1_u64.to_ne_bytes());
                answer[76..80].copy_from_slice(&0o40755_u32.to_ne_bytes());
                answer[80..84].copy_from_slice(&2_u32.to_ne_bytes());
                Ok(answer)
            }
            _ => Err(38),
        };
        let (error, body) = body.map_or_else(|errno| (-errno, Vec::new()), |body| (0, body));
        let length = (16 + body.len()) as u32;
        let answer = [&length.to_ne_bytes()[..], &error.to_ne_bytes(), unique, &body].concat();
        // A request may be gone meanwhile.
        let _ = file.write(&answer);
    }
}

fn state_of(pid: &str) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn a_process_that_cannot_die_blocks_nobody_and_its_own_removal_gives_up_in_seconds() {
    if std::env::var_os("WHARF_LONG").is_none() {
        println!("left to the long tier");
        return;
    }
    let daemon = Daemon::with_image();
    let place = daemon.folder().join("silent");
    std::fs::create_dir(&place).expect("made");
    let silent = Silent::mount(&place);
    let bind = format!("{}:/f", place.display());
    daemon.docker(&["run", "-d", "--name", "stuck", "-v", &bind, "busybox", "cat", "/f/stuck"]).ok();
    daemon.docker(&["run", "-d", "--name", "free", "busybox", "sleep", "1000"]).ok();
    eventually("it waits for the file system", || silent.asked.load(Ordering::Acquire).then_some(()));
    let pid = daemon.docker(&["inspect", "-f", "{{.State.Pid}}", "stuck"]).ok();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let removal = scope.spawn(|| (daemon.docker(&["rm", "-f", "stuck"]), begun.elapsed()));
        eventually("it is killed and does not die", || (state_of(&pid) == Some('D')).then_some(()));
        let mut slowest = Duration::ZERO;
        while !removal.is_finished() {
            for words in [
                &["ps", "-a"][..],
                &["inspect", "stuck"],
                &["exec", "free", "true"],
                &["run", "--rm", "busybox", "true"],
                &["stats", "--no-stream", "free"],
                &["logs", "stuck"],
                &["system", "df"],
            ] {
                let start = Instant::now();
                daemon.docker(words).ok();
                slowest = slowest.max(start.elapsed());
            }
        }
        let (outcome, took) = removal.join().expect("an answer");
        assert_eq!(outcome.code, 1, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("the container does not end"), "{}", outcome.stderr);
        assert!((Duration::from_secs(9)..Duration::from_secs(15)).contains(&took), "{took:?}");
        // `stats` takes two looks a second apart.
        assert!(slowest < Duration::from_secs(4), "{slowest:?}");
    });
    assert_eq!(daemon.docker(&["inspect", "-f", "{{.State.Status}}", "stuck"]).ok(), "running");
    daemon.docker(&["rm", "-f", "free"]).ok();
    // The file system goes, and with it what held the process.
    silent.abort();
    drop(silent);
    eventually("it has ended", || {
        (daemon.docker(&["inspect", "-f", "{{.State.Status}}", "stuck"]).ok() == "exited").then_some(())
    });
    daemon.docker(&["rm", "-f", "stuck"]).ok();
    eventually("nothing is left", || Residue::of_containers(&daemon).is_empty().then_some(()));
}
