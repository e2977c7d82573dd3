//! `docker logs`.

use wharf_api_client::{Query, Request};
use wharf_api_types::ContainerInspect;

use super::path;
use crate::exit::Exit;
use crate::format::moment;
use crate::parse::Matches;
use crate::shell::Shell;
use crate::stream;

/// `docker logs`.
pub fn logs(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let client = shell.client()?;
    let name = m.first();
    let container: ContainerInspect = client.call(Request::get(path("containers", name, "/json")))?.parse()?;
    let time =
        |flag: &str| moment::since(m.text(flag)).map_err(|e| Exit::new(format!("invalid value for \"{flag}\": {e}")));
    let query = Query::new()
        .with_flag("details", m.bool("details"))
        .with_flag("follow", m.bool("follow"))
        .with_some("since", &time("since")?)
        .with("stderr", "1")
        .with("stdout", "1")
        .with_some("tail", m.text("tail"))
        .with_flag("timestamps", m.bool("timestamps"))
        .with_some("until", &time("until")?);
    let mut answer = client.open(Request::get(path("containers", &container.id, "/logs")).query(query))?;
    stream::copy(&mut answer, container.config.tty)
}
