//! Bytes from outside: never a panic, a hang or an effect elsewhere. A whole stream of ttRPC frames, cut anywhere, and the requests in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_proto_task::{Frame, Message, Request, Status, shim, task};

/// What is in the frames, and how many bytes they take.
fn frames(bytes: &[u8]) -> (Vec<Frame<'_>>, usize) {
    let (mut list, mut at) = (Vec::new(), 0);
    while let Ok(Some(frame)) = Frame::take(&bytes[at..]) {
        assert!(frame.len() <= bytes.len() - at);
        at += frame.len();
        list.push(frame);
    }
    (list, at)
}

fuzz_target!(|bytes: &[u8]| {
    let (list, taken) = frames(bytes);
    // The same bytes in two parts give the same frames: nothing is taken before it is whole.
    let cut = bytes.first().map_or(0, |b| usize::from(*b)).min(bytes.len());
    let (first, so_far) = frames(&bytes[..cut]);
    let (rest, more) = frames(&bytes[so_far..]);
    assert_eq!((first.len() + rest.len(), so_far + more), (list.len(), taken));
    for frame in list {
        let Ok(request) = Request::decode(frame.payload) else { continue };
        let payload = request.payload.as_slice();
        let _ = task::CreateTaskRequest::decode(payload);
        let _ = task::ExecProcessRequest::decode(payload);
        let _ = task::UpdateTaskRequest::decode(payload);
        let _ = shim::AttachRequest::decode(payload);
        let _ = Status::decode(payload);
    }
});
