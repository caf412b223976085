//! systemd units and the health of models: `/metrics/services`.

use super::Desc;

catalogue! {
    Services;
}
