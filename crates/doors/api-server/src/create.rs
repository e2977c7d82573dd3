//! The body of `POST /containers/create`, which is three types in one object.

use wharf_api_types as api;

use crate::{ApiError, gotypes, json};

/// The part beside the configuration's own fields.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Beside {
    host_config: Option<api::HostConfig>,
    networking_config: Option<api::NetworkingConfig>,
}

/// Decodes a create body. The configuration must not be empty, as moby demands.
pub fn decode(body: &[u8]) -> Result<api::ContainerCreateRequest, ApiError> {
    // Two passes keep the path of a mismatch, which `flatten` would lose. `null` is an empty object for Go.
    let config: Option<api::ContainerConfig> = json::decode(body, gotypes::CREATE)?;
    let beside: Option<Beside> = json::decode(body, gotypes::CREATE)?;
    let (config, beside) = (config.unwrap_or_default(), beside.unwrap_or_default());
    if config == api::ContainerConfig::default() {
        return Err(ApiError::invalid("config cannot be empty in order to create a container"));
    }
    Ok(api::ContainerCreateRequest {
        config,
        host_config: beside.host_config,
        networking_config: beside.networking_config,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_create_body_splits_into_its_three_parts() {
        let body = br#"{"Image":"b","Cmd":"x","Extra":{"deep":[1]},"HostConfig":{"Memory":5,"Binds":null},"NetworkingConfig":{}}"#;
        let request = decode(body).expect("valid");
        assert_eq!(request.config.image, "b");
        assert_eq!(request.host_config.map(|h| h.memory), Some(5));
        assert_eq!(request.networking_config, Some(api::NetworkingConfig::default()));
    }

    #[test]
    fn a_body_without_configuration_is_refused() {
        for body in ["{}", "null", r#"{"HostConfig":{}}"#] {
            let e = decode(body.as_bytes()).expect_err(body);
            assert_eq!(e.message, "config cannot be empty in order to create a container");
        }
    }
}
