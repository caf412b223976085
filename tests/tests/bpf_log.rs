//! What the kernel programs log, in an agent that was built with `bpf-log`.

use citadel_agent_tests::agent::Agent;
use citadel_agent_tests::http::{answer, get};
use citadel_agent_tests::peer::{Peer, Server};

/// After a request: what can be none.
const GARBAGE: &str = "no request\r\n\r\n";

/// One connection: a request, its answer, and then garbage.
fn lose_framing(server: &Server, mut client: Peer) {
    let (request, response) = (get("/"), answer("200 OK", "ok"));
    let (length, answer) = (request.len(), response.clone());
    let playing = server.serve(move |mut peer| {
        peer.read(length);
        peer.write(answer);
        peer.read(GARBAGE.len());
        peer.read_to_end();
    });
    client.ask(request, response.len());
    client.write(GARBAGE);
    client.close();
    playing.truth();
}

#[test]
fn a_line_names_the_connection_and_what_is_wrong_with_it_when_the_level_asks_for_it() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let unsaid = server.connect();
    let unsaid_port = unsaid.port();
    lose_framing(&server, unsaid);
    // One thread does both: once it answers, it has seen the line.
    let _ = agent.scrape();

    agent.reload_with(&agent.config().replace("INFO", "DEBUG"));
    agent.wait_for_log("configuration reloaded");
    let client = server.connect();
    let line = |client_port| format!("port {}, client port {client_port}: lost: request_framing", server.port());
    let said = line(client.port());
    lose_framing(&server, client);
    agent.wait_for_log(&said);
    assert!(!agent.log().contains(&line(unsaid_port)), "at INFO:\n{}", agent.log());
}

#[test]
fn a_connection_that_is_older_than_the_agent_is_named_as_late() {
    let server = Server::bind();
    let client = server.connect();
    let agent = Agent::measuring(server.port());
    agent.reload_with(&agent.config().replace("INFO", "DEBUG"));
    agent.wait_for_log("configuration reloaded");
    let said = format!("port {}, client port {}: joined late", server.port(), client.port());
    lose_framing(&server, client);
    agent.wait_for_log(&said);
}
