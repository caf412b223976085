//! Servers that are asked for their names, and those that must not be asked.

use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use citadel_agent::config::Config;
use citadel_agent::config::resolved::probing::{HealthEndpoints, Own};
use citadel_agent::discovery::inventory::Inventory;
use citadel_agent::sources::health::Probes;

use super::{Server, model, page, quiet};

/// A model that only its own answer could name.
fn unnamed(port: u16) -> Inventory {
    let mut inventory = model(port, true, None);
    inventory.models[0].unnamed = true;
    inventory
}

/// Waits until the server on a port has given a name, or has given none.
async fn until_named(probes: &Probes, port: u16, name: Option<&str>) {
    let begin = Instant::now();
    while probes.name(port).as_deref() != name {
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", probes.name(port));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_server_that_nothing_else_names_is_asked_until_it_answers_also_where_nothing_is_probed() {
    let loading = Arc::new(Mutex::new(true));
    let still = Arc::clone(&loading);
    let server = Server::start(move |path, stream| {
        assert_eq!(path, "/v1/models");
        match std::mem::replace(&mut *still.lock().unwrap(), false) {
            true => write!(stream, "HTTP/1.1 503 Loading model\r\nContent-Length: 0\r\n\r\n").ok(),
            false => write!(stream, "HTTP/1.1 200 OK\r\n\r\n{{\"data\":[{{\"id\":\"org/name\"}}]}}").ok(),
        }
    });
    let mut models = Config::default().models;
    models.health_endpoints = HealthEndpoints::Listed(vec![]);
    models.health_interval = Duration::from_millis(50);
    let announced = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&announced);
    let mut probes = Probes::new(
        &models,
        Arc::new(move |client, _| {
            noted.lock().unwrap().push(client);
            Ok(Box::new(()))
        }),
    );
    probes.set_models(&unnamed(server.port));
    until_named(&probes, server.port, Some("org/name")).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.paths(), ["/v1/models"; 2], "it is asked until it has answered");
    let clients: Vec<_> = server.asked.lock().unwrap().iter().map(|(_, client)| *client).collect();
    assert_eq!(*announced.lock().unwrap(), clients);
    assert!(page(&probes).families.iter().all(|family| family.desc.name != "citadel_model_up"), "it is not probed");

    // Settings of its own, found by that name, change nothing about the name.
    models.own.insert("org/name".to_owned(), Own { health_timeout: Some(Duration::from_secs(1)), ..Own::default() });
    probes.set_config(&models);
    let mut named = unnamed(server.port);
    named.models[0].name = "org/name".to_owned();
    probes.set_models(&named);
    assert_eq!(probes.name(server.port).as_deref(), Some("org/name"));

    // One that is configured, or that nobody wants to ask, is not.
    let other = Server::start(|_, _| panic!("it is asked"));
    probes.set_models(&model(other.port, true, None));
    models.ask_for_names = false;
    let mut quiet = Probes::new(&models, quiet());
    quiet.set_models(&unnamed(other.port));
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert_eq!(other.paths(), [""; 0]);
}

/// With the socket of a service that systemd has not started, a probe would start it.
#[tokio::test]
async fn a_service_that_waits_for_a_connection_is_not_woken() {
    let server = Server::start(|_, _| None);
    let mut models = Config::default().models;
    models.health_interval = Duration::from_millis(50);
    let mut probes = Probes::new(&models, Arc::new(|_, _| panic!("it connects")));
    let mut waits = unnamed(server.port);
    waits.models[0].dormant = true;
    probes.set_models(&waits);
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert!(page(&probes).families.iter().all(|family| !family.desc.name.starts_with("citadel_model_")));
    assert_eq!(server.paths(), [""; 0]);
}
