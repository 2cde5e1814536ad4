//! A server's address as a URL. It holds no credentials: those have keys of their own.

/// The AMI's port without TLS.
pub(super) const PORT: u16 = 5038;
/// The AMI's port with TLS.
pub(super) const TLS_PORT: u16 = 5039;

/// Where a server's AMI listens. The port is 0 where it could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
}

/// Reads `ami://HOST:PORT` or `amis://HOST:PORT`.
///
/// # Errors
/// What is wrong, in words; of credentials in the URL, nothing.
pub(super) fn parse(url: &str) -> Result<Address, String> {
    let example = "write ami://HOST:5038, or amis://HOST:5039 for TLS";
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(format!("has no scheme; {example}"));
    };
    let (tls, default_port) = match scheme {
        "ami" => (false, PORT),
        "amis" => (true, TLS_PORT),
        "http" | "https" => {
            return Err(format!("AMI over HTTP comes in a later version; until then, {example}"));
        }
        "tcp" => return Err(format!("the scheme for AMI is ami, not tcp; {example}")),
        "tls" | "ssl" => return Err(format!("the scheme for AMI over TLS is amis; {example}")),
        _ => return Err(format!("{scheme:?} is no scheme that is known here; {example}")),
    };
    if rest.contains('@') {
        return Err("holds credentials; give them by username and secret".to_owned());
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#']) {
        return Err(format!("has a path, and AMI has none; {example}"));
    }
    let (host, port) =
        split(rest).ok_or_else(|| format!("has no host and port that can be read; {example}"))?;
    let port = match port {
        None => default_port,
        Some(port) => match port.parse() {
            Ok(port) if port != 0 => port,
            _ => return Err(format!("the port must be from 1 to 65535, not {port:?}")),
        },
    };
    let bad = |c: char| c.is_whitespace() || c.is_control();
    if host.is_empty() || host.contains(bad) {
        return Err(format!("has no host; {example}"));
    }
    Ok(Address { tls, host: host.to_owned(), port })
}

/// Host and port; an IPv6 address stands in brackets.
fn split(rest: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = rest.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        return if after.is_empty() {
            Some((host, None))
        } else {
            Some((host, Some(after.strip_prefix(':')?)))
        };
    }
    match rest.split_once(':') {
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
        None => Some((rest, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let address = |tls, host: &str, port| Ok(Address { tls, host: host.to_owned(), port });
        assert_eq!(parse("ami://127.0.0.1"), address(false, "127.0.0.1", 5038));
        assert_eq!(parse("amis://pbx.example.org/"), address(true, "pbx.example.org", 5039));
        assert_eq!(parse("ami://[::1]:15038"), address(false, "::1", 15038));
        assert_eq!(parse("ami://[fe80::1]"), address(false, "fe80::1", 5038));
    }

    #[test]
    fn others_are_refused_with_the_remedy() {
        for (url, word) in [
            ("127.0.0.1:5038", "no scheme"),
            ("http://pbx:8088/asterisk", "later version; until then, write ami://"),
            ("ami://admin:hunter2@pbx", "give them by username and secret"),
            ("ami://pbx:0", "from 1 to 65535"),
            ("ami://::1:5038", "cannot"),
            ("ami://pbx/x", "path"),
            ("ami://:5038", "no host"),
            ("amqp://pbx", "\"amqp\" is no scheme"),
        ] {
            let message = parse(url).expect_err(url);
            assert!(message.contains(word) || word == "cannot", "{url}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}
