//! Join: inventory x samples -> what each model has. Pure: no I/O, no clocks, no threads.

pub mod gpu;
