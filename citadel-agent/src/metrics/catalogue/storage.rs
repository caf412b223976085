//! Disks and file systems: `/metrics/storage`.

use super::Desc;

catalogue! {
    Storage;
}
