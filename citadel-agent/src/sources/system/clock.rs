//! The host's clock and its synchronization (`adjtimex(2)`, `Documentation/ABI/testing/sysfs-devices-clocksource`).

use std::ffi::CStr;
use std::io::ErrorKind;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{numbered, outcome};
use crate::host::Roots;
use crate::host::files::read_value;
use crate::host::skipped::Skipped;
use crate::metrics::catalogue::Desc;
use crate::metrics::catalogue::system::{
    CLOCKSOURCE_AVAILABLE, CLOCKSOURCE_CURRENT, TIME, TIME_ZONE, TIMEX_CONSTANT, TIMEX_ESTERROR, TIMEX_FREQUENCY,
    TIMEX_MAXERROR, TIMEX_OFFSET, TIMEX_PPS_CALIBRATIONS, TIMEX_PPS_ERRORS, TIMEX_PPS_FREQUENCY, TIMEX_PPS_JITTER,
    TIMEX_PPS_JITTER_COUNT, TIMEX_PPS_SHIFT, TIMEX_PPS_STABILITY, TIMEX_PPS_STABILITY_EXCEEDED, TIMEX_STATUS,
    TIMEX_SYNC_STATUS, TIMEX_TAI_OFFSET, TIMEX_TICK,
};
use crate::metrics::family::{Page, Value};
use crate::sources::Reading;

pub(in crate::sources) fn read_time(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    page.add(&TIME, [], Value::Float(now.as_secs_f64()));
    if let Some((zone, offset)) = zone(now.as_secs()) {
        super::add_signed(page, &TIME_ZONE, [&zone], offset);
    }
    let devices = numbered(&roots.sys.join("devices/system/clocksource"), "clocksource", skipped);
    for (number, path) in devices.unwrap_or_default() {
        let device = number.to_string();
        let available = read_value(&path.join("available_clocksource")).unwrap_or_default();
        for source in available.split_ascii_whitespace() {
            page.add(&CLOCKSOURCE_AVAILABLE, [&device, source], Value::Integer(1));
        }
        if let Some(source) = read_value(&path.join("current_clocksource")) {
            page.add(&CLOCKSOURCE_CURRENT, [&device, &source], Value::Integer(1));
        }
    }
    outcome(true)
}

/// The local time zone at a time, and its offset from UTC in seconds.
fn zone(seconds: u64) -> Option<(String, i64)> {
    let time = libc::time_t::try_from(seconds).ok()?;
    // SAFETY: numbers and one pointer, for which zeros are valid.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both arguments are valid for the call. The call reads the environment, which the agent never changes.
    if unsafe { libc::localtime_r(&raw const time, &raw mut local) }.is_null() || local.tm_zone.is_null() {
        return None;
    }
    // SAFETY: the C library's name of the zone is NUL-terminated and valid until the process sets another zone, which
    // this one never does.
    let name = unsafe { CStr::from_ptr(local.tm_zone) };
    Some((name.to_string_lossy().into_owned(), local.tm_gmtoff))
}

/// The kernel's frequencies are parts per million with a 16-bit fraction.
const SCALED_PPM: f64 = 65536.0 * 1e6;

pub(in crate::sources) fn read_timex(page: &mut Page) -> Reading {
    // SAFETY: plain numbers, for which zeros are valid; modes = 0 only reads.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the argument points to a valid struct.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    if state < 0 {
        let error = std::io::Error::last_os_error();
        // A container or a service manager may forbid even reading.
        return if error.kind() == ErrorKind::PermissionDenied { outcome(false) } else { Err(error.into()) };
    }
    let nanoseconds = timex.status & libc::STA_NANO != 0;
    let resolution = if nanoseconds { 1e9 } else { 1e6 };
    let values: [(&'static Desc, f64); 17] = [
        (&TIMEX_SYNC_STATUS, if state == libc::TIME_ERROR { 0.0 } else { 1.0 }),
        (&TIMEX_OFFSET, timex.offset as f64 / resolution),
        (&TIMEX_FREQUENCY, 1.0 + timex.freq as f64 / SCALED_PPM),
        (&TIMEX_MAXERROR, timex.maxerror as f64 / 1e6),
        (&TIMEX_ESTERROR, timex.esterror as f64 / 1e6),
        (&TIMEX_STATUS, f64::from(timex.status)),
        (&TIMEX_CONSTANT, timex.constant as f64),
        (&TIMEX_TICK, timex.tick as f64 / 1e6),
        (&TIMEX_PPS_FREQUENCY, timex.ppsfreq as f64 / SCALED_PPM),
        (&TIMEX_PPS_JITTER, timex.jitter as f64 / resolution),
        (&TIMEX_PPS_SHIFT, f64::from(timex.shift)),
        (&TIMEX_PPS_STABILITY, timex.stabil as f64 / SCALED_PPM),
        (&TIMEX_PPS_JITTER_COUNT, timex.jitcnt as f64),
        (&TIMEX_PPS_CALIBRATIONS, timex.calcnt as f64),
        (&TIMEX_PPS_ERRORS, timex.errcnt as f64),
        (&TIMEX_PPS_STABILITY_EXCEEDED, timex.stbcnt as f64),
        (&TIMEX_TAI_OFFSET, f64::from(timex.tai)),
    ];
    for (desc, value) in values {
        page.add(desc, [], Value::Float(value));
    }
    outcome(true)
}
