//! What the kernel programs log, in an agent that was built with `bpf-log`.

use citadel_agent_tests::agent::Agent;
use citadel_agent_tests::assert_eventually;
use citadel_agent_tests::http::{answer, get};
use citadel_agent_tests::names::REQUESTS;
use citadel_agent_tests::peer::Server;

#[test]
fn lines_name_the_connection_and_what_is_wrong_with_it_and_follow_the_level() {
    let server = Server::bind();
    let served = answer("200 OK", "ok");
    let garbage = "no request\r\n\r\n";
    let request = get("/");
    let (length, rest) = (request.len(), garbage.len());
    let script = |served: String| {
        move |mut peer: citadel_agent_tests::peer::Peer| {
            peer.read(length);
            peer.write(&served);
            peer.read(rest);
            peer.read_to_end();
        }
    };

    let quiet = server.serve(script(served.clone()));
    let mut early = server.connect();
    let agent = Agent::measuring(server.port());
    early.ask(&request, served.len());
    early.write(garbage);
    early.close();
    quiet.truth();
    let _ = assert_eventually!(agent, |page| page.counter(REQUESTS).value() == 1);
    assert!(!agent.log().contains("client port"), "{}", agent.log());

    agent.reload_with(&agent.config().replace("INFO", "DEBUG"));
    agent.wait_for_log("configuration reloaded");
    let playing = server.serve(script(served.clone()));
    let mut client = server.connect();
    client.ask(&request, served.len());
    client.write(garbage);
    agent.wait_for_log(&format!("port {}, client port {}: lost: request_framing", server.port(), client.local_port()));
    client.close();
    playing.truth();
}
