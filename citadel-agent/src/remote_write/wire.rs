//! The messages of both protocols, as far as the agent sends them, written by hand so that the build needs no `protoc`:
//! [`prometheus.WriteRequest`](https://prometheus.io/docs/specs/prw/remote_write_spec/) and
//! [`io.prometheus.write.v2.Request`](https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/).
//!
//! Samples and histograms have the same fields in both; what 1.0 lacks is 0 there, and then protobuf leaves it out.

use prost::Message;

/// The bits that mean "this series ended": a NaN of its own, which receivers tell from every other.
pub const STALE: u64 = 0x7ff0_0000_0000_0002;

/// The one NaN that stands for all others.
pub const NAN: u64 = 0x7ff8_0000_0000_0001;

/// A number at a time.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Sample {
    /// The number.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// Milliseconds since the epoch.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
    /// 2.0: since when it counts, in milliseconds since the epoch; 0 where nobody knows.
    #[prost(int64, tag = "3")]
    pub start_timestamp: i64,
}

/// A native histogram at a time.
#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    /// Number of observations (the first of a oneof, hence written even when it is 0).
    #[prost(uint64, optional, tag = "1")]
    pub count_int: Option<u64>,
    /// Their sum; [`STALE`] in the marker.
    #[prost(double, tag = "3")]
    pub sum: f64,
    /// Buckets an octave, as a power of two.
    #[prost(sint32, tag = "4")]
    pub schema: i32,
    /// The widest value in the zero bucket.
    #[prost(double, tag = "5")]
    pub zero_threshold: f64,
    /// Observations in the zero bucket (of a oneof as well).
    #[prost(uint64, optional, tag = "6")]
    pub zero_count_int: Option<u64>,
    /// Runs of buckets.
    #[prost(message, repeated, tag = "11")]
    pub positive_spans: Vec<BucketSpan>,
    /// Each bucket's count, as the difference to the bucket before.
    #[prost(sint64, repeated, tag = "12")]
    pub positive_deltas: Vec<i64>,
    /// Milliseconds since the epoch.
    #[prost(int64, tag = "15")]
    pub timestamp: i64,
    /// 2.0: since when it counts; 0 where nobody knows.
    #[prost(int64, tag = "17")]
    pub start_timestamp: i64,
}

/// A run of native buckets.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct BucketSpan {
    /// Buckets left out since the last run; the first run's is the index of its first bucket.
    #[prost(sint32, tag = "1")]
    pub offset: i32,
    /// Buckets in the run.
    #[prost(uint32, tag = "2")]
    pub length: u32,
}

/// Remote write 1.0.
pub mod v1 {
    use prost::Message;

    use super::{Histogram, Sample};

    /// `prometheus.WriteRequest`.
    #[derive(Clone, PartialEq, Message)]
    pub struct WriteRequest {
        /// The series.
        #[prost(message, repeated, tag = "1")]
        pub timeseries: Vec<TimeSeries>,
    }

    /// `prometheus.TimeSeries`.
    #[derive(Clone, PartialEq, Message)]
    pub struct TimeSeries {
        /// Sorted by name, `__name__` among them.
        #[prost(message, repeated, tag = "1")]
        pub labels: Vec<Label>,
        /// The series' numbers.
        #[prost(message, repeated, tag = "2")]
        pub samples: Vec<Sample>,
        /// Or its histograms: Prometheus takes these in 1.0 as well, since version 2.40.
        #[prost(message, repeated, tag = "4")]
        pub histograms: Vec<Histogram>,
    }

    /// `prometheus.Label`.
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct Label {
        /// Its name.
        #[prost(string, tag = "1")]
        pub name: String,
        /// Its value, never empty.
        #[prost(string, tag = "2")]
        pub value: String,
    }
}

/// Remote write 2.0.
pub mod v2 {
    use prost::Message;

    use super::{Histogram, Sample};

    /// `io.prometheus.write.v2.Request`.
    #[derive(Clone, PartialEq, Message)]
    pub struct Request {
        /// Every string of the request, once; the first is empty.
        #[prost(string, repeated, tag = "4")]
        pub symbols: Vec<String>,
        /// The series.
        #[prost(message, repeated, tag = "5")]
        pub timeseries: Vec<TimeSeries>,
    }

    /// `io.prometheus.write.v2.TimeSeries`.
    #[derive(Clone, PartialEq, Message)]
    pub struct TimeSeries {
        /// Names and values in turn, as positions in the symbols, sorted by name.
        #[prost(uint32, repeated, tag = "1")]
        pub labels_refs: Vec<u32>,
        /// The series' numbers.
        #[prost(message, repeated, tag = "2")]
        pub samples: Vec<Sample>,
        /// Or its histograms.
        #[prost(message, repeated, tag = "3")]
        pub histograms: Vec<Histogram>,
        /// What the metric is.
        #[prost(message, optional, tag = "5")]
        pub metadata: Option<Metadata>,
        /// Since when the series counts, where release candidates of 2.0 had it; receivers of the final protocol skip it
        /// and read it in each sample.
        #[prost(int64, tag = "6")]
        pub created_timestamp: i64,
    }

    /// `io.prometheus.write.v2.Metadata`.
    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    pub struct Metadata {
        /// Its type.
        #[prost(enumeration = "MetricType", tag = "1")]
        pub r#type: i32,
        /// HELP, as a position in the symbols.
        #[prost(uint32, tag = "3")]
        pub help_ref: u32,
        /// The unit, likewise; 0 for none.
        #[prost(uint32, tag = "4")]
        pub unit_ref: u32,
    }

    /// `io.prometheus.write.v2.Metadata.MetricType`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, prost::Enumeration)]
    #[repr(i32)]
    pub enum MetricType {
        /// Nobody knows.
        Unspecified = 0,
        /// Only grows.
        Counter = 1,
        /// Goes up and down.
        Gauge = 2,
        /// A distribution.
        Histogram = 3,
        /// Quantiles that the source has computed.
        Summary = 5,
    }
}
