//! `docker help`.

use crate::exit::Exit;
use crate::help;
use crate::parse::Matches;
use crate::shell::Shell;
use crate::table;

/// `docker help`.
pub fn help(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let mut path = String::new();
    for (i, word) in m.args.iter().enumerate() {
        let next = format!("{path} {word}");
        match table::find(next.trim_start()) {
            Some(c) => path = c.path.to_owned(),
            None => return Err(Exit::new(format!("unknown help topic: {}", m.args[i..].join(" ")))),
        }
    }
    let command = table::find(&path).ok_or_else(|| Exit::new("unknown help topic"))?;
    shell.print(&help::help(command))
}
