//! The test as kubelet and Prometheus: asks the operator's HTTP port, and reads the metrics' text in a few lines of its own.
//! Whether that text is right in all its parts is for Prometheus' own parser.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::Operator;
use super::operator::LIMIT;
use super::scene::Scene;

/// Has the operator listen on a free port; it tells which in its log.
pub fn listening(scene: Scene) -> Scene {
    let Scene { server, operator, folder } = scene;
    Scene { server, operator: operator.arg("--http-listen=127.0.0.1:0"), folder }
}

/// Where the last start of the operator listens.
pub fn address(operator: &Operator) -> SocketAddr {
    operator.wait_for("its address in the log", || {
        let log = operator.log();
        let line = log.lines().rev().find_map(|line| line.split_once("HTTP server listening address="))?;
        line.1.trim().parse().ok()
    })
}

/// A connection that fails if nothing comes for a long time.
pub fn connect(operator: &Operator) -> TcpStream {
    let stream = TcpStream::connect(address(operator)).expect("connected");
    stream.set_read_timeout(Some(LIMIT)).expect("set");
    stream
}

/// The whole answer, head and body.
pub fn ask(operator: &Operator, method: &str, path: &str) -> (String, String) {
    let mut stream = connect(operator);
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: a\r\nUser-Agent: b\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer that ends");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.to_owned(), body.to_owned())
}

/// Status code and body of a GET.
pub fn get(operator: &Operator, path: &str) -> (u16, String) {
    let (head, body) = ask(operator, "GET", path);
    (head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status"), body)
}

/// All samples of one scrape, by series as they are written.
#[derive(Clone, Debug)]
pub struct Samples(pub BTreeMap<String, f64>);

impl Samples {
    pub fn scrape(operator: &Operator) -> Samples {
        let (status, text) = get(operator, "/metrics");
        assert_eq!(status, 200, "{text}");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
            (series.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number: {line:?}")))
        });
        Samples(pairs.collect())
    }

    /// The value of a series; it has to be there.
    #[track_caller]
    pub fn value(&self, series: &str) -> f64 {
        *self.0.get(series).unwrap_or_else(|| panic!("no {series} in {:#?}", self.0))
    }

    /// Series of this name that are not zero, without the name.
    pub fn moved(&self, name: &str) -> BTreeMap<&str, f64> {
        let own = |series: &'_ str| series.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
        self.0
            .iter()
            .filter(|(series, value)| own(series) && **value != 0.0)
            .map(|(series, value)| (&series[name.len()..], *value))
            .collect()
    }
}
