//! Each attack succeeds where the protection against it is dropped: else its test would prove nothing. The cases of [`crate::attacks`] are
//! run again by this very program, on a runtime that is told by `WHARF_WEAKEN` what to leave out; they must fail. Needs a runtime built
//! with `--features inject`, as `make binaries` does.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::bundle::is_ours;

/// Protection, and a case that must fail without it.
const PAIRS: &[(&str, &str)] = &[
    ("beneath", "attacks::cve_2021_30465_a_mount_destination_that_is_a_link_stays_inside"),
    ("proc-folder", "attacks::cve_2019_19921_and_2023_27561_a_proc_that_is_a_link_is_refused"),
    ("proc-cover", "attacks::cve_2019_16884_nothing_is_mounted_over_or_into_proc"),
    ("null-device", "attacks::cve_2025_31133_a_false_null_device_is_not_bound_over_masked_paths"),
    ("console-place", "attacks::cve_2025_52565_the_terminal_is_not_bound_through_a_link"),
    (
        "masks",
        "attacks::cve_2015_3630_2017_16539_and_2018_10892_hidden_paths_of_proc_and_sys_show_nothing_and_take_nothing",
    ),
    (
        "capabilities",
        "inside::cve_2022_24769_and_2022_29162_inheritable_and_ambient_capabilities_are_empty_unless_asked_for",
    ),
    ("descriptors", "attacks::cve_2024_21626_a_directory_through_a_leaked_descriptor_does_not_lead_out"),
    ("descriptors", "attacks::cve_2024_21626_the_same_for_a_process_that_is_added"),
    ("image", "attacks::cve_2019_5736_the_runtime_cannot_be_overwritten_when_it_is_made_to_execute_itself"),
    ("dumpable", "attacks::cve_2016_9962_a_process_that_is_added_cannot_be_looked_into_before_it_runs_its_program"),
    ("state-mode", "attacks::cve_2021_41091_the_state_folder_is_closed_to_others"),
    ("user-database", "attacks::cve_2024_9676_a_user_database_that_is_a_fifo_holds_nobody_up"),
    ("beneath", "attacks::cve_2024_45310_no_file_is_made_outside_by_a_mount_whose_place_is_being_swapped"),
    ("beneath", "attacks::cve_2026_41579_a_dev_that_is_a_link_stays_inside"),
    ("procfs", "attacks::cve_2025_52881_a_kernel_parameter_is_written_to_the_hosts_procfs_and_to_no_file_of_the_image"),
    // The same where openat2 is denied: what stops them then is the walk.
    ("openat2,beneath", "attacks::cve_2021_30465_a_mount_destination_that_is_a_link_stays_inside"),
    ("openat2,beneath", "attacks::cve_2024_45310_no_file_is_made_outside_by_a_mount_whose_place_is_being_swapped"),
    ("openat2,beneath", "attacks::cve_2026_41579_a_dev_that_is_a_link_stays_inside"),
];

/// What libtest says of a case that ran and failed.
const FAILED: i32 = 101;

/// How often an attack that did not succeed is tried again; one of these takes a quarter of a second.
const TRIES: usize = 40;

/// Runs one case and gives the exit code of its program; what hangs is ended and gives none.
fn case(name: &str, weaken: &str) -> (Option<i32>, String) {
    let program = std::env::current_exe().expect("our own path");
    let output = tempfile::NamedTempFile::new().expect("file");
    let mut child = Command::new(program)
        .args(["--exact", name, "--test-threads=1"])
        .env("WHARF_WEAKEN", weaken)
        .stdin(Stdio::null())
        .stdout(output.reopen().expect("file"))
        .stderr(output.reopen().expect("file"))
        .spawn()
        .expect("spawned");
    let deadline = Instant::now() + Duration::from_secs(120);
    let code = loop {
        if let Some(status) = child.try_wait().expect("waited") {
            break status.code();
        }
        if Instant::now() > deadline {
            child.kill().expect("killed");
            child.wait().expect("waited");
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    (code, std::fs::read_to_string(output.path()).unwrap_or_default())
}

#[test]
fn every_attack_fails_where_openat2_is_denied() {
    if !is_ours() {
        println!("SKIP: other runtimes cannot be told to do without it");
        return;
    }
    let program = std::env::current_exe().expect("our own path");
    let mut command = Command::new(program);
    command.args(["attacks::", "--test-threads=2"]).env("WHARF_WEAKEN", "openat2").stdin(Stdio::null());
    let output = command.output().expect("ran");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !said.contains(" 0 passed"), "{said}");
}

#[test]
fn every_attack_succeeds_where_its_protection_is_dropped() {
    if !is_ours() {
        println!("SKIP: other runtimes cannot be weakened");
        return;
    }
    let mut wrong = Vec::new();
    for (protection, name) in PAIRS {
        let (mut code, mut said) = case(name, protection);
        // Two of the attacks are races: on a busy machine not every try wins.
        for _ in 1..TRIES {
            if code != Some(0) {
                break;
            }
            (code, said) = case(name, protection);
        }
        if code != Some(FAILED) || !said.contains("1 failed") {
            wrong.push(format!("{name} without {protection}: {code:?}\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
