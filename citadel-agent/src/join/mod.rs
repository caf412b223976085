//! Joins inventory and samples: the resources of each model. Pure: no I/O, clocks or threads.

pub mod gpu;
