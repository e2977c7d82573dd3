//! Runs a script in the virtual machine: `vm SCRIPT [HOST-FILE=GUEST-FILE …]`; its status and output become ours.
//! With `VM_SYSTEMD` set, systemd is the guest's first process.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(script) = args.next() else {
        eprintln!("usage: vm SCRIPT [HOST-FILE=GUEST-FILE …]");
        return ExitCode::from(2);
    };
    let mut machine = testkit::vm::Machine::new().memory(3072).patience(std::time::Duration::from_secs(1200));
    if std::env::var_os("VM_SYSTEMD").is_some() {
        machine = machine.systemd();
    }
    for pair in args {
        let Some((host, guest)) = pair.split_once('=') else {
            eprintln!("not HOST-FILE=GUEST-FILE: {pair}");
            return ExitCode::from(2);
        };
        machine = machine.file(host, guest);
    }
    let script = std::fs::read_to_string(&script).unwrap_or(script);
    let outcome = machine.run(&script);
    print!("{}", outcome.output);
    match outcome.status.and_then(|s| u8::try_from(s).ok()) {
        Some(status) => ExitCode::from(status),
        None => {
            eprint!("{}", outcome.console);
            ExitCode::from(125)
        }
    }
}
