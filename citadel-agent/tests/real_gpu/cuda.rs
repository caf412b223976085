//! A load for the GPU through the driver's own library, so that no toolkit is needed: device memory, and a kernel that
//! does nothing but spin on every SM.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use libloading::{Library, Symbol};

/// Spins for as many clock cycles as it is told. Any GPU since Turing compiles it.
const PTX: &CStr = c"
.version 6.3
.target sm_75
.address_size 64
.visible .entry spin(.param .u64 cycles)
{
    .reg .pred %more;
    .reg .u64 %r<4>;
    ld.param.u64 %r0, [cycles];
    mov.u64 %r1, %clock64;
again:
    mov.u64 %r2, %clock64;
    sub.u64 %r3, %r2, %r1;
    setp.lt.u64 %more, %r3, %r0;
    @%more bra again;
    ret;
}
";

/// About a tenth of a second.
const CYCLES: u64 = 150_000_000;

/// Blocks enough for the SMs of any GPU.
const BLOCKS: c_uint = 1024;
const THREADS: c_uint = 256;

type Handle = *mut c_void;

/// Holds `bytes` of the first GPU and keeps its SMs busy for `time`, on a thread of this process.
pub(crate) fn burn(bytes: u64, time: Duration) -> JoinHandle<()> {
    thread::spawn(move || {
        // SAFETY: the driver's library has no constructors that ask anything of us.
        let cuda = unsafe { Library::new("libcuda.so.1") }.expect("libcuda.so.1 is part of the driver");
        let cuda = Cuda(cuda);
        let mut device: c_int = 0;
        let (mut context, mut module, mut kernel): (Handle, Handle, Handle) =
            (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        let mut memory: u64 = 0;
        let mut cycles = CYCLES;
        let mut arguments = [(&raw mut cycles).cast::<c_void>()];
        // SAFETY: the signatures are those of cuda.h, and every pointer is to a place that outlives its call.
        unsafe {
            let init: Symbol<'_, unsafe extern "C" fn(c_uint) -> c_int> = cuda.get(c"cuInit");
            check("cuInit", init(0));
            let get: Symbol<'_, unsafe extern "C" fn(*mut c_int, c_int) -> c_int> = cuda.get(c"cuDeviceGet");
            check("cuDeviceGet", get(&raw mut device, 0));
            let retain: Symbol<'_, unsafe extern "C" fn(*mut Handle, c_int) -> c_int> =
                cuda.get(c"cuDevicePrimaryCtxRetain");
            check("cuDevicePrimaryCtxRetain", retain(&raw mut context, device));
            let current: Symbol<'_, unsafe extern "C" fn(Handle) -> c_int> = cuda.get(c"cuCtxSetCurrent");
            check("cuCtxSetCurrent", current(context));
            let alloc: Symbol<'_, unsafe extern "C" fn(*mut u64, usize) -> c_int> = cuda.get(c"cuMemAlloc_v2");
            check("cuMemAlloc", alloc(&raw mut memory, bytes as usize));
            let load: Symbol<'_, unsafe extern "C" fn(*mut Handle, *const c_char) -> c_int> =
                cuda.get(c"cuModuleLoadData");
            check("cuModuleLoadData", load(&raw mut module, PTX.as_ptr()));
            let function: Symbol<'_, unsafe extern "C" fn(*mut Handle, Handle, *const c_char) -> c_int> =
                cuda.get(c"cuModuleGetFunction");
            check("cuModuleGetFunction", function(&raw mut kernel, module, c"spin".as_ptr()));
            let launch: Symbol<'_, Launch> = cuda.get(c"cuLaunchKernel");
            let wait: Symbol<'_, unsafe extern "C" fn() -> c_int> = cuda.get(c"cuCtxSynchronize");
            let begin = Instant::now();
            while begin.elapsed() < time {
                let arguments = arguments.as_mut_ptr();
                let none = ptr::null_mut();
                check("cuLaunchKernel", launch(kernel, BLOCKS, 1, 1, THREADS, 1, 1, 0, none, arguments, none.cast()));
                check("cuCtxSynchronize", wait());
            }
            let free: Symbol<'_, unsafe extern "C" fn(u64) -> c_int> = cuda.get(c"cuMemFree_v2");
            check("cuMemFree", free(memory));
        }
    })
}

/// `cuLaunchKernel` of cuda.h.
type Launch = unsafe extern "C" fn(
    Handle,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    Handle,
    *mut *mut c_void,
    *mut *mut c_void,
) -> c_int;

struct Cuda(Library);

impl Cuda {
    /// # Safety
    /// `T` is the function's signature in cuda.h.
    unsafe fn get<T>(&self, name: &CStr) -> Symbol<'_, T> {
        // SAFETY: the caller's promise.
        unsafe { self.0.get(name.to_bytes_with_nul()) }.unwrap_or_else(|error| panic!("{error}"))
    }
}

fn check(call: &str, code: c_int) {
    assert_eq!(code, 0, "{call} failed");
}
