//! GPUs: `/metrics/gpu`.

use super::Desc;

catalogue! {
    Gpu;
}
