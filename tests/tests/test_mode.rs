//! `citadel-agent run --model NAME --test-mode`: what it says of a model whose answers are known, and its exit code.

use std::thread;

use citadel_agent_tests::agent::run;
use citadel_agent_tests::http::{answer, get};
use citadel_agent_tests::peer::Server;
use citadel_agent_tests::truth::pause;

/// A configuration of this one model, as a file.
fn config(folder: &tempfile::TempDir, port: u16) -> String {
    let path = folder.path().join("config.yaml");
    let text = format!(
        "model_monitoring: {{ports: {{phi3: {port}}}}}\nebpf: {{recvq: false, sched: false, syscalls: false}}\n"
    );
    std::fs::write(&path, text).expect("a configuration");
    path.to_str().expect("UTF-8").to_owned()
}

fn test_mode(config: &str, model: &str, time: &str) -> (Option<i32>, String) {
    let (status, text) = run(&["run", "--model", model, "--test-mode", "--for", time, "--config", config]);
    (status.code(), text)
}

#[test]
fn one_model_is_measured_for_a_while_and_what_was_seen_is_said() {
    const REQUESTS: usize = 7;
    let server = Server::bind();
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(&folder, server.port());
    let measuring = thread::spawn(move || test_mode(&config, "phi3", "12"));
    // The programs are attached within a second or two, on a busy machine in some more; what is sent then counts.
    pause(7000);
    let response = answer("200 OK", "{}");
    let playing = server.answer_each(vec![(0, response.clone()); REQUESTS]);
    let mut client = server.connect();
    for _ in 0..REQUESTS {
        client.ask(get("/v1/models"), response.len());
    }
    playing.truth();
    let (code, text) = measuring.join().expect("it ends");
    assert_eq!(code, Some(0), "{text}");
    for line in [
        format!("model phi3 on port {}, 12 s", server.port()),
        format!("requests: {REQUESTS} completed, 0 aborted, 0 in flight"),
        format!("  models 200: {REQUESTS}"),
        "verdict: phi3 can be measured".to_owned(),
    ] {
        assert!(text.lines().any(|own| own == line), "{line:?} is missing:\n{text}");
    }
    assert!(text.contains(&format!("duration: {REQUESTS} observed")), "{text}");
    assert!(text.contains(" ns per request in the kernel"), "as root, what programs cost is counted:\n{text}");
}

#[test]
fn where_nothing_comes_the_exit_code_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let silent = Server::bind();
    let (code, text) = test_mode(&config(&folder, silent.port()), &silent.port().to_string(), "1s");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("verdict: nothing could be measured: there were no requests"), "{text}");

    let port = silent.port();
    drop(silent);
    let (code, text) = test_mode(&config(&folder, port), "phi3", "1s");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&format!("no process is listening on port {port}")), "{text}");

    let (code, text) = test_mode(&config(&folder, port), "phi4", "1s");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("unknown model \"phi4\": known models are phi3"), "{text}");
}

#[test]
fn a_model_is_named_where_it_is_tested() {
    let (status, text) = run(&["run", "--test-mode"]);
    assert_eq!(status.code(), Some(2), "{text}");
    let (status, text) = run(&["run", "--model", "phi3"]);
    assert_eq!(status.code(), Some(2), "without --test-mode it would be ignored: {text}");
}
