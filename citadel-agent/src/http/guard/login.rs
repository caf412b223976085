//! Basic authentication with bcrypt hashes.
//!
//! A bcrypt hash takes some 60 ms of CPU time, which makes guessing expensive, but for this host as well. So only one is computed at a
//! time, on a separate thread; credentials that were right are recognized without one; and a client that fails repeatedly has to
//! wait, while others do not.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;

use super::bucket::Bucket;

/// Failed attempts of a client that are answered immediately; then one per interval.
const ATTEMPTS: f64 = 10.0;
const INTERVAL: Duration = Duration::from_secs(6);

/// Maximum number of clients whose failures are remembered.
const MOST: usize = 1024;

/// Result of verifying credentials.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// They belong to a user.
    Right,
    /// Missing or wrong.
    Wrong,
    /// Too many failures; the client has to wait for this number of seconds.
    TooMany(u64),
}

/// The users, and the state of verification.
#[derive(Debug)]
pub(super) struct Login {
    users: BTreeMap<String, String>,
    /// Hash that unknown names are verified against, so that they take as long.
    nobody: String,
    /// Tags of verified credentials; at most one per user.
    right: Mutex<HashSet<[u8; 32]>>,
    key: Option<hmac::Key>,
    wrong: Mutex<HashMap<Option<IpAddr>, Bucket>>,
    turn: Arc<Semaphore>,
}

impl Login {
    /// `users`: hashes by name; at least one.
    pub(super) fn new(users: BTreeMap<String, String>) -> Self {
        let nobody = users.values().next().cloned().unwrap_or_default();
        // Without a key, nothing is cached: slow but correct.
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok();
        let turn = Arc::new(Semaphore::new(1));
        Self { users, nobody, right: Mutex::default(), key, wrong: Mutex::default(), turn }
    }

    /// Verifies the value of the header field `Authorization`. `client` is delayed after failures.
    pub(super) async fn verify(&self, header: Option<&[u8]>, client: Option<IpAddr>) -> Verdict {
        let Some((name, password)) = header.and_then(credentials) else { return Verdict::Wrong };
        let tag = self.key.as_ref().map(|key| tag(key, &name, &password));
        if tag.is_some_and(|tag| lock(&self.right).contains(&tag)) {
            return Verdict::Right;
        }
        if !self.may_try(client) {
            return Verdict::TooMany(INTERVAL.as_secs());
        }
        let known = self.users.get(&name);
        let hash = known.unwrap_or(&self.nobody).clone();
        let Ok(turn) = Arc::clone(&self.turn).acquire_owned().await else { return Verdict::Wrong };
        // Held until the computation ends, even if the client has disconnected.
        let computed = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            bcrypt::verify(password, &hash).unwrap_or(false)
        });
        if computed.await.unwrap_or(false) && known.is_some() {
            if let Some(tag) = tag {
                lock(&self.right).insert(tag);
            }
            return Verdict::Right;
        }
        self.was_wrong(client);
        Verdict::Wrong
    }

    fn may_try(&self, client: Option<IpAddr>) -> bool {
        lock(&self.wrong).get_mut(&client).is_none_or(|bucket| bucket.has(Instant::now()))
    }

    fn was_wrong(&self, client: Option<IpAddr>) {
        let now = Instant::now();
        let mut wrong = lock(&self.wrong);
        if wrong.len() >= MOST && !wrong.contains_key(&client) {
            wrong.retain(|_, bucket| !bucket.is_full(now));
            if wrong.len() >= MOST {
                // More clients than this are guessing at once: one of them starts over.
                let any = wrong.keys().next().copied();
                any.map(|any| wrong.remove(&any));
            }
        }
        wrong.entry(client).or_insert_with(|| Bucket::new(ATTEMPTS, INTERVAL)).take(now);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// User name and password of basic authentication, RFC 7617.
fn credentials(header: &[u8]) -> Option<(String, Vec<u8>)> {
    let (scheme, rest) = header.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = STANDARD.decode(rest.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let name = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    Some((name, decoded[colon + 1..].to_vec()))
}

/// A keyed hash of credentials, which does not reveal them.
fn tag(key: &hmac::Key, name: &str, password: &[u8]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    context.update(&(name.len() as u64).to_be_bytes());
    context.update(name.as_bytes());
    context.update(password);
    let mut tag = [0; 32];
    tag.copy_from_slice(context.sign().as_ref());
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Login {
        let hash = bcrypt::hash_with_result("secret", 4).unwrap().format_for_version(bcrypt::Version::TwoY);
        Login::new([("alice".to_owned(), hash)].into())
    }

    fn header(name: &str, password: &str) -> Vec<u8> {
        format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))).into_bytes()
    }

    #[tokio::test]
    async fn only_the_users_password_is_right() {
        let login = login();
        let verify = async |header: &[u8]| login.verify(Some(header), None).await;
        for _ in 0..2 {
            assert_eq!(verify(&header("alice", "secret")).await, Verdict::Right);
            assert_eq!(verify(&header("alice", "Secret")).await, Verdict::Wrong);
            // The password of the hash that nobody is held against is no password of nobody.
            assert_eq!(verify(&header("bob", "secret")).await, Verdict::Wrong);
        }
        for odd in ["", "Basic", "Basic ", "Basic !!!", "Basic YWxpY2U=", "Bearer YWxpY2U6c2VjcmV0", "Basic\u{fe}"] {
            assert_eq!(verify(odd.as_bytes()).await, Verdict::Wrong, "{odd}");
        }
        assert_eq!(login.verify(None, None).await, Verdict::Wrong);
        assert_eq!(verify(b"bASIC YWxpY2U6c2VjcmV0").await, Verdict::Right);
    }

    #[tokio::test]
    async fn who_guesses_waits_and_others_do_not() {
        let login = login();
        let client = |last| Some(IpAddr::from([192, 0, 2, last]));
        let right = header("alice", "secret");
        assert_eq!(login.verify(Some(&right), client(1)).await, Verdict::Right);
        for guess in 0..10 {
            let wrong = header("alice", &guess.to_string());
            assert_eq!(login.verify(Some(&wrong), client(2)).await, Verdict::Wrong);
        }
        assert_eq!(login.verify(Some(&header("alice", "11")), client(2)).await, Verdict::TooMany(6));
        // Right credentials that are known are recognised from there too; a request without any is no guess.
        assert_eq!(login.verify(Some(&right), client(2)).await, Verdict::Right);
        assert_eq!(login.verify(None, client(2)).await, Verdict::Wrong);
        assert_eq!(login.verify(Some(&header("alice", "11")), client(3)).await, Verdict::Wrong);
    }

    #[test]
    fn memory_of_guessers_is_bounded() {
        let login = login();
        for client in 0..5000_u32 {
            login.was_wrong(Some(IpAddr::from(client.to_be_bytes())));
        }
        assert_eq!(lock(&login.wrong).len(), MOST);
    }
}
