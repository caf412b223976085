//! The calls to systemd that are needed to follow units (`org.freedesktop.systemd1(5)`).

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use serde::de::DeserializeOwned;
use zbus::Address;
use zbus::connection::Builder;
use zbus::fdo::DBusProxy;
use zbus::zvariant::{DynamicType, ObjectPath, OwnedObjectPath, Type};
use zbus::{Connection, Error, MatchRule};

use super::guard::{Guarded, Trusted};
use super::unit::{Properties, Unit};
use crate::host::skipped::Skipped;

/// systemd's name on the bus.
pub(super) const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
pub(super) const MANAGER: &str = "org.freedesktop.systemd1.Manager";
pub(super) const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// The bus itself.
pub(super) const BUS: &str = "org.freedesktop.DBus";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";

/// How long systemd may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Most units that are followed: a pattern that matches more is a mistake.
pub(super) const MAX_UNITS: usize = 256;

/// One entry of `ListUnitsByPatterns`: name, description, the three states, whom it follows, its path, and its job.
type Listed = (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

/// systemd, at the other end of a bus.
#[derive(Clone, Debug)]
pub(super) struct Systemd {
    pub(super) connection: Connection,
}

impl Systemd {
    /// Connects to the bus at `address`, or to the system's, and has systemd send its signals to us. `None`: it is not on the bus.
    pub(super) async fn connect(address: Option<&str>) -> Result<Option<Self>, Error> {
        let address = match address {
            Some(address) => address.parse()?,
            None => Address::system()?,
        };
        let trusted = Trusted::default();
        let socket = Guarded::connect(&address, trusted.clone()).await?;
        let connection = Builder::socket(socket).method_timeout(PATIENCE).build().await?;
        let systemd = Self { connection };
        let owner = MatchRule::builder().msg_type(zbus::message::Type::Signal).sender(BUS)?.interface(BUS)?;
        let owner = owner.member("NameOwnerChanged")?.arg(0, SYSTEMD)?.build();
        let bus = DBusProxy::new(&systemd.connection).await?;
        bus.add_match_rule(owner).await?;
        // A call would have the bus try to start it.
        let owner = match bus.get_name_owner(SYSTEMD.try_into()?).await {
            Ok(owner) => owner,
            Err(zbus::fdo::Error::NameHasNoOwner(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        trusted.set(&owner);
        systemd.listen(MANAGER_PATH, MANAGER).await?;
        // What systemd says of units goes to nobody before somebody has asked for it.
        systemd.call::<_, ()>(MANAGER_PATH, MANAGER, "Subscribe", &()).await?;
        Ok(Some(systemd))
    }

    /// Has the bus pass on the signals of an object.
    pub(super) async fn listen(&self, path: &str, interface: &str) -> Result<(), Error> {
        Ok(DBusProxy::new(&self.connection).await?.add_match_rule(rule(path, interface)?).await?)
    }

    /// Ends that.
    pub(super) async fn ignore(&self, path: &str, interface: &str) -> Result<(), Error> {
        Ok(DBusProxy::new(&self.connection).await?.remove_match_rule(rule(path, interface)?).await?)
    }

    /// The units of these patterns with their objects' paths; `None` for those that are installed, but not loaded.
    pub(super) async fn list(&self, patterns: &[&str]) -> Result<BTreeMap<String, Option<OwnedObjectPath>>, Error> {
        let any_state: &[&str] = &[];
        let files: Vec<(String, String)> =
            self.call(MANAGER_PATH, MANAGER, "ListUnitFilesByPatterns", &(any_state, patterns)).await?;
        let names = files.iter().filter_map(|(path, _)| path.rsplit('/').next());
        // A template is not a unit before it has an instance.
        let mut units: BTreeMap<_, _> =
            names.filter(|name| !name.contains("@.")).map(|name| (name.to_owned(), None)).collect();
        let loaded: Vec<Listed> =
            self.call(MANAGER_PATH, MANAGER, "ListUnitsByPatterns", &(any_state, patterns)).await?;
        units.extend(loaded.into_iter().map(|listed| (listed.0, Some(listed.6))));
        Ok(units)
    }

    /// What systemd says of a unit. `None`: it has gone meanwhile.
    pub(super) async fn unit(
        &self,
        name: &str,
        path: &ObjectPath<'_>,
        skipped: &mut Skipped,
    ) -> Result<Option<Unit>, Error> {
        let unit = match self.all(path, UNIT).await {
            Ok(unit) => unit,
            Err(Error::MethodError(..) | Error::FDO(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let service = if name.ends_with(".service") { self.all(path, SERVICE).await.ok() } else { None };
        Ok(Unit::new(&unit, service.as_ref(), skipped))
    }

    async fn all(&self, path: &ObjectPath<'_>, interface: &str) -> Result<Properties, Error> {
        self.call(path.as_str(), PROPERTIES, "GetAll", &interface).await
    }

    async fn call<B, R>(&self, path: &str, interface: &str, method: &str, body: &B) -> Result<R, Error>
    where
        B: serde::Serialize + DynamicType,
        R: DeserializeOwned + Type,
    {
        let reply = self.connection.call_method(Some(SYSTEMD), path, Some(interface), method, body).await?;
        reply.body().deserialize()
    }
}

fn rule<'a>(path: &'a str, interface: &'a str) -> Result<MatchRule<'a>, Error> {
    let builder = MatchRule::builder().msg_type(zbus::message::Type::Signal);
    Ok(builder.sender(SYSTEMD)?.path(path)?.interface(interface)?.build())
}

/// Whether an error says that this host has no bus.
pub(super) fn is_absent(error: &Error) -> bool {
    let (Error::InputOutput(error) | Error::Connection(error, _)) = error else { return false };
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}
