//! Blobs are whole, verified or absent, and ingests go on where they stopped.

use std::fs;
use std::io::{Read, Write};
use std::time::Duration;

use wharf_content::{ContentError, Store};
use wharf_error::{HasKind, Kind};
use wharf_types::Digest;

fn fresh() -> (tempfile::TempDir, Store) {
    let folder = tempfile::Builder::new().prefix("wharf-content-").tempdir().expect("temporary folder");
    let store = Store::open(&folder.path().join("content")).expect("open");
    (folder, store)
}

fn digest(bytes: &[u8]) -> Digest {
    let mut array = [0; 32];
    array.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    Digest::from_sha256(array)
}

fn files(folder: &tempfile::TempDir, name: &str) -> usize {
    fs::read_dir(folder.path().join("content").join(name)).expect("list").count()
}

#[test]
fn what_is_put_is_found_read_listed_and_removed() {
    let (folder, store) = fresh();
    let name = store.put(b"hello").expect("put");
    assert_eq!(name, digest(b"hello"));
    assert_eq!(store.put(b"hello").expect("again"), name);
    assert_eq!(store.read(&name, 100).expect("read"), b"hello");
    assert_eq!(
        store.walk().expect("walk").iter().map(|(d, i)| (d.clone(), i.size)).collect::<Vec<_>>(),
        [(name.clone(), 5)]
    );
    assert_eq!(store.size().expect("size"), 5);
    store.remove(&name).expect("removed");
    store.remove(&name).expect("removing twice is no error");
    assert_eq!(store.read(&name, 100).expect_err("gone").kind(), Kind::NotFound);
    assert_eq!((files(&folder, "blobs/sha256"), files(&folder, "ingest")), (0, 0));
}

#[test]
fn cve_2023_25153_a_blob_larger_than_its_reader_takes_is_refused() {
    let (_folder, store) = fresh();
    let name = store.put(&[7; 1_000]).expect("put");
    assert!(matches!(store.read(&name, 999), Err(ContentError::TooLarge { size: 1_000, .. })));
    assert_eq!(store.read(&name, 1_000).expect("read").len(), 1_000);
}

#[test]
fn bytes_of_another_digest_or_size_never_become_a_blob() {
    let (folder, store) = fresh();
    let mut ingest = store.ingest("pull a").expect("ingest");
    ingest.write_all(b"wrong").expect("write");
    let refused = ingest.commit(Some(&digest(b"right")), None).expect_err("digest");
    assert!(matches!(refused, ContentError::Digest { .. }));
    let mut ingest = store.ingest("pull b").expect("ingest");
    ingest.write_all(b"short").expect("write");
    let refused = ingest.commit(Some(&digest(b"short")), Some(6)).expect_err("size");
    assert!(matches!(refused, ContentError::Size { expected: 6, found: 5, .. }));
    assert_eq!((files(&folder, "blobs/sha256"), files(&folder, "ingest")), (0, 0));
}

#[test]
fn an_interrupted_ingest_goes_on_where_it_stopped() {
    let (folder, store) = fresh();
    let mut ingest = store.ingest("pull").expect("ingest");
    ingest.write_all(b"first half, ").expect("write");
    assert!(matches!(store.ingest("pull"), Err(ContentError::Busy(_))));
    drop(ingest);
    let mut ingest = store.ingest("pull").expect("again");
    assert_eq!(ingest.offset(), 12);
    ingest.write_all(b"second half").expect("write");
    let (name, info) = ingest.commit(Some(&digest(b"first half, second half")), Some(23)).expect("commit");
    assert_eq!(info.size, 23);
    let mut text = String::new();
    store.blob(&name).expect("blob").read_to_string(&mut text).expect("read");
    assert_eq!(text, "first half, second half");
    assert_eq!(files(&folder, "ingest"), 0);
    assert_eq!(store.ingest("pull").expect("a new one").offset(), 0, "the key does not lead to the finished blob");
}

#[test]
fn an_ingest_of_its_own_goes_when_it_is_dropped() {
    let (folder, store) = fresh();
    let mut ingest = store.once().expect("ingest");
    ingest.write_all(b"abandoned").expect("write");
    drop(ingest);
    assert_eq!(files(&folder, "ingest"), 0);
    let mut ingest = store.once().expect("ingest");
    ingest.hashed_elsewhere();
    ingest.write_all(b"kept").expect("write");
    ingest.commit_hashed(digest(b"kept"), Some(4)).expect("commit");
    assert_eq!(store.read(&digest(b"kept"), 10).expect("read"), b"kept");
}

#[test]
fn keys_from_outside_are_no_paths() {
    let (folder, store) = fresh();
    for key in ["../../../escape", "/etc/passwd", "a/b", "", "."] {
        drop(store.ingest(key).expect(key));
    }
    assert_eq!(files(&folder, "ingest"), 5);
    assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 1);
}

#[test]
fn sweeping_removes_old_ingests_only() {
    let (folder, store) = fresh();
    drop(store.ingest("young").expect("ingest"));
    assert_eq!(store.sweep(Duration::from_secs(3600)).expect("sweep"), 0);
    assert_eq!(store.sweep(Duration::ZERO).expect("sweep"), 1);
    assert_eq!(files(&folder, "ingest"), 0);
}

#[test]
fn many_threads_that_put_the_same_bytes_all_succeed() {
    let (_folder, store) = fresh();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for i in 0..20u8 {
                    store.put(&[i; 100]).expect("put");
                }
            });
        }
    });
    assert_eq!(store.walk().expect("walk").len(), 20);
}
