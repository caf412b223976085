//! The host: `/metrics/system`, under the names of node_exporter.

use super::Desc;

catalogue! {
    System;
}
