//! Bytes from outside: never a panic, a hang or an effect elsewhere. The state that hooks read on their input, and a hook's output, which becomes
//! part of an error's text and must survive the way to dockerd.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_oci::runtime::State;
use wharf_proto_task::Status;
use wharf_types::{Failure, Stage};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(state) = serde_json::from_slice::<State>(bytes) {
        let text = serde_json::to_vec(&state).expect("a state prints");
        let again: State = serde_json::from_slice(&text).expect("what was printed parses");
        assert_eq!(serde_json::to_vec(&again).expect("prints"), text);
    }
    let subject = String::from_utf8_lossy(bytes).into_owned();
    let failure = Failure { stage: Stage::Hook, errno: 0, subject };
    let status = Status::from_failure(&failure);
    assert_eq!(status.failure(), Some(failure));
});
