//! `[[server]]`: one Asterisk server.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use amibus_contract::message::check_server;
use encoding_rs::Encoding;
use secrecy::SecretString;

use super::{
    keys::{SERVER, SNAPSHOT_LISTS},
    nearest::hint,
    tree::{Entry, Origin, Raw, Table},
    url,
    walker::{Faults, Section, walk},
};

/// The most servers of one process.
pub const MAX_SERVERS: usize = 1000;

/// How to log in to the AMI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// Challenge and response: the secret stays here.
    Md5,
    /// The secret goes over the connection.
    Plain,
}

/// A file with our certificate chain and one with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM, our certificate first.
    pub cert: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

/// How to speak TLS with a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM certificates to trust in place of the system's.
    pub ca: Option<PathBuf>,
    /// What we show of ourselves.
    pub client: Option<ClientCertificate>,
    /// The name that the server's certificate must carry, where it is not the host.
    pub server_name: Option<String>,
}

/// One Asterisk server.
#[derive(Clone)]
pub struct Server {
    /// Its name in topics, `[a-z0-9][a-z0-9-]*`.
    pub name: String,
    /// Host name or address, an IPv6 address without brackets.
    pub host: String,
    /// The AMI's port.
    pub port: u16,
    /// `Some` for `amis://`.
    pub tls: Option<Tls>,
    /// The AMI user.
    pub username: String,
    /// The AMI user's secret.
    pub secret: SecretString,
    /// How to log in.
    pub login: Login,
    /// The charset of values that are not UTF-8.
    pub charset: &'static Encoding,
    /// How long connecting, TLS and login may take together.
    pub connect_timeout: Duration,
    /// How often a quiet session is pinged.
    pub ping_interval: Duration,
    /// How long a pong may take.
    pub ping_deadline: Duration,
    /// The first wait before connecting again.
    pub reconnect_min: Duration,
    /// The longest wait before connecting again.
    pub reconnect_max: Duration,
    /// The wait after a refused login.
    pub retry_wrong_secret: Duration,
    /// Whether the user sees every SequenceNumber, so that a missing one is a missed event.
    pub every_number: bool,
    /// How long an action may take with its event list.
    pub action_deadline: Duration,
    /// List actions to publish after each (re)connect, spelled as Asterisk does.
    pub snapshot: Vec<&'static str>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("name", &self.name)
            .field("url", &self.url())
            .field("username", &self.username)
            .field("secret", &"[redacted]")
            .finish_non_exhaustive()
    }
}

impl Server {
    /// The address as a URL, e.g. `ami://pbx.example.org:5038`.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "amis" } else { "ami" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{scheme}://{host}:{}", self.port)
    }
}

/// All `[[server]]` tables.
pub(super) fn servers(root: &Table, faults: &mut Faults<'_>) -> Vec<Server> {
    let Some(entry) = root.0.get("server") else {
        let message =
            "no [[server]]: amibus needs at least one Asterisk server, with name, url, username and secret";
        faults.note(&Origin::File(0), "", message);
        return Vec::new();
    };
    let tables = tables(entry, "server", faults);
    if tables.len() > MAX_SERVERS {
        faults.note(&entry.key, "server", format!("more than {MAX_SERVERS} servers in one process"));
        return Vec::new();
    }
    let mut seen: BTreeMap<String, Origin> = BTreeMap::new();
    let mut servers = Vec::new();
    for (index, (table, here)) in tables.into_iter().enumerate() {
        let path = match table.0.get("name").map(|entry| &entry.node.raw) {
            Some(Raw::Text(name)) => format!("server.{name}"),
            _ => format!("server #{}", index + 1),
        };
        let section = walk(table, here, &path, SERVER, &[], faults);
        let server = server(&section, faults);
        if let Some(first) = seen.get(&server.name) {
            let first = faults.source.place(first);
            let message = format!("another server has this name already, at {first}; names are unique");
            section.note(faults, "name", message);
        }
        seen.insert(server.name.clone(), section.origin("name").clone());
        servers.push(server);
    }
    servers
}

/// The tables of an array of tables, each with where it begins.
pub(super) fn tables<'t>(
    entry: &'t Entry,
    name: &str,
    faults: &mut Faults<'_>,
) -> Vec<(&'t Table, &'t Origin)> {
    let mut tables = Vec::new();
    let items = match &entry.node.raw {
        Raw::List(items) => items.as_slice(),
        _ => std::slice::from_ref(&entry.node),
    };
    let single = matches!(entry.node.raw, Raw::Table(_));
    for item in items {
        match &item.raw {
            Raw::Table(table) if !single => tables.push((table, &item.origin)),
            _ => faults.note(&item.origin, name, format!("write it as [[{name}]], with two brackets")),
        }
    }
    tables
}

fn server(section: &Section, faults: &mut Faults<'_>) -> Server {
    let values = &section.values;
    let text = |key: &str| values.text(key).unwrap_or_default().to_owned();
    let duration = |key: &str| values.duration(key).unwrap_or_default();
    let name = text("name");
    if values.text("name").is_some()
        && let Err(error) = check_server(&name)
    {
        section.note(faults, "name", error.to_string());
    }
    let parsed = values.text("url").map(url::parse);
    let address = match parsed {
        Some(Ok(address)) => address,
        Some(Err(message)) => {
            section.note(faults, "url", message);
            url::Address::default()
        }
        None => url::Address::default(),
    };
    if values.text("username").is_some_and(str::is_empty) {
        section.note(faults, "username", "the AMI user's name is empty");
    }
    bounds(section, faults);
    Server {
        name,
        tls: tls(section, &address, faults),
        host: address.host,
        port: address.port,
        username: text("username"),
        secret: values.secret("secret").cloned().unwrap_or_default(),
        login: if values.text("login") == Some("plain") { Login::Plain } else { Login::Md5 },
        charset: charset(section, faults),
        connect_timeout: duration("connect_timeout"),
        ping_interval: duration("ping_interval"),
        ping_deadline: duration("ping_deadline"),
        reconnect_min: duration("reconnect_min"),
        reconnect_max: duration("reconnect_max"),
        retry_wrong_secret: duration("retry_wrong_secret"),
        every_number: values.text("sequence_numbers") != Some("some"),
        action_deadline: duration("action_deadline"),
        snapshot: snapshot(section, faults),
    }
}

fn bounds(section: &Section, faults: &mut Faults<'_>) {
    for key in SERVER {
        if section.values.duration(key.name) == Some(Duration::ZERO) {
            section.note(faults, key.name, "must be longer than nothing");
        }
    }
    let reconnect = (section.values.duration("reconnect_min"), section.values.duration("reconnect_max"));
    if let (Some(min), Some(max)) = reconnect
        && min > max
    {
        section.note(faults, "reconnect_min", "must not be longer than reconnect_max");
    }
}

fn tls(section: &Section, address: &url::Address, faults: &mut Faults<'_>) -> Option<Tls> {
    let path = |key: &str| section.values.text(key).map(PathBuf::from);
    if !address.tls {
        for key in ["tls.ca", "tls.cert", "tls.key", "tls.server_name"] {
            if section.is_given(key) && address.port != 0 {
                section.note(faults, key, "means nothing with ami://; write amis:// in url for TLS");
            }
        }
        return None;
    }
    let client = match (path("tls.cert"), path("tls.key")) {
        (Some(cert), Some(key)) => Some(ClientCertificate { cert, key }),
        (Some(_), None) => {
            section.note(faults, "tls.cert", "needs tls.key, the file with its private key");
            None
        }
        (None, Some(_)) => {
            section.note(faults, "tls.key", "needs tls.cert, the file with its certificate");
            None
        }
        (None, None) => None,
    };
    for key in ["tls.ca", "tls.cert", "tls.key"] {
        if let Some(path) = path(key)
            && let Err(error) = std::fs::File::open(&path)
        {
            section.note(faults, key, format!("cannot read the file {}: {error}", path.display()));
        }
    }
    Some(Tls {
        ca: path("tls.ca"),
        client,
        server_name: section.values.text("tls.server_name").map(Into::into),
    })
}

fn charset(section: &Section, faults: &mut Faults<'_>) -> &'static Encoding {
    let label = section.values.text("charset").unwrap_or("utf-8");
    match Encoding::for_label_no_replacement(label.as_bytes()) {
        Some(encoding) if encoding.is_ascii_compatible() => encoding,
        Some(encoding) => {
            let message = format!("{} does not contain ASCII, which AMI is made of", encoding.name());
            section.note(faults, "charset", message);
            encoding_rs::UTF_8
        }
        None => {
            let common = ["utf-8", "windows-1252", "iso-8859-15", "windows-1251", "koi8-r", "gbk", "big5"];
            let message = format!("{label:?} is no charset that is known here{}", hint(label, common));
            section.note(faults, "charset", message);
            encoding_rs::UTF_8
        }
    }
}

fn snapshot(section: &Section, faults: &mut Faults<'_>) -> Vec<&'static str> {
    let mut lists = Vec::new();
    for word in section.values.list("snapshot").unwrap_or_default() {
        match SNAPSHOT_LISTS.iter().find(|known| known.eq_ignore_ascii_case(word)) {
            Some(known) => lists.push(*known),
            None => {
                let message =
                    format!("{word:?} is no list that can be a snapshot{}", hint(word, SNAPSHOT_LISTS));
                section.note(faults, "snapshot", message);
            }
        }
    }
    lists
}
