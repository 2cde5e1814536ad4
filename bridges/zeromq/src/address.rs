//! Addresses as ZeroMQ spells them: `tcp://HOST:PORT` and `ipc://PATH`.

use std::{fmt, net::IpAddr, path::PathBuf};

/// The longest path of a local socket, in bytes (Linux: 108 with the final NUL).
const MAX_IPC_PATH_BYTES: usize = 107;

/// Where to listen, or where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp { host: Host, port: u16 },
    Ipc(PathBuf),
}

/// The host of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host(String);

impl Host {
    /// What to listen on.
    pub(crate) fn bind_name(&self) -> &str {
        match self.0.as_str() {
            "*" => "0.0.0.0",
            "localhost" => "127.0.0.1",
            other => other,
        }
    }

    /// What to connect to, from the same machine where it says "everywhere".
    pub(crate) fn connect_name(&self) -> &str {
        match self.bind_name() {
            "0.0.0.0" => "127.0.0.1",
            "::" => "::1",
            other => other,
        }
    }

    fn is_loopback(&self) -> bool {
        self.bind_name().parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl Address {
    /// Reads an address. The answer's error says what is wrong and what would be right.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("ipc://") {
            if path.is_empty() || path.len() > MAX_IPC_PATH_BYTES || path.contains(['\0', '*', '@']) {
                return Err(format!(
                    "ipc:// takes the path of a socket of at most {MAX_IPC_PATH_BYTES} bytes"
                ));
            }
            return Ok(Self::Ipc(PathBuf::from(path)));
        }
        let wanted =
            || format!("{text:?} is not an address such as tcp://127.0.0.1:5556 or ipc:///run/amibus.sock");
        let rest = text.strip_prefix("tcp://").ok_or_else(wanted)?;
        let (host, port) = rest.rsplit_once(':').ok_or_else(wanted)?;
        let port = match port {
            "*" => 0,
            digits => digits.parse().map_err(|_| format!("{digits:?} is not a port: 0 to 65535, or *"))?,
        };
        let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let host = match inner {
            Some(ip) => ip.parse::<IpAddr>().map_err(|_| wanted())?.to_string(),
            None if host == "*" || (!host.is_empty() && host.chars().all(plain)) => host.to_owned(),
            None => return Err(wanted()),
        };
        Ok(Self::Tcp { host: Host(host), port })
    }

    /// Whether only this machine can reach it.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Tcp { host, .. } => host.is_loopback(),
            Self::Ipc(_) => true,
        }
    }

    /// Whether the port is chosen when it is bound.
    pub(crate) fn is_open_ended(&self) -> bool {
        matches!(self, Self::Tcp { port: 0, .. })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.0.contains(':') => write!(f, "tcp://[{}]:{port}", host.0),
            Self::Tcp { host, port } => write!(f, "tcp://{}:{port}", host.0),
            Self::Ipc(path) => write!(f, "ipc://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, local) in [
            ("tcp://127.0.0.1:5556", true),
            ("tcp://127.9.9.9:1", true),
            ("tcp://localhost:5556", true),
            ("tcp://[::1]:5556", true),
            ("ipc:///run/amibus/commands.sock", true),
            ("tcp://0.0.0.0:5556", false),
            ("tcp://[::]:5556", false),
            ("tcp://10.1.2.3:5556", false),
            ("tcp://amibus:5556", false),
            ("tcp://*:5556", false),
        ] {
            let address = Address::parse(text).expect(text);
            assert_eq!((address.to_string(), address.is_local()), (text.to_owned(), local));
        }
        let any = Address::parse("tcp://127.0.0.1:*").expect("a wildcard port");
        assert!(any.is_open_ended());
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            "127.0.0.1:5556",
            "tcp://",
            "tcp://127.0.0.1",
            "tcp://:5556",
            "tcp://127.0.0.1:99999",
            "tcp://[x]:1",
            "tcp://a b:1",
            "udp://127.0.0.1:1",
            "ipc://",
            "ipc://*",
            "tcp://::1:5556",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad:?}");
        }
    }
}
