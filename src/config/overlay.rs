//! Environment variables and arguments laid over the file.
//!
//! `AMIBUS_BUS__NATS__URL` is `url` in `[bus.nats]`; `AMIBUS_SERVER__PBX1__SECRET` is `secret` of the server named
//! `pbx1` in the file (a `-` in its name is written `_`). Every variable that can mean something is enumerated, so that
//! one that means nothing is an error and not silence. A client of a bus leaves alone what is not for clients.

use std::ffi::OsString;

use super::{
    keys::GROUPS,
    nearest::nearest,
    tree::{Entry, Node, Origin, Raw, Table},
    walker::Faults,
};
use crate::{buses::Registration, failpoint};

/// What all our variables begin with.
pub const VARIABLE_PREFIX: &str = "AMIBUS_";
/// Variables that other parts of the project use.
const NOT_OURS: [&str; 1] = ["AMIBUS_TEST_"];

/// Whose variables count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The bridge's: all.
    All,
    /// A client's: those at the top and those of buses.
    Client,
}

impl Scope {
    fn has(self, variable: &str) -> bool {
        self == Self::All || variable.starts_with("AMIBUS_BUS__") || !variable.contains("__")
    }
}

/// A variable that can be given: its name, and the way to the key.
struct Target {
    variable: String,
    server: Option<String>,
    path: Vec<&'static str>,
}

/// Lays the variables that begin with [`VARIABLE_PREFIX`] over the tree.
pub(super) fn apply(
    root: &mut Table,
    variables: &[(String, OsString)],
    registry: &[Registration],
    scope: Scope,
    faults: &mut Faults<'_>,
) {
    let targets = targets(root, registry);
    for (name, text) in variables {
        let ours = name.starts_with(VARIABLE_PREFIX) && scope.has(name) && !failpoint::reads(name);
        if !ours || NOT_OURS.iter().any(|other| name.starts_with(other)) {
            continue;
        }
        let origin = Origin::Variable(name.clone());
        match targets.iter().find(|target| target.variable == *name) {
            Some(target) => match text.to_str() {
                Some(text) => target.put(root, text, &origin),
                None => faults.note(&origin, "", "is not UTF-8"),
            },
            None if is_service_link(name) => {}
            None => {
                let remedy = remedy(name, &targets, root);
                faults.note(&origin, "", format!("sets nothing that is known; {remedy}"));
            }
        }
    }
}

impl Target {
    fn put(&self, root: &mut Table, text: &str, origin: &Origin) {
        let Some(server) = &self.server else {
            root.put(&self.path, text, origin);
            return;
        };
        for table in servers_mut(root) {
            if name_of(table) == Some(server.as_str()) {
                table.put(&self.path, text, origin);
            }
        }
    }
}

fn targets(root: &Table, registry: &[Registration]) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut add = |server: Option<&str>, words: Vec<&'static str>| {
        let variable = variable_of(server, &words);
        targets.push(Target { variable, server: server.map(str::to_owned), path: words });
    };
    for group in GROUPS.iter().filter(|group| !group.repeated) {
        for key in group.keys {
            let table = group.name.split('.').filter(|word| !word.is_empty());
            add(None, table.chain(key.name.split('.')).collect());
        }
    }
    for bus in registry {
        for key in bus.keys {
            add(None, ["bus", bus.name].into_iter().chain(key.name.split('.')).collect());
        }
    }
    for table in servers(root) {
        let Some(name) = name_of(table) else { continue };
        for key in super::keys::SERVER.iter().filter(|key| key.name != "name") {
            add(Some(name), key.name.split('.').collect());
        }
    }
    targets
}

fn remedy(variable: &str, targets: &[Target], root: &Table) -> String {
    let begins_server = |name: &str| variable.starts_with(&variable_of(Some(name), &[""]));
    if variable.starts_with("AMIBUS_SERVER__") && !servers(root).filter_map(name_of).any(begins_server) {
        let names: Vec<&str> = servers(root).filter_map(name_of).collect();
        if names.is_empty() {
            return "it is AMIBUS_SERVER__NAME__KEY, and the file has no [[server]] with a name".to_owned();
        }
        return format!("it is AMIBUS_SERVER__NAME__KEY, and the file's servers are {}", names.join(", "));
    }
    match nearest(variable, targets.iter().map(|target| target.variable.as_str())) {
        Some(near) => format!("did you mean {near:?}?"),
        None => "it is AMIBUS_TABLE__KEY, e.g. AMIBUS_BUS__NATS__URL or AMIBUS_HTTP__LISTEN".to_owned(),
    }
}

fn variable_of(server: Option<&str>, words: &[&str]) -> String {
    let begin = server.map(|name| format!("SERVER__{name}__")).unwrap_or_default();
    let name = format!("{VARIABLE_PREFIX}{begin}{}", words.join("__"));
    name.to_ascii_uppercase().replace('-', "_")
}

fn servers(root: &Table) -> impl Iterator<Item = &Table> {
    let items = match root.0.get("server").map(|entry| &entry.node.raw) {
        Some(Raw::List(items)) => items.as_slice(),
        _ => &[],
    };
    items.iter().filter_map(|item| if let Raw::Table(table) = &item.raw { Some(table) } else { None })
}

fn servers_mut(root: &mut Table) -> impl Iterator<Item = &mut Table> {
    let items = match root.0.get_mut("server") {
        Some(Entry { node: Node { raw: Raw::List(items), .. }, .. }) => items.as_mut_slice(),
        _ => &mut [],
    };
    items.iter_mut().filter_map(|item| if let Raw::Table(table) = &mut item.raw { Some(table) } else { None })
}

fn name_of(table: &Table) -> Option<&str> {
    match table.0.get("name").map(|entry| &entry.node.raw) {
        Some(Raw::Text(name)) => Some(name),
        _ => None,
    }
}

/// Kubernetes sets such variables in every container beside a service called `amibus`; they mean nothing to us.
fn is_service_link(name: &str) -> bool {
    if name.contains("__") {
        return false;
    }
    let tail = |word: &str| name.rfind(word).and_then(|at| name.get(at + word.len()..));
    let rest = tail("_SERVICE_PORT").or_else(|| tail("_SERVICE_HOST")).or_else(|| {
        let rest = name.find("_PORT").and_then(|at| name.get(at + "_PORT".len()..))?;
        let number =
            rest.strip_prefix('_').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        (rest.is_empty() || number).then_some(rest)
    });
    rest.is_some()
}

#[cfg(test)]
mod tests {
    use super::is_service_link;

    #[test]
    fn the_variables_of_kubernetes_are_told_apart() {
        for name in [
            "AMIBUS_SERVICE_HOST",
            "AMIBUS_SERVICE_PORT_HTTP",
            "AMIBUS_PORT",
            "AMIBUS_PORT_9438_TCP_ADDR",
            "AMIBUS_WEB_PORT_80_TCP",
        ] {
            assert!(is_service_link(name), "{name}");
        }
        for name in ["AMIBUS_HTTP__LISTEN", "AMIBUS_PREFIX", "AMIBUS_BUS__NATS__PORT", "AMIBUS_PORTS"] {
            assert!(!is_service_link(name), "{name}");
        }
    }
}
