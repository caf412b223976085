//! Shared parts of the integration tests: servers that know the truth, and scrape matchers.
