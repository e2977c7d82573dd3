//! Create requests of older clients: fields that did not exist yet in their version are ignored, as moby's
//! `postContainersCreate` does.

use wharf_api_types as api;

use crate::version::ApiVersion;

/// Clears what the client's version does not know.
pub fn age_create(request: &mut api::ContainerCreateRequest, version: &ApiVersion) {
    let Some(host) = &mut request.host_config else { return };
    if version.before(43) {
        host.annotations = None;
    }
    if version.before(44)
        && let Some(check) = &mut request.config.healthcheck
    {
        check.start_interval = 0;
    }
    for mount in host.mounts.iter_mut().flatten() {
        if let Some(bind) = &mut mount.bind_options {
            if version.before(42) {
                bind.create_mountpoint = false;
            }
            if version.before(44) {
                bind.read_only_non_recursive = false;
                bind.read_only_force_recursive = false;
            }
        }
        if version.before(45)
            && let Some(volume) = &mut mount.volume_options
        {
            volume.subpath.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_newer_than_the_client_are_ignored() {
        let mount = api::Mount {
            bind_options: Some(api::BindOptions { create_mountpoint: true, ..Default::default() }),
            ..Default::default()
        };
        let host = api::HostConfig { mounts: Some(vec![mount]), ..Default::default() };
        let request = api::ContainerCreateRequest { host_config: Some(host), ..Default::default() };
        let created = |version: &str| {
            let mut request = request.clone();
            age_create(&mut request, &ApiVersion::parse(version));
            let mount = &request.host_config.expect("host").mounts.expect("mounts")[0];
            mount.bind_options.as_ref().is_some_and(|b| b.create_mountpoint)
        };
        assert!(!created("1.41"));
        assert!(created("1.42"));
    }
}
