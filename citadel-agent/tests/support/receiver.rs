//! A receiver of remote write or logs that records every request, and answers as it is told.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use citadel_agent::remote_write::wire::{Histogram, v1, v2};
use prost::Message as _;

/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// One sample as it arrived.
#[derive(Clone, PartialEq, Debug)]
pub struct Got {
    /// In the order of the request.
    pub labels: Vec<(String, String)>,
    pub value: Value,
    pub timestamp: i64,
    /// 2.0 only; of the sample itself, and of the series.
    pub start: (i64, i64),
    /// 2.0 only: type, help, unit.
    pub metadata: Option<(i32, String, String)>,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// By its bits, because NaNs differ.
    Number(u64),
    Histogram(Histogram),
}

impl Got {
    /// The series, as PromQL writes it.
    pub fn series(&self) -> String {
        let labels = self.labels.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect();
        citadel_agent::remote_write::series::display(&labels)
    }

    pub fn name(&self) -> &str {
        self.label("__name__").expect("a name")
    }

    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.as_str())
    }

    pub fn number(&self) -> f64 {
        match self.value {
            Value::Number(bits) => f64::from_bits(bits),
            Value::Histogram(_) => panic!("{} is a histogram", self.series()),
        }
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    pub at: Instant,
    /// The first line.
    pub line: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// As it came.
    pub body: Vec<u8>,
    /// 2.0 only.
    pub symbols: Vec<String>,
    pub samples: Vec<Got>,
}

impl Request {
    pub fn is_v2(&self) -> bool {
        self.headers["content-type"].contains("io.prometheus.write.v2.Request")
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What to answer.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A 204, with the headers of 2.0 where the request is of 2.0.
    Taken,
    /// This status, header lines (each ended by CRLF) and body.
    Status(u16, &'static str, &'static str),
    /// This status and body.
    Body(u16, Vec<u8>),
    /// Nothing, until the other side gives up.
    Hang,
    /// Half of an answer.
    Cut,
    /// The connection is closed without one.
    Close,
}

type Script = dyn FnMut(&Request) -> Reply + Send;

/// The receiver. It ends with this value, and [`Receiver::stop`] ends it before.
pub struct Receiver {
    pub addr: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stopped: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

impl Receiver {
    /// Answers what `script` says of each request.
    pub fn start(script: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        Self::bind((Ipv4Addr::LOCALHOST, 0).into(), script)
    }

    /// The same at an address that was used before.
    pub fn bind(addr: SocketAddr, script: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind(addr).expect("the receiver's address is free");
        let addr = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stopped = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Mutex<Box<Script>>> = Arc::new(Mutex::new(Box::new(script)));
        let thread = {
            let (requests, stopped, connections) =
                (Arc::clone(&requests), Arc::clone(&stopped), Arc::clone(&connections));
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    connections.lock().unwrap().push(stream.try_clone().unwrap());
                    let (requests, script) = (Arc::clone(&requests), Arc::clone(&script));
                    thread::spawn(move || serve(stream, &requests, &script));
                }
            })
        };
        Self { addr, requests, stopped, thread: Some(thread), connections }
    }

    pub fn url(&self) -> String {
        format!("http://{}/api/v1/write", self.addr)
    }

    /// Everything so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The first `count` requests, once there are so many.
    pub fn wait_for(&self, count: usize) -> Vec<Request> {
        self.wait_until(&format!("{count} requests"), |requests| requests.len() >= count)
    }

    /// All requests, once `condition` holds of them.
    pub fn wait_until(&self, what: &str, condition: impl Fn(&[Request]) -> bool) -> Vec<Request> {
        let begin = Instant::now();
        loop {
            let requests = self.requests();
            if condition(&requests) {
                return requests;
            }
            assert!(begin.elapsed() < PATIENCE, "no {what} in time; there are {} requests", requests.len());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// As if it were killed: no connection, no listener.
    pub fn stop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the listener, which then sees that it is over.
        _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
        for connection in self.connections.lock().unwrap().drain(..) {
            _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve(mut stream: TcpStream, requests: &Mutex<Vec<Request>>, script: &Mutex<Box<Script>>) {
    while let Some(request) = read(&mut stream) {
        let reply = {
            let mut script = script.lock().unwrap();
            requests.lock().unwrap().push(request.clone());
            script(&request)
        };
        let answer = match reply {
            Reply::Taken if request.is_v2() => {
                let histograms = request.samples.iter().filter(|got| matches!(got.value, Value::Histogram(_))).count();
                format!(
                    "HTTP/1.1 204 No Content\r\nX-Prometheus-Remote-Write-Samples-Written: {}\r\n\
                     X-Prometheus-Remote-Write-Histograms-Written: {histograms}\r\n\r\n",
                    request.samples.len() - histograms
                )
            }
            Reply::Taken => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            Reply::Status(204, headers, _) => format!("HTTP/1.1 204 No Content\r\n{headers}\r\n"),
            Reply::Status(status, headers, body) => {
                format!("HTTP/1.1 {status} So\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
            }
            Reply::Body(status, body) => {
                let head = format!("HTTP/1.1 {status} So\r\nContent-Length: {}\r\n\r\n", body.len());
                if stream.write_all(&[head.as_bytes(), &body].concat()).is_err() {
                    return;
                }
                continue;
            }
            Reply::Cut => {
                _ = stream.write_all(b"HTTP/1.1 503 Service Unavail");
                _ = stream.shutdown(Shutdown::Both);
                return;
            }
            Reply::Hang => {
                // Until the other side closes.
                _ = stream.read(&mut [0]);
                return;
            }
            Reply::Close => {
                // Of a connection that others have a handle of, the end has to be said.
                _ = stream.shutdown(Shutdown::Both);
                return;
            }
        };
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// `None` at the end of the connection.
fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let line = lines.next().unwrap().to_owned();
    let headers: BTreeMap<_, _> = lines
        .map(|line| line.split_once(": ").expect("a header field"))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).ok()?;
    let mut request = Request { at: Instant::now(), line, headers, body, symbols: vec![], samples: vec![] };
    if !request.headers.contains_key("x-prometheus-remote-write-version") {
        return Some(request);
    }
    let message = snap::raw::Decoder::new().decompress_vec(&request.body).expect("snappy's block format");
    match request.is_v2() {
        false => request.samples = samples_v1(v1::WriteRequest::decode(message.as_slice()).expect("a WriteRequest")),
        true => {
            let message = v2::Request::decode(message.as_slice()).expect("a Request");
            request.samples = samples_v2(&message);
            request.symbols = message.symbols;
        }
    }
    Some(request)
}

fn samples_v1(message: v1::WriteRequest) -> Vec<Got> {
    let mut samples = Vec::new();
    for series in message.timeseries {
        let labels: Vec<_> = series.labels.into_iter().map(|label| (label.name, label.value)).collect();
        let mut push = |value, timestamp, start| {
            samples.push(Got { labels: labels.clone(), value, timestamp, start: (start, 0), metadata: None });
        };
        for sample in series.samples {
            push(Value::Number(sample.value.to_bits()), sample.timestamp, sample.start_timestamp);
        }
        for histogram in series.histograms {
            push(Value::Histogram(histogram.clone()), histogram.timestamp, histogram.start_timestamp);
        }
    }
    samples
}

fn samples_v2(message: &v2::Request) -> Vec<Got> {
    let symbol = |position: u32| message.symbols[position as usize].clone();
    let mut samples = Vec::new();
    for series in &message.timeseries {
        assert!(series.labels_refs.len().is_multiple_of(2), "labels are pairs");
        let labels: Vec<_> = series.labels_refs.chunks(2).map(|pair| (symbol(pair[0]), symbol(pair[1]))).collect();
        let metadata =
            series.metadata.map(|metadata| (metadata.r#type, symbol(metadata.help_ref), symbol(metadata.unit_ref)));
        let mut push = |value, timestamp, start| {
            let start = (start, series.created_timestamp);
            samples.push(Got { labels: labels.clone(), value, timestamp, start, metadata: metadata.clone() });
        };
        for sample in &series.samples {
            push(Value::Number(sample.value.to_bits()), sample.timestamp, sample.start_timestamp);
        }
        for histogram in &series.histograms {
            push(Value::Histogram(histogram.clone()), histogram.timestamp, histogram.start_timestamp);
        }
    }
    samples
}
