//! Connecting containers to networks and disconnecting them.
//!
//! Of a container that runs, the record is published first and committed after the effect (connect) or before it
//! (disconnect). An endpoint that the record does not name is not adopted, and its link is swept, so that a crash
//! leaves either nothing or the whole.

use std::sync::Arc;

use wharf_api_types::{EndpointSettings, NetworkConnectRequest, NetworkDisconnectRequest};
use wharf_fault::point;

use super::{NetworkList, NetworkRecord, endpoint_problems, problems_text};
use crate::container::{Container, ContainerRecord, Status, View};
use crate::lifecycle::current_record;
use crate::{EngineError, blocking};

impl NetworkList {
    /// Connects a container to a network.
    pub async fn connect(&self, name: &str, request: NetworkConnectRequest) -> Result<(), EngineError> {
        let network = self.catalog.find(name)?;
        let container = self.registry.find(&request.container)?;
        let _guard = container.lock.lock().await;
        let view = container.view();
        let settings = request.endpoint_config.unwrap_or_default();
        check(&view, &network)?;
        let problems = endpoint_problems(&network.name, Some(&network), &settings);
        if !problems.is_empty() {
            return Err(EngineError::EndpointSettings(problems_text(&problems)));
        }
        let mut record = current_record(&view);
        record.materialise_networks();
        record.networks.insert(network.name.clone(), with_names(settings, &network, &record));
        point("connect.begin");
        if view.task.is_none() {
            return self.commit(&container, record).await;
        }
        let before = view.record.clone();
        let view = container.publish(|v| v.record = Arc::new(record.clone()));
        let joined = self.join(&container, &view, &network).await;
        let outcome = match joined {
            Ok(()) => self.commit(&container, record).await,
            Err(e) => Err(e),
        };
        if let Err(e) = outcome {
            container.publish(|v| v.record = before);
            self.leave(&container, &network).await?;
            return Err(e);
        }
        self.lifecycle.tell_network("connect", &container.id, &network);
        point("connect.done");
        Ok(())
    }

    async fn join(
        &self,
        container: &Arc<Container>,
        view: &Arc<View>,
        network: &Arc<NetworkRecord>,
    ) -> Result<(), EngineError> {
        let (lifecycle, of) = (self.lifecycle.clone(), container.clone());
        let (view, network) = (view.clone(), network.clone());
        blocking(move || lifecycle.connect_live(&of, &view, &network)).await??;
        self.lifecycle.hand_over(container).await;
        Ok(())
    }

    async fn leave(&self, container: &Arc<Container>, network: &Arc<NetworkRecord>) -> Result<(), EngineError> {
        let (lifecycle, of, network) = (self.lifecycle.clone(), container.clone(), network.clone());
        blocking(move || lifecycle.disconnect_live(&of, &network.name)).await??;
        // A port may have moved to a network on which it could not be bound before.
        self.lifecycle.hand_over(container).await;
        Ok(())
    }

    async fn commit(&self, container: &Arc<Container>, record: ContainerRecord) -> Result<(), EngineError> {
        self.records.replace(&record, None).await?;
        point("connect.after-commit");
        container.publish(|v| v.record = Arc::new(record));
        Ok(())
    }

    /// Takes a container off a network.
    pub async fn disconnect(&self, name: &str, request: NetworkDisconnectRequest) -> Result<(), EngineError> {
        let network = self.catalog.find(name)?;
        let container = match self.registry.find(&request.container) {
            Ok(container) => container,
            Err(_) if request.force => return Err(EngineError::NoEndpoint(request.container)),
            Err(e) => return Err(e.into()),
        };
        let _guard = container.lock.lock().await;
        let view = container.view();
        let mode = view.record.host.network_mode.as_str();
        if mode == "host" && network.name == "host" {
            return Err(EngineError::DisconnectHost);
        }
        if mode.starts_with("container:") || !view.on_network(&network.name) {
            let (container, network) = (container.id.to_string(), network.name.clone());
            return Err(EngineError::NotConnected { container, network });
        }
        let mut record = current_record(&view);
        record.materialise_networks();
        record.networks.remove(&network.name);
        point("disconnect.begin");
        let before = view.record.clone();
        container.publish(|v| v.record = Arc::new(record.clone()));
        if let Err(e) = self.commit(&container, record).await {
            container.publish(|v| v.record = before);
            return Err(e);
        }
        point("disconnect.after-commit");
        if view.task.is_some() {
            self.leave(&container, &network).await?;
            self.lifecycle.tell_network("disconnect", &container.id, &network);
        }
        point("disconnect.done");
        Ok(())
    }
}

/// Refuses what Docker refuses.
fn check(view: &View, network: &NetworkRecord) -> Result<(), EngineError> {
    let id = || view.record.id.to_string();
    if view.removed || matches!(view.state.status, Status::Removing | Status::Dead) {
        return Err(EngineError::ConnectRemoved(id()));
    }
    let mode = view.record.host.network_mode.as_str();
    if network.name == "host" && mode != "host" {
        return Err(EngineError::ConnectHost);
    }
    if mode == "host" || mode.starts_with("container:") {
        return Err(EngineError::ConnectShared);
    }
    if network.name == "none" || mode == "none" {
        return Err(EngineError::ConnectNone);
    }
    if network.config_only {
        return Err(EngineError::ConnectTemplate(network.name.clone()));
    }
    if view.task.is_some() && view.on_network(&network.name) {
        return Err(EngineError::EndpointExists { container: view.record.name.clone(), network: network.name.clone() });
    }
    Ok(())
}

/// Adds the names under which others find the container.
fn with_names(mut settings: EndpointSettings, network: &NetworkRecord, record: &ContainerRecord) -> EndpointSettings {
    settings.network_id.clear();
    settings.endpoint_id.clear();
    if network.is_user_defined() {
        settings.dns_names = Some(record.dns_names(&settings));
    }
    settings
}
