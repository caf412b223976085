//! The NVIDIA GPUs on the PCI bus, from sysfs: to know that there are any before calling NVML, and to avoid waking
//! suspended ones.

use std::fs;
use std::path::Path;

use crate::host::files::read_value;

/// `PCI_VENDOR_ID_NVIDIA`.
const NVIDIA: u32 = 0x10de;
/// Base class of display controllers; data centre GPUs are "3D controllers" (0x0302) of it.
const DISPLAY: u32 = 0x03;

/// The PCI address as in sysfs, `0000:3b:00.0`. GPUs are function 0.
#[must_use]
pub fn address(domain: u32, bus: u32, device: u32) -> String {
    format!("{domain:04x}:{bus:02x}:{device:02x}.0")
}

/// Addresses of the NVIDIA GPUs of this host; empty if sysfs cannot be read.
#[must_use]
pub fn read_gpus(sys: &Path) -> Vec<String> {
    let Ok(devices) = fs::read_dir(sys.join("bus/pci/devices")) else { return Vec::new() };
    let mut gpus: Vec<String> = devices
        .flatten()
        .filter(|device| {
            let number = |name| read_value(&device.path().join(name)).and_then(|text| parse_hex(&text));
            number("vendor") == Some(NVIDIA) && number("class").is_some_and(|class| class >> 16 == DISPLAY)
        })
        .filter_map(|device| device.file_name().into_string().ok())
        .collect();
    gpus.sort_unstable();
    gpus
}

/// Whether a GPU is suspended (`Documentation/ABI/testing/sysfs-devices-power`): any NVML call would wake it.
#[must_use]
pub fn is_suspended(sys: &Path, address: &str) -> bool {
    let status = sys.join("bus/pci/devices").join(address).join("power/runtime_status");
    read_value(&status).is_some_and(|status| matches!(status.as_str(), "suspended" | "suspending"))
}

/// Whether a GPU is intended for NVIDIA's driver: bound to it, or to none (as after a failed initialization). One that
/// is passed through to a virtual machine is bound to another driver, or absent from NVML on purpose.
#[must_use]
pub fn is_nvidias(sys: &Path, address: &str) -> bool {
    let driver = fs::read_link(sys.join("bus/pci/devices").join(address).join("driver"));
    driver.map_or(true, |link| link.file_name().is_some_and(|name| name == "nvidia"))
}

fn parse_hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(sys: &Path, address: &str, vendor: &str, class: &str, status: &str) {
        let folder = sys.join("bus/pci/devices").join(address);
        fs::create_dir_all(folder.join("power")).unwrap();
        fs::write(folder.join("vendor"), vendor).unwrap();
        fs::write(folder.join("class"), class).unwrap();
        fs::write(folder.join("power/runtime_status"), status).unwrap();
    }

    #[test]
    fn gpus_are_told_from_their_audio_functions_and_from_others() {
        let sys = tempfile::tempdir().unwrap();
        device(sys.path(), "0000:3b:00.0", "0x10de\n", "0x030200\n", "active\n");
        device(sys.path(), "0000:01:00.0", "0x10de\n", "0x030000\n", "suspended\n");
        device(sys.path(), "0000:01:00.1", "0x10de\n", "0x040300\n", "suspended\n");
        device(sys.path(), "0000:00:02.0", "0x8086\n", "0x030000\n", "active\n");
        device(sys.path(), "0000:00:03.0", "junk", "", "");
        assert_eq!(read_gpus(sys.path()), ["0000:01:00.0", "0000:3b:00.0"]);
        assert!(is_suspended(sys.path(), "0000:01:00.0"));
        assert!(!is_suspended(sys.path(), "0000:3b:00.0") && !is_suspended(sys.path(), "0000:ff:00.0"));
        assert!(read_gpus(&sys.path().join("none")).is_empty());
    }

    #[test]
    fn gpus_of_other_drivers_are_not_expected_in_nvml() {
        let sys = tempfile::tempdir().unwrap();
        for (address, driver) in
            [("0000:01:00.0", Some("nvidia")), ("0000:02:00.0", Some("vfio-pci")), ("0000:03:00.0", None)]
        {
            device(sys.path(), address, "0x10de\n", "0x030200\n", "active\n");
            if let Some(driver) = driver {
                let link = sys.path().join("bus/pci/devices").join(address).join("driver");
                std::os::unix::fs::symlink(format!("../../../../bus/pci/drivers/{driver}"), link).unwrap();
            }
        }
        let expected = ["0000:01:00.0", "0000:02:00.0", "0000:03:00.0"].map(|address| is_nvidias(sys.path(), address));
        assert_eq!(expected, [true, false, true]);
    }
}
