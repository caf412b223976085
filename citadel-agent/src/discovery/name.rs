//! Chooses the name for a model's series. Pure.

use super::server::Server;

/// The configured name, or else that of its unit, its command line or its own answer, or else its port.
#[must_use]
pub fn choose(configured: Option<&str>, server: Option<&Server>, answered: Option<String>, port: u16) -> String {
    let given = || server.and_then(|server| given(server).or(answered));
    configured.map(str::to_owned).or_else(given).unwrap_or_else(|| format!("port-{port}"))
}

/// Whether only the server's own answer could name it.
#[must_use]
pub fn must_be_asked(server: &Server) -> bool {
    server.main.is_some() && given(server).is_none()
}

fn given(server: &Server) -> Option<String> {
    server.unit_model().or_else(|| server.named.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::unit::Unit;
    use crate::host::pid::Process;

    #[test]
    fn the_nearest_to_the_operator_wins() {
        let unit = Unit { name: "citadel-phi3.service".to_owned(), cgroup: "x".into() };
        let mut server = Server {
            main: Some(Process { pid: 7, start_ticks: 1 }),
            unit: Some(unit),
            named: Some("microsoft/phi-3".to_owned()),
            ..Server::default()
        };
        let choose = |configured, server: &Server| choose(configured, Some(server), Some("phi".to_owned()), 11400);
        assert_eq!(choose(Some("mine"), &server), "mine");
        assert_eq!(choose(None, &server), "phi3");
        assert!(!must_be_asked(&server));
        server.unit_is_shared = true;
        assert_eq!(choose(None, &server), "microsoft/phi-3");
        server.named = None;
        assert_eq!(choose(None, &server), "phi");
        assert!(must_be_asked(&server));
        assert!(!must_be_asked(&Server { main: None, ..server.clone() }));
        assert_eq!(super::choose(None, Some(&server), None, 11400), "port-11400");
        assert_eq!(super::choose(None, None, None, 11400), "port-11400");
    }
}
