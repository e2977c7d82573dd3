//! `docker update`.

use wharf_api_client::Request;
use wharf_api_types::{ContainerUpdateRequest, ContainerUpdateResponse, RestartPolicy};

use super::path;
use crate::create;
use crate::exit::Exit;
use crate::parse::Matches;
use crate::shell::{Shell, each};
use crate::value;

/// `docker update`.
pub fn update(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    if m.given().next().is_none() {
        return Err(Exit::new("you must provide one or more flags when using this command"));
    }
    let restart_policy =
        if m.changed("restart") { create::restart_policy(m.text("restart"))? } else { RestartPolicy::default() };
    let request = ContainerUpdateRequest {
        cpu_shares: m.int("cpu-shares"),
        memory: m.bytes("memory"),
        nano_cpus: if m.changed("cpus") { value::parse_nano(m.text("cpus")).map_err(Exit::new)? } else { 0 },
        blkio_weight: u16::try_from(m.int("blkio-weight")).unwrap_or(0),
        cpu_period: m.int("cpu-period"),
        cpu_quota: m.int("cpu-quota"),
        cpu_realtime_period: m.int("cpu-rt-period"),
        cpu_realtime_runtime: m.int("cpu-rt-runtime"),
        cpuset_cpus: m.text("cpuset-cpus").to_owned(),
        cpuset_mems: m.text("cpuset-mems").to_owned(),
        kernel_memory: m.bytes("kernel-memory"),
        memory_reservation: m.bytes("memory-reservation"),
        memory_swap: m.bytes("memory-swap"),
        pids_limit: m.changed("pids-limit").then(|| m.int("pids-limit")),
        restart_policy,
        ..ContainerUpdateRequest::default()
    };
    let body = serde_json::to_vec(&request).map_err(|e| Exit::new(e.to_string()))?;
    let client = shell.client()?;
    let mut warnings = Vec::new();
    let result = each(shell, &m.args, true, |name| {
        let reply = client.call(Request::post(path("containers", name, "/update")).json(body.clone()))?;
        warnings.extend(reply.parse::<ContainerUpdateResponse>()?.warnings.unwrap_or_default());
        Ok(())
    });
    for w in warnings {
        shell.warn(&w);
    }
    result
}
