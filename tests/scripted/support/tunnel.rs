//! A proxy on a port of its own: HTTP (CONNECT) or SOCKS 5. It passes on bytes, and keeps what it was asked for.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The name that only the proxy can look up.
pub const ONLY_THE_PROXY: &str = "only.the.proxy";

/// Runs until the process ends.
pub struct Tunnel {
    pub port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tunnel {
    /// `accept` reads a client's wish and answers it; the address that comes out of it is connected to.
    pub fn start(accept: fn(&mut TcpStream) -> Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || pass(client, accept, &seen));
            }
        });
        Self { port, asked }
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

fn pass(mut client: TcpStream, accept: fn(&mut TcpStream) -> Option<String>, seen: &Mutex<Vec<String>>) {
    let Some(wish) = accept(&mut client) else { return };
    // Names are the proxy's to look up: only it knows this one.
    let address = wish.split(' ').next().unwrap_or_default().replace(ONLY_THE_PROXY, "127.0.0.1");
    seen.lock().expect("no panic").push(wish);
    let Ok(server) = TcpStream::connect(address) else { return };
    let (mut from, mut to) = (client.try_clone().expect("a handle"), server.try_clone().expect("a handle"));
    let up = std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    let _ = io::copy(&mut &server, &mut client);
    let _ = client.shutdown(Shutdown::Both);
    let _ = up.join();
}

/// RFC 9110, section 9.3.6. The wish is the address, and the credential if one is given.
pub fn connect(client: &mut TcpStream) -> Option<String> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        lines.push(line);
    }
    let address = lines.first()?.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    let credential = lines.iter().find_map(|line| line.trim().strip_prefix("Proxy-Authorization: "));
    Some(credential.map_or_else(|| address.clone(), |credential| format!("{address} {credential}")))
}

/// RFC 1928, without a credential.
pub fn socks(client: &mut TcpStream) -> Option<String> {
    let mut head = [0; 2];
    client.read_exact(&mut head).ok()?;
    client.read_exact(&mut vec![0; usize::from(head[1])]).ok()?;
    client.write_all(&[5, 0]).ok()?;
    let mut request = [0; 4];
    client.read_exact(&mut request).ok()?;
    let host = match request[3] {
        1 => {
            let mut address = [0; 4];
            client.read_exact(&mut address).ok()?;
            IpAddr::from(address).to_string()
        }
        3 => {
            let mut length = [0];
            client.read_exact(&mut length).ok()?;
            let mut name = vec![0; usize::from(length[0])];
            client.read_exact(&mut name).ok()?;
            String::from_utf8(name).ok()?
        }
        _ => return None,
    };
    let mut port = [0; 2];
    client.read_exact(&mut port).ok()?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).ok()?;
    Some(format!("{host}:{}", u16::from_be_bytes(port)))
}
