//! The messages of both protocols, as far as the agent uses them, written by hand so that the build needs no `protoc`.

/// [OTLP](https://github.com/open-telemetry/opentelemetry-proto/tree/main/opentelemetry/proto), `ExportLogsServiceRequest`.
pub mod otlp {
    use prost::{Message, Oneof};

    /// A request.
    #[derive(Clone, PartialEq, Message)]
    pub struct Request {
        /// Entries by origin.
        #[prost(message, repeated, tag = "1")]
        pub resource_logs: Vec<ResourceLogs>,
    }

    /// Entries of one resource.
    #[derive(Clone, PartialEq, Message)]
    pub struct ResourceLogs {
        /// The origin of the entries.
        #[prost(message, optional, tag = "1")]
        pub resource: Option<Resource>,
        /// By the program that collected them: always one.
        #[prost(message, repeated, tag = "2")]
        pub scope_logs: Vec<ScopeLogs>,
    }

    /// The origin of entries.
    #[derive(Clone, PartialEq, Message)]
    pub struct Resource {
        /// Its attributes.
        #[prost(message, repeated, tag = "1")]
        pub attributes: Vec<KeyValue>,
    }

    /// Entries collected by one program.
    #[derive(Clone, PartialEq, Message)]
    pub struct ScopeLogs {
        /// The program.
        #[prost(message, optional, tag = "1")]
        pub scope: Option<Scope>,
        /// The entries.
        #[prost(message, repeated, tag = "2")]
        pub log_records: Vec<LogRecord>,
    }

    /// A program that collects entries.
    #[derive(Clone, PartialEq, Message)]
    pub struct Scope {
        /// Its name.
        #[prost(string, tag = "1")]
        pub name: String,
        /// Its version.
        #[prost(string, tag = "2")]
        pub version: String,
    }

    /// An entry.
    #[derive(Clone, PartialEq, Message)]
    pub struct LogRecord {
        /// Nanoseconds since 1970.
        #[prost(fixed64, tag = "1")]
        pub time_unix_nano: u64,
        /// 1 to 24.
        #[prost(int32, tag = "2")]
        pub severity_number: i32,
        /// The same as text.
        #[prost(string, tag = "3")]
        pub severity_text: String,
        /// Its text.
        #[prost(message, optional, tag = "5")]
        pub body: Option<AnyValue>,
        /// Its attributes.
        #[prost(message, repeated, tag = "6")]
        pub attributes: Vec<KeyValue>,
        /// When it was read, in nanoseconds since 1970.
        #[prost(fixed64, tag = "11")]
        pub observed_time_unix_nano: u64,
    }

    /// A name and a value.
    #[derive(Clone, PartialEq, Message)]
    pub struct KeyValue {
        /// The name.
        #[prost(string, tag = "1")]
        pub key: String,
        /// The value.
        #[prost(message, optional, tag = "2")]
        pub value: Option<AnyValue>,
    }

    /// A value.
    #[derive(Clone, PartialEq, Message)]
    pub struct AnyValue {
        /// The value.
        #[prost(oneof = "Value", tags = "1, 3")]
        pub value: Option<Value>,
    }

    /// The variants of a value.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Value {
        /// Text.
        #[prost(string, tag = "1")]
        Text(String),
        /// A whole number.
        #[prost(int64, tag = "3")]
        Integer(i64),
    }

    /// The response.
    #[derive(Clone, PartialEq, Message)]
    pub struct Response {
        /// What was rejected.
        #[prost(message, optional, tag = "1")]
        pub partial_success: Option<PartialSuccess>,
    }

    /// What was rejected.
    #[derive(Clone, PartialEq, Message)]
    pub struct PartialSuccess {
        /// Number of rejected entries.
        #[prost(int64, tag = "1")]
        pub rejected_log_records: i64,
        /// The reason.
        #[prost(string, tag = "2")]
        pub error_message: String,
    }
}

/// [Loki](https://github.com/grafana/loki/blob/main/pkg/push/push.proto), `logproto.PushRequest`.
pub mod loki {
    use prost::Message;

    use crate::metrics::protobuf::Timestamp;

    /// A request.
    #[derive(Clone, PartialEq, Message)]
    pub struct Push {
        /// Entries by label set.
        #[prost(message, repeated, tag = "1")]
        pub streams: Vec<Stream>,
    }

    /// Entries with the same labels.
    #[derive(Clone, PartialEq, Message)]
    pub struct Stream {
        /// `{name="value", ...}`
        #[prost(string, tag = "1")]
        pub labels: String,
        /// The entries, in order.
        #[prost(message, repeated, tag = "2")]
        pub entries: Vec<Line>,
    }

    /// An entry.
    #[derive(Clone, PartialEq, Message)]
    pub struct Line {
        /// Its time.
        #[prost(message, optional, tag = "1")]
        pub timestamp: Option<Timestamp>,
        /// Its text.
        #[prost(string, tag = "2")]
        pub line: String,
        /// Its attributes.
        #[prost(message, repeated, tag = "3")]
        pub structured_metadata: Vec<Pair>,
    }

    /// A name and a value.
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct Pair {
        /// The name.
        #[prost(string, tag = "1")]
        pub name: String,
        /// The value.
        #[prost(string, tag = "2")]
        pub value: String,
    }
}
