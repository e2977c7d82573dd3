//! Images from import to removal, on real stores in a temporary folder.

mod stage;

use std::fs;

use stage::{Stage, gzip, tar_of};
use wharf_error::{HasKind, Kind};
use wharf_image::{Filters, ImageError, ImportRequest, More, RemoveOptions, Removed, User};
use wharf_types::Reference;

fn nobody(_: &wharf_image::ImageId) -> Vec<User> {
    Vec::new()
}

fn untagged(removed: &[Removed]) -> Vec<&str> {
    removed
        .iter()
        .filter_map(|r| match r {
            Removed::Untagged { name, .. } => Some(name.as_str()),
            Removed::Deleted(_) => None,
        })
        .collect()
}

#[test]
fn an_imported_archive_becomes_an_image_with_one_layer() {
    let stage = Stage::new();
    let request = ImportRequest {
        reference: Some(Reference::parse("base").expect("name")),
        changes: vec!["CMD [\"/bin/sh\"]".to_owned(), "ENV A=b".to_owned()],
        message: "hello".to_owned(),
        platform: None,
    };
    let layer = tar_of(&[("etc/passwd", "root"), ("bin/sh", "#!")]);
    let hold = stage.images.import(request, &mut layer.as_slice()).expect("imported");
    let image = hold.image.clone();
    assert_eq!(hold.reference.as_ref().map(Reference::familiar).as_deref(), Some("base:latest"));
    assert_eq!(image.config.config.cmd, Some(vec!["/bin/sh".to_owned()]));
    assert_eq!(image.config.rootfs.diff_ids.len(), 1);
    assert_eq!(image.manifest.layers[0].digest, image.config.rootfs.diff_ids[0], "a plain layer is kept as it came");
    assert_eq!(stage.text(&image, "etc/passwd").as_deref(), Some("root"));
    let details = stage.images.inspect("base").expect("inspect");
    assert_eq!(details.names.digests[0].familiar(), format!("base@{}", image.id));
    assert_eq!(details.image.size, image.blobs.iter().map(|b| b.size).sum::<u64>());
    let history = stage.images.history("base", None).expect("history");
    assert_eq!((history.len(), history[0].comment.as_str(), history[0].size), (1, "hello", image.unpacked));
}

#[test]
fn the_same_content_is_one_layer_however_it_is_compressed() {
    let stage = Stage::new();
    let plain = tar_of(&[("a", "a")]);
    let one = stage.import("plain", &plain);
    let two = stage.import("gzip", &gzip(&plain));
    let three = stage.import("zstd", &zstd::encode_all(plain.as_slice(), 1).expect("zstd"));
    assert_eq!(one.chain, two.chain);
    assert_eq!(one.chain, three.chain);
    assert!(one.id != two.id && two.id != three.id);
    assert_eq!(stage.layers(), 1, "one directory serves all");
    let kinds: Vec<&str> = [&one, &two, &three].map(|i| i.manifest.layers[0].media_type.as_str()).into();
    let oci = "application/vnd.oci.image.layer.v1.tar";
    assert_eq!(kinds, [oci, &format!("{oci}+gzip"), &format!("{oci}+zstd")]);
}

#[test]
fn images_are_found_by_name_id_and_prefix() {
    let stage = Stage::new();
    let image = stage.import("user/app:1", &tar_of(&[("a", "a")]));
    assert_eq!(image.config.history[0].comment, "Imported from -");
    let hex = image.id.0.hex().to_owned();
    let by_digest = format!("user/app@{}", image.id);
    let short = format!("sha256:{}", &hex[..12]);
    for text in ["user/app:1", "docker.io/user/app:1", hex.as_str(), image.id.as_str(), &hex[..12], &by_digest, &short]
    {
        assert_eq!(stage.images.resolve(text).expect(text).id, image.id, "{text}");
    }
    for (text, message) in [
        ("user/app", "No such image: user/app:latest"),
        ("nope", "No such image: nope:latest"),
        ("sha256:123", "No such image: sha256:123"),
        ("abc123def456", "No such image: abc123def456:latest"),
        ("Bad", "invalid reference format: repository name (library/Bad) must be lowercase"),
    ] {
        assert_eq!(stage.images.resolve(text).expect_err(text).to_string(), message);
    }
    assert_eq!(stage.images.resolve("nope").expect_err("none").kind(), Kind::NotFound);
}

#[test]
fn the_hello_image_is_there_without_a_registry_and_always_the_same() {
    let [one, two] = [Stage::new(), Stage::new()];
    let hello = one.images.hold("wharf/hello").expect("hello");
    assert_eq!(hello.image.config.config.cmd, Some(vec!["/hello".to_owned()]));
    assert_eq!(two.images.resolve("wharf/hello:latest").expect("hello").id, hello.image.id);
    assert!(matches!(one.images.resolve("wharf/hello:2"), Err(ImageError::NotFound(_))));
    let program = one.path(&hello.image, "hello");
    let output = std::process::Command::new(program).output().expect("the program runs on this machine");
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("Hello from Wharf!"));
}

#[test]
fn removing_the_last_name_removes_image_blobs_and_layers() {
    let stage = Stage::new();
    let image = stage.import("a:1", &tar_of(&[("a", "a")]));
    stage.images.tag("a:1", &Reference::parse("b:2").expect("name")).expect("tagged");
    let removed = stage.images.remove("a:1", RemoveOptions::default(), &nobody).expect("untagged");
    assert_eq!((untagged(&removed), removed.len()), (vec!["a:1"], 1));
    let removed = stage.images.remove("b:2", RemoveOptions::default(), &nobody).expect("removed");
    assert_eq!((untagged(&removed), removed.last()), (vec!["b:2"], Some(&Removed::Deleted(image.id.clone()))));
    assert_eq!((stage.blobs(), stage.layers()), (0, 0));
    let again = stage.images.remove("b:2", RemoveOptions::default(), &nobody).expect_err("gone");
    assert_eq!(again.to_string(), "No such image: b:2");
}

#[test]
fn an_id_with_several_names_is_removed_only_by_force() {
    let stage = Stage::new();
    let image = stage.import("a:1", &tar_of(&[("a", "a")]));
    stage.images.tag("a:1", &Reference::parse("a:2").expect("name")).expect("tagged");
    let id = image.id.short();
    let refused = stage.images.remove(id, RemoveOptions::default(), &nobody).expect_err("several names");
    let text = "(must be forced) - image is referenced in multiple repositories";
    assert_eq!(refused.to_string(), format!("conflict: unable to delete {id} {text}"));
    let removed = stage.images.remove(id, RemoveOptions { force: true, prune: true }, &nobody).expect("forced");
    assert_eq!((untagged(&removed), removed.len()), (vec!["a:1", "a:2"], 3));
}

#[test]
fn images_of_containers_are_protected_with_dockers_texts() {
    let stage = Stage::new();
    let image = stage.import("a:1", &tar_of(&[("a", "a")]));
    let (id, force) = (image.id.short(), RemoveOptions { force: true, prune: true });
    let container = "bfdd69f8f49f8bbbad68d1b8e217217c836b03894ec819809d0becdb63961613".to_owned();
    let users = |running| {
        let container = container.clone();
        move |_: &wharf_image::ImageId| vec![User { container: container.clone(), running }]
    };
    let text = |outcome: Result<Vec<Removed>, ImageError>| outcome.expect_err("in use").to_string();
    assert_eq!(
        text(stage.images.remove("a:1", RemoveOptions::default(), &users(true))),
        format!(
            "conflict: unable to delete a:1 (must be forced) - container bfdd69f8f49f is using its referenced image {id}"
        )
    );
    assert_eq!(
        text(stage.images.remove(id, force, &users(true))),
        format!(
            "conflict: unable to delete {id} (cannot be forced) - image is being used by running container bfdd69f8f49f"
        )
    );
    assert_eq!(
        text(stage.images.remove(id, RemoveOptions::default(), &users(false))),
        format!(
            "conflict: unable to delete {id} (must be forced) - image is being used by stopped container bfdd69f8f49f"
        )
    );
    let removed = stage.images.remove("a:1", force, &users(false)).expect("untagged");
    assert_eq!(removed.len(), 1, "the image stays for its container: {removed:?}");
    assert!(stage.images.get(&image.id).is_ok());
    assert_eq!(stage.images.prune(&Filters::default(), &users(false), false).expect("prune").removed, []);
    let told = stage.images.prune(&Filters::default(), &nobody, true).expect("told");
    assert!(stage.images.get(&image.id).is_ok(), "a dry run removes nothing");
    let pruned = stage.images.prune(&Filters::default(), &nobody, false).expect("prune");
    assert_eq!((&told.removed, told.reclaimed), (&pruned.removed, pruned.reclaimed));
    assert_eq!(pruned.removed, [Removed::Deleted(image.id.clone())]);
    assert!(pruned.reclaimed > 0 && stage.blobs() == 0);
}

#[test]
fn a_held_image_is_not_removed() {
    let stage = Stage::new();
    stage.import("a:1", &tar_of(&[("a", "a")]));
    let hold = stage.images.hold("a:1").expect("held");
    assert!(matches!(
        stage.images.remove("a:1", RemoveOptions { force: true, prune: true }, &nobody),
        Err(ImageError::Held(_))
    ));
    drop(hold);
    stage.images.remove("a:1", RemoveOptions::default(), &nobody).expect("removed");
}

#[test]
fn images_with_common_layers_share_them_and_lose_only_their_own() {
    let stage = Stage::new();
    let layer = tar_of(&[("a", "a")]);
    let one = stage.import("one", &layer);
    stage.import_with("two", &layer, &["ENV A=1"]);
    stage.images.remove("one", RemoveOptions::default(), &nobody).expect("removed");
    let two = stage.images.hold("two").expect("two").image.clone();
    assert_eq!(stage.text(&two, "a").as_deref(), Some("a"));
    assert_eq!(one.chain, two.chain);
    assert_eq!((stage.layers(), stage.blobs()), (1, 3));
}

#[test]
fn a_failed_import_leaves_nothing() {
    let stage = Stage::new();
    let whole = tar_of(&[("a", &"x".repeat(3_000_000)), ("b", "b")]);
    let cut = &whole[..1_500_000];
    let mut broken = whole.clone();
    broken[3_001_024 + 148..][..4].copy_from_slice(b"7777");
    for (name, bytes) in [("cut", cut), ("broken", &broken), ("cut gzip", &gzip(&whole)[..2_000])] {
        let request =
            ImportRequest { reference: Some(Reference::parse("x").expect("name")), ..ImportRequest::default() };
        let e = stage.images.import(request, &mut &*bytes).expect_err(name);
        assert!(matches!(e, ImageError::Extract(_)), "{name}: {e:?}");
        assert_eq!((stage.blobs(), stage.layers(), stage.ingests()), (0, 0, 0), "{name}");
    }
    assert!(stage.images.list(&Filters::default(), More::default()).expect("list").is_empty());
}

#[test]
fn a_reader_that_fails_midway_is_told_from_a_bad_archive() {
    struct Failing(usize);
    impl std::io::Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
            let n = buffer.len().min(self.0);
            self.0 -= n;
            buffer[..n].fill(0);
            Ok(n)
        }
    }
    let stage = Stage::new();
    let e = stage.images.import(ImportRequest::default(), &mut Failing(4_000_000)).expect_err("reset");
    assert!(matches!(e, ImageError::Stream { .. }), "{e:?}");
    assert_eq!((stage.blobs(), stage.layers(), stage.ingests()), (0, 0, 0));
}

#[test]
fn tags_that_docker_refuses_are_refused() {
    let stage = Stage::new();
    let image = stage.import("a", &tar_of(&[("a", "a")]));
    let digest = Reference::parse(&format!("x@{}", image.id)).expect("name");
    let text = stage.images.tag("a", &digest).expect_err("digest").to_string();
    assert_eq!(text, "refusing to create a tag with a digest reference");
    let text = stage.images.tag("a", &Reference::parse("sha256:abc").expect("name")).expect_err("name").to_string();
    assert_eq!(text, "refusing to create an ambiguous tag using digest algorithm as name");
    let text = stage.images.tag("none", &Reference::parse("x").expect("name")).expect_err("none").to_string();
    assert_eq!(text, "No such image: none:latest");
}

#[test]
fn lists_are_filtered_as_docker_filters() {
    let stage = Stage::new();
    stage.import_with("one:1", &tar_of(&[("a", "1")]), &["LABEL stage=test kind=a"]);
    stage.import_with("user/two:2", &tar_of(&[("a", "2")]), &["LABEL stage=test"]);
    stage.import("one:1x", &tar_of(&[("a", "3")]));
    stage.import("one:1x", &tar_of(&[("a", "4")]));
    let names = |filters: Filters| -> Vec<String> {
        let found = stage.images.list(&filters, More::default()).expect("list");
        found.iter().map(|s| s.names.tags.first().map_or_else(|| "-".to_owned(), Reference::familiar)).collect()
    };
    let text = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    assert_eq!(names(Filters::default()), ["one:1x", "-", "user/two:2", "one:1"], "newest first");
    assert_eq!(names(Filters { dangling: Some(true), ..Filters::default() }), ["-"]);
    assert_eq!(names(Filters { label: text(&["stage=test", "kind"]), ..Filters::default() }), ["one:1"]);
    assert_eq!(names(Filters { label_not: text(&["stage"]), ..Filters::default() }), ["one:1x", "-"]);
    assert_eq!(names(Filters { reference: text(&["one"]), ..Filters::default() }), ["one:1x", "one:1"]);
    assert_eq!(names(Filters { reference: text(&["*/two:*"]), ..Filters::default() }), ["user/two:2"]);
    assert_eq!(names(Filters { before: text(&["user/two:2"]), ..Filters::default() }), ["one:1"]);
    assert_eq!(names(Filters { since: text(&["user/two:2"]), ..Filters::default() }), ["one:1x", "-"]);
    let none = Filters { since: text(&["none"]), ..Filters::default() };
    assert!(matches!(stage.images.list(&none, More::default()), Err(ImageError::NotFound(_))));
}

#[test]
fn everything_is_there_again_after_reopening_and_litter_is_gone() {
    let stage = Stage::new();
    let image = stage.import("a:1", &tar_of(&[("a", "a")]));
    fs::write(stage.root().join("content/ingest/litter"), "x").expect("litter");
    fs::write(stage.root().join("content/blobs/sha256").join("0".repeat(64)), "x").expect("litter");
    let stage = stage.reopen();
    assert_eq!(stage.images.resolve("a:1").expect("found").id, image.id);
    assert_eq!(stage.text(&image, "a").as_deref(), Some("a"));
    // An ingest stays: a pull goes on from it.
    assert_eq!((stage.blobs(), stage.ingests()), (3, 1));
    assert_eq!(stage.images.snapshot_numbers().len(), 1);
}
