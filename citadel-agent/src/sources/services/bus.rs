//! D-Bus calls to systemd for monitoring units (`org.freedesktop.systemd1(5)`).

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use serde::de::DeserializeOwned;
use zbus::Address;
use zbus::connection::Builder;
use zbus::fdo::DBusProxy;
use zbus::zvariant::{DynamicType, ObjectPath, OwnedObjectPath, Type};
use zbus::{Connection, Error, MatchRule};

use super::guard::{BUS, Guarded, Trusted};
use super::unit::{Properties, Unit};
use crate::host::skipped::Skipped;

/// systemd's bus name.
pub(super) const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
pub(super) const MANAGER: &str = "org.freedesktop.systemd1.Manager";
pub(super) const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";

/// Time limit for systemd's responses.
const PATIENCE: Duration = Duration::from_secs(10);

/// Maximum number of monitored units: a pattern that matches more is a mistake.
pub(super) const MAX_UNITS: usize = 256;

/// An entry of `ListUnitsByPatterns`: name, description, the three states, the followed unit, its path, and its job.
type Listed = (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

/// A connection to systemd.
#[derive(Clone, Debug)]
pub(super) struct Systemd {
    pub(super) connection: Connection,
}

impl Systemd {
    /// Connects to the bus at `address`, or to the system bus, and subscribes to systemd's signals. `None`: systemd is
    /// not on the bus.
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
        // A call would make the bus try to start it.
        let owner = match bus.get_name_owner(SYSTEMD.try_into()?).await {
            Ok(owner) => owner,
            Err(zbus::fdo::Error::NameHasNoOwner(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        trusted.set(&owner);
        systemd.listen(MANAGER_PATH, MANAGER).await?;
        // systemd sends signals about units only after a subscription.
        systemd.call::<_, ()>(MANAGER_PATH, MANAGER, "Subscribe", &()).await?;
        Ok(Some(systemd))
    }

    /// Subscribes to the signals of an object.
    pub(super) async fn listen(&self, path: &str, interface: &str) -> Result<(), Error> {
        Ok(DBusProxy::new(&self.connection).await?.add_match_rule(rule(path, interface)?).await?)
    }

    /// Unsubscribes.
    pub(super) async fn ignore(&self, path: &str, interface: &str) -> Result<(), Error> {
        Ok(DBusProxy::new(&self.connection).await?.remove_match_rule(rule(path, interface)?).await?)
    }

    /// The units that match these patterns with their object paths; `None` for those that are installed but not loaded.
    pub(super) async fn list(&self, patterns: &[&str]) -> Result<BTreeMap<String, Option<OwnedObjectPath>>, Error> {
        let any_state: &[&str] = &[];
        let files: Vec<(String, String)> =
            self.call(MANAGER_PATH, MANAGER, "ListUnitFilesByPatterns", &(any_state, patterns)).await?;
        let names = files.iter().filter_map(|(path, _)| path.rsplit('/').next());
        // A template is not a unit until it has an instance.
        let mut units: BTreeMap<_, _> =
            names.filter(|name| !name.contains("@.")).map(|name| (name.to_owned(), None)).collect();
        let loaded: Vec<Listed> =
            self.call(MANAGER_PATH, MANAGER, "ListUnitsByPatterns", &(any_state, patterns)).await?;
        units.extend(loaded.into_iter().map(|listed| (listed.0, Some(listed.6))));
        Ok(units)
    }

    /// The properties of a unit. `None`: it no longer exists.
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

/// Whether an error means that this host has no bus.
pub(super) fn is_absent(error: &Error) -> bool {
    let (Error::InputOutput(error) | Error::Connection(error, _)) = error else { return false };
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}
