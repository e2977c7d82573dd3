//! A registry of our own (distribution-spec 1.1: referrers, chunked uploads, mounts, token and basic login, TLS) that can
//! be told to misbehave, and images to put into it.

mod api;
mod http;
mod seed;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

pub use http::{Answer, Ask};
pub use seed::{Layer, Seeded, digest_of, layer, layer_of, tar_of};

/// How a client must log in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Login {
    /// Not at all.
    #[default]
    None,
    /// By name and password.
    Basic(String, String),
    /// By a token that name and password buy; reading is open to anonymous tokens where the flag says so.
    Token {
        /// The user.
        user: String,
        /// The password.
        password: String,
        /// Whether anonymous tokens may read.
        anonymous_reads: bool,
        /// Requests for which a token is good.
        uses: usize,
    },
}

/// What is wrong with the body of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The connection ends in order after so many bytes.
    Cut(usize),
    /// The connection is reset after so many bytes.
    Reset(usize),
    /// Nothing more comes after so many bytes.
    Stall(usize),
    /// `Content-Length` is off by so much.
    Length(i64),
    /// The byte at this place is another.
    Flip(usize),
    /// Bytes a second.
    Slow(usize),
}

/// What becomes of a request.
pub enum Fate {
    /// It is answered as it should be.
    Fair,
    /// It is answered so.
    Instead(Answer),
    /// The right answer comes with a flaw.
    Flawed(Flaw),
}

type Judge = Box<dyn FnMut(&Ask) -> Fate + Send>;

/// A manifest with its media type.
pub type Manifest = (String, Vec<u8>);

/// What the registry holds.
#[derive(Default)]
pub struct Content {
    /// Blobs by repository and digest.
    pub blobs: HashMap<(String, String), Arc<Vec<u8>>>,
    /// Manifests by repository and tag or digest.
    pub manifests: BTreeMap<(String, String), Manifest>,
    uploads: HashMap<String, Vec<u8>>,
    tokens: HashMap<String, (HashSet<String>, usize)>,
    next: usize,
}

struct State {
    content: Mutex<Content>,
    login: Login,
    referrers: bool,
    encrypted: bool,
    address: SocketAddr,
    asked: Mutex<Vec<Ask>>,
    judge: Mutex<Judge>,
    stopping: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running registry. Dropping it ends it and every connection.
pub struct Registry {
    state: Arc<State>,
    thread: Option<thread::JoinHandle<()>>,
    /// The file of the certificate authority, where it speaks TLS.
    pub authority: Option<PathBuf>,
    _folder: tempfile::TempDir,
}

/// How a registry is started.
#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    /// Whether it speaks TLS, with a certificate for `127.0.0.1` of an authority of its own.
    pub tls: bool,
    /// Whether clients need a certificate of the same authority (with `tls`).
    pub client_certificates: bool,
    /// How clients log in.
    pub login: Login,
    /// Whether it lacks the referrers API.
    pub no_referrers: bool,
}

impl Registry {
    /// Starts a registry on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(options: RegistryOptions) -> Self {
        let folder = tempfile::Builder::new().prefix("wkreg").tempdir().expect("a temporary folder");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let tls = options.tls.then(|| http::certificates(folder.path(), options.client_certificates));
        let authority = options.tls.then(|| folder.path().join("ca.crt"));
        let state = Arc::new(State {
            content: Mutex::default(),
            login: options.login,
            referrers: !options.no_referrers,
            encrypted: options.tls,
            address,
            asked: Mutex::default(),
            judge: Mutex::new(Box::new(|_| Fate::Fair)),
            stopping: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let shared = state.clone();
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.stopping.load(Ordering::Acquire) {
                    return;
                }
                lock(&shared.open).extend(stream.try_clone());
                let (state, tls) = (shared.clone(), tls.clone());
                thread::spawn(move || http::serve(&state, stream, tls));
            }
        });
        Self { state, thread: Some(thread), authority, _folder: folder }
    }

    /// Starts one with default options.
    pub fn plain() -> Self {
        Self::start(RegistryOptions::default())
    }

    /// `127.0.0.1:port`.
    pub fn host(&self) -> String {
        self.state.address.to_string()
    }

    /// The name of a repository with the registry's.
    pub fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.host())
    }

    /// What it holds.
    pub fn content(&self) -> MutexGuard<'_, Content> {
        lock(&self.state.content)
    }

    /// Decides from now on what becomes of each request.
    pub fn judge(&self, judge: impl FnMut(&Ask) -> Fate + Send + 'static) {
        *lock(&self.state.judge) = Box::new(judge);
    }

    /// Answers everything as it should be from now on.
    pub fn be_fair(&self) {
        self.judge(|_| Fate::Fair);
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Ask> {
        lock(&self.state.asked).clone()
    }

    /// Forgets what was asked.
    pub fn forget(&self) {
        lock(&self.state.asked).clear();
    }

    /// The folder in which its certificates are: `ca.crt`, `client.cert`, `client.key`.
    pub fn certificates(&self) -> &std::path::Path {
        self._folder.path()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::Release);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.state.address);
        for stream in lock(&self.state.open).drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
