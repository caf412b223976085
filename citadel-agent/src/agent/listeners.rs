//! The two listeners. Binding comes first, so that a port in use fails a start or a reload before anything changes.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::state::Agent;
use crate::config::Config;
use crate::http::{self, Content, Guard, Prepared};

/// Time limit for open responses after the agent was told to stop.
pub(super) const GRACE: Duration = Duration::from_secs(4);

/// Both listeners.
pub(super) struct Listeners {
    guard: Arc<Guard>,
    pub(super) metrics: Listening,
    pub(super) health: Listening,
}

/// One listener: bound, then serving.
pub(super) struct Listening {
    content: Content,
    pub(super) address: SocketAddr,
    /// Configured address; `address` is the actual one.
    wanted: (IpAddr, u16),
    /// A second handle of the serving socket, which a reload can pass on.
    socket: TcpListener,
    bound: Option<TcpListener>,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<io::Result<()>>>,
}

impl Listeners {
    pub(super) fn bind(config: &Config) -> anyhow::Result<Self> {
        let local = &config.local;
        let web = Guard::prepare(local.web_config_file.as_deref())?;
        info!("access: {}", web.access());
        Ok(Self {
            guard: Arc::new(Guard::new(web)),
            metrics: Listening::bind(Content::Metrics, local.listen_address, local.metrics_port)?,
            health: Listening::bind(Content::Health, local.listen_address, local.health_check_port)?,
        })
    }

    /// Binds the listeners whose address or port differs between two configurations. If one takes over the other's
    /// current address, as when two ports are swapped, it gets the other's socket.
    pub(super) fn bind_changed(
        &self,
        old: &Config,
        new: &Config,
    ) -> anyhow::Result<(Option<Listening>, Option<Listening>)> {
        let (old, new) = (&old.local, &new.local);
        let moved = old.listen_address != new.listen_address;
        let bind = |content, before, now| {
            (moved || before != now).then(|| self.bind_one(content, (new.listen_address, now))).transpose()
        };
        Ok((
            bind(Content::Metrics, old.metrics_port, new.metrics_port)?,
            bind(Content::Health, old.health_check_port, new.health_check_port)?,
        ))
    }

    fn bind_one(&self, content: Content, wanted: (IpAddr, u16)) -> anyhow::Result<Listening> {
        // Port 0 is a different port each time.
        let has_it = |own: &&Listening| own.wanted == wanted && wanted.1 != 0;
        let own = [&self.metrics, &self.health];
        let socket = match own.into_iter().find(has_it) {
            Some(own) => own.socket.try_clone().context("cannot keep a listener across the reload")?,
            None => {
                // An address that includes the old one, or the reverse, would conflict with it.
                let same_port = own.into_iter().filter(|own| own.address.port() == wanted.1);
                let same_port: Vec<_> = same_port.map(|own| &own.socket).collect();
                http::bind_beside(wanted.0, wanted.1, &same_port)?
            }
        };
        Listening::on(content, wanted, socket)
    }

    pub(super) fn serve(&mut self, agent: &Arc<Agent>) {
        self.metrics.serve(agent, &self.guard);
        self.health.serve(agent, &self.guard);
    }

    /// Serves on newly bound listeners instead of those they replace. The old ones stop first: otherwise both would
    /// accept connections of a shared socket.
    pub(super) async fn replace(&mut self, moved: (Option<Listening>, Option<Listening>), agent: &Arc<Agent>) {
        let (metrics, health) = moved;
        let replaced = [(&mut self.metrics, metrics), (&mut self.health, health)].map(|(place, new)| {
            let mut old = std::mem::replace(place, new?);
            old.refuse();
            Some(old)
        });
        // Stopped listeners stop at their next turn.
        tokio::task::yield_now().await;
        self.serve(agent);
        let [metrics, health] = replaced;
        let stop = async |old: Option<Listening>| {
            if let Some(old) = old {
                old.stop().await;
            }
        };
        tokio::join!(stop(metrics), stop(health));
    }

    /// What the listeners demand from now on.
    pub(super) fn demand(&self, web: Prepared) {
        self.guard.replace(web);
    }

    pub(super) async fn stop(self) {
        tokio::join!(self.metrics.stop(), self.health.stop());
    }
}

impl Listening {
    fn bind(content: Content, address: IpAddr, port: u16) -> anyhow::Result<Self> {
        Self::on(content, (address, port), http::bind(address, port)?)
    }

    fn on(content: Content, wanted: (IpAddr, u16), socket: TcpListener) -> anyhow::Result<Self> {
        let address = socket.local_addr().context("a listener has no address")?;
        let bound = Some(socket.try_clone().context("cannot duplicate a listener")?);
        Ok(Self { content, address, wanted, socket, bound, stop: None, task: None })
    }

    fn serve(&mut self, agent: &Arc<Agent>, guard: &Arc<Guard>) {
        let Some(socket) = self.bound.take() else { return };
        let (stop, stopped) = oneshot::channel::<()>();
        let content = self.content;
        let listener = http::Listener {
            content,
            app: Arc::clone(agent) as _,
            guard: Arc::clone(guard),
            limits: http::Limits::default(),
            dropped: Arc::clone(&agent.state().http_dropped),
        };
        let task = tokio::spawn(async move {
            // Dropping the sender stops it too.
            let shutdown = async { _ = stopped.await };
            let result = listener.serve(socket, shutdown).await;
            if let Err(error) = &result {
                error!(?content, %error, "a listener ended");
            }
            result
        });
        (self.stop, self.task) = (Some(stop), Some(task));
    }

    /// Stops accepting connections.
    fn refuse(&mut self) {
        if let Some(stop) = self.stop.take() {
            _ = stop.send(());
        }
    }

    async fn stop(mut self) {
        self.refuse();
        drop(self.socket);
        if let Some(task) = self.task
            && tokio::time::timeout(GRACE, task).await.is_err()
        {
            warn!(address = %self.address, "closed connections with unfinished responses");
        }
    }
}
