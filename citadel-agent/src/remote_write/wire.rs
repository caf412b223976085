//! The protobuf messages of both protocols, as far as the agent sends them, written by hand so that the build does not
//! need `protoc`: [`prometheus.WriteRequest`](https://prometheus.io/docs/specs/prw/remote_write_spec/) and
//! [`io.prometheus.write.v2.Request`](https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/).
//!
//! Samples and histograms have the same fields in both; fields that 1.0 lacks are 0 there, which protobuf omits.

use prost::Message;

/// The bits of the stale marker: a special NaN.
pub const STALE: u64 = 0x7ff0_0000_0000_0002;

/// The NaN for all other cases.
pub const NAN: u64 = 0x7ff8_0000_0000_0001;

/// A number with a timestamp.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Sample {
    /// The number.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// Milliseconds since the epoch.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
    /// 2.0: start timestamp, in milliseconds since the epoch; 0 if unknown.
    #[prost(int64, tag = "3")]
    pub start_timestamp: i64,
}

/// A native histogram with a timestamp.
#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    /// Number of observations (a oneof member, so it is written even if 0).
    #[prost(uint64, optional, tag = "1")]
    pub count_int: Option<u64>,
    /// Sum of the observations; [`STALE`] in a stale marker.
    #[prost(double, tag = "3")]
    pub sum: f64,
    /// log2 of the number of buckets per power of two.
    #[prost(sint32, tag = "4")]
    pub schema: i32,
    /// Upper bound of the zero bucket.
    #[prost(double, tag = "5")]
    pub zero_threshold: f64,
    /// Observations in the zero bucket (also a oneof member).
    #[prost(uint64, optional, tag = "6")]
    pub zero_count_int: Option<u64>,
    /// Spans of buckets.
    #[prost(message, repeated, tag = "11")]
    pub positive_spans: Vec<BucketSpan>,
    /// Each bucket's count as the difference to the previous one.
    #[prost(sint64, repeated, tag = "12")]
    pub positive_deltas: Vec<i64>,
    /// Milliseconds since the epoch.
    #[prost(int64, tag = "15")]
    pub timestamp: i64,
    /// 2.0: start timestamp; 0 if unknown.
    #[prost(int64, tag = "17")]
    pub start_timestamp: i64,
}

/// A span of native buckets.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct BucketSpan {
    /// Empty buckets since the last span; for the first span, the index of its first bucket.
    #[prost(sint32, tag = "1")]
    pub offset: i32,
    /// Number of buckets in the span.
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
        /// Sorted by name, including `__name__`.
        #[prost(message, repeated, tag = "1")]
        pub labels: Vec<Label>,
        /// The series' numbers.
        #[prost(message, repeated, tag = "2")]
        pub samples: Vec<Sample>,
        /// Its histograms, which Prometheus accepts in 1.0 too, since version 2.40.
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
        /// The unique strings of the request; the first is empty.
        #[prost(string, repeated, tag = "4")]
        pub symbols: Vec<String>,
        /// The series.
        #[prost(message, repeated, tag = "5")]
        pub timeseries: Vec<TimeSeries>,
    }

    /// `io.prometheus.write.v2.TimeSeries`.
    #[derive(Clone, PartialEq, Message)]
    pub struct TimeSeries {
        /// Names and values alternating, as positions in the symbols, sorted by name.
        #[prost(uint32, repeated, tag = "1")]
        pub labels_refs: Vec<u32>,
        /// The series' numbers.
        #[prost(message, repeated, tag = "2")]
        pub samples: Vec<Sample>,
        /// Its histograms.
        #[prost(message, repeated, tag = "3")]
        pub histograms: Vec<Histogram>,
        /// Metadata of the metric.
        #[prost(message, optional, tag = "5")]
        pub metadata: Option<Metadata>,
        /// Start timestamp of the series, at the position of release candidates of 2.0; receivers of the final version
        /// ignore it and use that of each sample.
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
        /// Unit, as a position in the symbols; 0 for none.
        #[prost(uint32, tag = "4")]
        pub unit_ref: u32,
    }

    /// `io.prometheus.write.v2.Metadata.MetricType`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, prost::Enumeration)]
    #[repr(i32)]
    pub enum MetricType {
        /// Unknown.
        Unspecified = 0,
        /// Monotonic.
        Counter = 1,
        /// Can increase and decrease.
        Gauge = 2,
        /// A histogram.
        Histogram = 3,
        /// Quantiles computed by the source.
        Summary = 5,
    }
}
