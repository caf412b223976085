//! The two listeners: bound first, so that a port that is taken ends a start or a reload before it changes anything.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::{error, warn};

use super::{Agent, GRACE};
use crate::config::Config;
use crate::http::{self, App, Content};

/// Both listeners.
pub(super) struct Listeners {
    pub(super) metrics: Listening,
    pub(super) health: Listening,
}

/// One listener: bound, then serving.
pub(super) struct Listening {
    content: Content,
    pub(super) address: std::net::SocketAddr,
    bound: Option<TcpListener>,
    task: Option<(oneshot::Sender<()>, JoinHandle<io::Result<()>>)>,
}

impl Listeners {
    pub(super) fn bind(config: &Config) -> anyhow::Result<Self> {
        let local = &config.local;
        Ok(Self {
            metrics: Listening::bind(Content::Metrics, local.listen_address, local.metrics_port)?,
            health: Listening::bind(Content::Health, local.listen_address, local.health_check_port)?,
        })
    }

    /// Binds the listeners whose address or port differs between two configurations.
    pub(super) fn bind_changed(
        &self,
        old: &Config,
        new: &Config,
    ) -> anyhow::Result<(Option<Listening>, Option<Listening>)> {
        let (old, new) = (&old.local, &new.local);
        let moved = old.listen_address != new.listen_address;
        let bind = |content, before, now| {
            (moved || before != now).then(|| Listening::bind(content, new.listen_address, now)).transpose()
        };
        Ok((
            bind(Content::Metrics, old.metrics_port, new.metrics_port)?,
            bind(Content::Health, old.health_check_port, new.health_check_port)?,
        ))
    }

    pub(super) fn serve(&mut self, agent: &Arc<Agent>) {
        self.metrics.serve(agent);
        self.health.serve(agent);
    }

    /// Serves on listeners that were bound anew, then ends those that they replace.
    pub(super) async fn replace(&mut self, moved: (Option<Listening>, Option<Listening>), agent: &Arc<Agent>) {
        for (place, new) in [(&mut self.metrics, moved.0), (&mut self.health, moved.1)] {
            if let Some(mut new) = new {
                new.serve(agent);
                std::mem::replace(place, new).stop().await;
            }
        }
    }

    pub(super) async fn stop(self) {
        tokio::join!(self.metrics.stop(), self.health.stop());
    }
}

impl Listening {
    fn bind(content: Content, address: std::net::IpAddr, port: u16) -> anyhow::Result<Self> {
        let listener = http::bind(address, port)?;
        let address = listener.local_addr().context("a listener without an address")?;
        Ok(Self { content, address, bound: Some(listener), task: None })
    }

    fn serve(&mut self, agent: &Arc<Agent>) {
        let Some(listener) = self.bound.take() else { return };
        let (stop, stopped) = oneshot::channel::<()>();
        let app: Arc<dyn App> = Arc::clone(agent) as _;
        let dropped = Arc::clone(&agent.state().http_dropped);
        let content = self.content;
        let task = tokio::spawn(async move {
            // A dropped sender ends it as well.
            let shutdown = async { _ = stopped.await };
            let result = http::serve(content, listener, app, http::Limits::default(), dropped, shutdown).await;
            if let Err(error) = &result {
                error!(?content, %error, "a listener ended");
            }
            result
        });
        self.task = Some((stop, task));
    }

    async fn stop(self) {
        if let Some((stop, task)) = self.task {
            _ = stop.send(());
            if tokio::time::timeout(GRACE, task).await.is_err() {
                warn!(address = %self.address, "open answers were cut off");
            }
        }
    }
}
