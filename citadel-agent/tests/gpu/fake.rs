//! The fake driver refuses what a driver refuses: else tests against it would prove nothing.

use std::mem::zeroed;
use std::ptr;

use fake_nvml::hosts::{h100, host};
use fake_nvml::install::Installed;
use nvml_wrapper_sys::bindings::{
    NvmlLib, nvmlDevice_t, nvmlFieldValue_t, nvmlGpmSupport_t, nvmlMarginTemperature_t, nvmlMemory_v2_t,
    nvmlProcessInfo_t,
};

const SUCCESS: u32 = 0;
const UNINITIALIZED: u32 = 1;
const INVALID_ARGUMENT: u32 = 2;
const NOT_SUPPORTED: u32 = 3;
const INSUFFICIENT_SIZE: u32 = 7;
const VERSION_MISMATCH: u32 = 25;

#[test]
fn versions_sizes_and_order_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Installed::new(folder.path(), &host(vec![h100(0, &[(1, 1, 1), (2, 2, 2)])]), &["nvmlDeviceGetName"]);
    let fake = fake.unwrap();
    // SAFETY: a library of ours, and calls of it as NVIDIA's header has them, with pointers that outlive each.
    unsafe {
        let lib = NvmlLib::new(fake.library()).unwrap();
        let mut count = 0;
        assert_eq!(lib.nvmlDeviceGetCount_v2(&raw mut count), UNINITIALIZED);
        assert_eq!(lib.nvmlInit_v2(), SUCCESS);
        assert!(fake.is_open());
        let mut device: nvmlDevice_t = ptr::null_mut();
        assert_eq!(lib.nvmlDeviceGetHandleByIndex_v2(1, &raw mut device), INVALID_ARGUMENT);
        assert_eq!(lib.nvmlDeviceGetHandleByIndex_v2(0, &raw mut device), SUCCESS);

        let mut memory: nvmlMemory_v2_t = zeroed();
        assert_eq!(lib.nvmlDeviceGetMemoryInfo_v2(device, &raw mut memory), VERSION_MISMATCH);
        memory.version = (size_of::<nvmlMemory_v2_t>() | 2 << 24) as u32;
        assert_eq!(lib.nvmlDeviceGetMemoryInfo_v2(device, &raw mut memory), SUCCESS);
        let mut margin: nvmlMarginTemperature_t = zeroed();
        assert_eq!(lib.nvmlDeviceGetMarginTemperature(device, &raw mut margin), VERSION_MISMATCH);
        let mut support: nvmlGpmSupport_t = zeroed();
        assert_eq!(lib.nvmlGpmQueryDeviceSupport(device, &raw mut support), VERSION_MISMATCH);

        // Too small a list gets the number that it would take, and no entries.
        let mut list: [nvmlProcessInfo_t; 2] = zeroed();
        let mut room = 1;
        let small = lib.nvmlDeviceGetComputeRunningProcesses_v3(device, &raw mut room, list.as_mut_ptr());
        assert_eq!((small, room, list[0].pid), (INSUFFICIENT_SIZE, 2, 0));
        let whole = lib.nvmlDeviceGetComputeRunningProcesses_v3(device, &raw mut room, list.as_mut_ptr());
        assert_eq!((whole, room, list[1].pid), (SUCCESS, 2, 2));

        // One verdict a field, and one for the call.
        let mut fields: [nvmlFieldValue_t; 2] = zeroed();
        (fields[0].fieldId, fields[1].fieldId) = (94, 9999);
        assert_eq!(lib.nvmlDeviceGetFieldValues(device, 0, fields.as_mut_ptr()), INVALID_ARGUMENT);
        assert_eq!(lib.nvmlDeviceGetFieldValues(device, 2, fields.as_mut_ptr()), SUCCESS);
        assert_eq!((fields[0].nvmlReturn, fields[0].value.ullVal), (SUCCESS, 12));
        assert_eq!(fields[1].nvmlReturn, NOT_SUPPORTED);

        assert!(lib.nvmlDeviceGetName.is_err(), "a function that is left out is not found");
        assert_eq!(lib.nvmlShutdown(), SUCCESS);
        assert_eq!(lib.nvmlShutdown(), UNINITIALIZED);
        assert!(!fake.is_open());
    }
}
