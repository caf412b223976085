//! The messages of both protocols, as far as the agent sends them, written by hand so that the build needs no `protoc`.

/// [OTLP](https://github.com/open-telemetry/opentelemetry-proto/tree/main/opentelemetry/proto), `ExportLogsServiceRequest`.
pub mod otlp {
    use prost::{Message, Oneof};

    /// A request.
    #[derive(Clone, PartialEq, Message)]
    pub struct Request {
        /// By who wrote them.
        #[prost(message, repeated, tag = "1")]
        pub resource_logs: Vec<ResourceLogs>,
    }

    /// Entries of one resource.
    #[derive(Clone, PartialEq, Message)]
    pub struct ResourceLogs {
        /// Who wrote them.
        #[prost(message, optional, tag = "1")]
        pub resource: Option<Resource>,
        /// By what collected them: one.
        #[prost(message, repeated, tag = "2")]
        pub scope_logs: Vec<ScopeLogs>,
    }

    /// Who writes.
    #[derive(Clone, PartialEq, Message)]
    pub struct Resource {
        /// What is known of it.
        #[prost(message, repeated, tag = "1")]
        pub attributes: Vec<KeyValue>,
    }

    /// Entries that one program collected.
    #[derive(Clone, PartialEq, Message)]
    pub struct ScopeLogs {
        /// The program.
        #[prost(message, optional, tag = "1")]
        pub scope: Option<Scope>,
        /// The entries.
        #[prost(message, repeated, tag = "2")]
        pub log_records: Vec<LogRecord>,
    }

    /// A program that collects.
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
        /// Nanoseconds since the epoch.
        #[prost(fixed64, tag = "1")]
        pub time_unix_nano: u64,
        /// 1 to 24.
        #[prost(int32, tag = "2")]
        pub severity_number: i32,
        /// The same as text.
        #[prost(string, tag = "3")]
        pub severity_text: String,
        /// What it says.
        #[prost(message, optional, tag = "5")]
        pub body: Option<AnyValue>,
        /// What is known of it.
        #[prost(message, repeated, tag = "6")]
        pub attributes: Vec<KeyValue>,
        /// When it was read.
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
        /// It.
        #[prost(oneof = "Value", tags = "1, 3")]
        pub value: Option<Value>,
    }

    /// What a value can be.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Value {
        /// Text.
        #[prost(string, tag = "1")]
        Text(String),
        /// A whole number.
        #[prost(int64, tag = "3")]
        Integer(i64),
    }

    /// The answer.
    #[derive(Clone, PartialEq, Message)]
    pub struct Response {
        /// What was not taken.
        #[prost(message, optional, tag = "1")]
        pub partial_success: Option<PartialSuccess>,
    }

    /// What was not taken.
    #[derive(Clone, PartialEq, Message)]
    pub struct PartialSuccess {
        /// So many entries.
        #[prost(int64, tag = "1")]
        pub rejected_log_records: i64,
        /// Why.
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
        /// By their labels.
        #[prost(message, repeated, tag = "1")]
        pub streams: Vec<Stream>,
    }

    /// Entries of the same labels.
    #[derive(Clone, PartialEq, Message)]
    pub struct Stream {
        /// `{name="value", ...}`
        #[prost(string, tag = "1")]
        pub labels: String,
        /// In their order.
        #[prost(message, repeated, tag = "2")]
        pub entries: Vec<Line>,
    }

    /// An entry.
    #[derive(Clone, PartialEq, Message)]
    pub struct Line {
        /// When.
        #[prost(message, optional, tag = "1")]
        pub timestamp: Option<Timestamp>,
        /// What it says.
        #[prost(string, tag = "2")]
        pub line: String,
        /// What is known of it.
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
