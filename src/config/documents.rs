//! The documents that come with the program say what the program does: each is checked against the tables.

use std::{collections::BTreeSet, fs, path::Path};

use amibus_contract::Key;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::{
    Config, Sources,
    keys::GROUPS,
    reference,
    tree::{Raw, Source, Table},
};
use crate::buses::REGISTRY;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/amibus.example.toml");
const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
const SECRET: &str = "SUAEXAMPLE";

fn example() -> String {
    fs::read_to_string(EXAMPLE).expect("the example is there")
}

/// The example with the keys that stand behind at most `level` hashes. Two mark what cannot stand beside what is
/// given before it.
fn uncommented(level: usize) -> String {
    let line = |line: &str| {
        let rest = line.trim_start_matches('#');
        let is_key = rest.starts_with('[') || rest.starts_with(|c: char| c.is_ascii_lowercase());
        let kept = if is_key && line.len() - rest.len() <= level { rest } else { line };
        format!("{kept}\n")
    };
    example().lines().map(line).collect()
}

fn parse(text: &str) -> Result<Config, String> {
    let lookup = |_: &str| Ok(SECRET.to_owned());
    let sources =
        Sources { variables: Vec::new(), lookup: &lookup, arguments: Vec::new(), registry: REGISTRY };
    Config::parse(text, "amibus.example.toml", &sources).map_err(|errors| errors.to_string())
}

/// The text with the files that it names, made of throw-away certificates.
fn with_files(text: &str, dir: &Path) -> String {
    let key = rcgen::generate_simple_self_signed(vec!["pbx2.internal".to_owned()]).expect("a certificate");
    let (cert, private) = (key.cert.pem(), key.signing_key.serialize_pem());
    for (name, content) in
        [("ca.pem", cert.as_str()), ("cert.pem", &cert), ("key.pem", &private), ("pbx2.secret", "hush\n")]
    {
        fs::write(dir.join(name), content).expect("written");
    }
    text.replace("/etc/amibus/", &format!("{}/", dir.display()))
}

fn given(table: &Table, prefix: &str, keys: &'static [Key], found: &mut BTreeSet<&'static str>) {
    for (word, entry) in &table.0 {
        let name = format!("{prefix}{word}");
        if let Some(key) = keys.iter().find(|key| key.name == name) {
            found.insert(key.name);
        } else if let Raw::Table(table) = &entry.node.raw {
            given(table, &format!("{name}."), keys, found);
        }
    }
}

fn missing(root: &Table, path: &str, keys: &'static [Key]) -> Vec<String> {
    let mut tables = vec![root];
    for word in path.split('.').filter(|word| !word.is_empty()) {
        let mut next = Vec::new();
        for entry in tables.iter().filter_map(|table| table.0.get(word)) {
            match &entry.node.raw {
                Raw::Table(table) => next.push(table),
                Raw::List(items) => {
                    next.extend(items.iter().filter_map(|item| match &item.raw {
                        Raw::Table(table) => Some(table),
                        _ => None,
                    }));
                }
                _ => {}
            }
        }
        tables = next;
    }
    let mut found = BTreeSet::new();
    for table in tables {
        given(table, "", keys, &mut found);
    }
    keys.iter().filter(|key| !found.contains(key.name)).map(|key| format!("[{path}] {}", key.name)).collect()
}

#[test]
fn the_example_is_right_as_it_is_and_uncommented() {
    let config = parse(&example()).expect("right as it is");
    assert_eq!(config.servers.first().map(|server| server.secret.expose_secret()), Some(SECRET));
    let dir = tempfile::tempdir().expect("a folder");
    // An opened bridge may expect to be within a runtime.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _within = runtime.enter();
    let config = parse(&with_files(&uncommented(1), dir.path())).expect("right uncommented");
    assert_eq!(config.buses.len(), 3);
    assert_eq!(config.servers.len(), 2);
}

#[test]
fn the_example_shows_every_key() {
    let text = uncommented(2);
    let source = Source { file: EXAMPLE, text: &text };
    let Ok(root) = source.parse() else { panic!("not TOML:\n{text}") };
    let mut missing_keys = Vec::new();
    for group in GROUPS {
        missing_keys.extend(missing(&root, group.name, group.keys));
    }
    for bus in REGISTRY {
        missing_keys.extend(missing(&root, &format!("bus.{}", bus.name), bus.keys));
    }
    assert_eq!(missing_keys, Vec::<String>::new());
}

#[test]
fn the_reference_is_up_to_date() {
    let written = fs::read_to_string(REFERENCE).expect("docs/configuration.md is there");
    assert!(
        written == reference::markdown(),
        "docs/configuration.md is not what the tables say; make it again: \
         cargo run -- schema reference > docs/configuration.md"
    );
}

/// What a piece of configuration in a document is completed with, where it is not whole.
const REST: &str = "[[server]]\nname = \"pbx1\"\nurl = \"ami://127.0.0.1\"\nusername = \"u\"\nsecret = \"s\"\n\
                    [bus.zeromq]\npublish = \"tcp://127.0.0.1:5556\"\n";

#[test]
fn configurations_in_other_documents_are_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).expect("docs").map(|entry| entry.expect("an entry").path());
    let mut texts = vec![("docker/amibus.toml".into(), read(&root.join("docker/amibus.toml")))];
    for path in
        docs.chain([root.join("README.md")]).filter(|path| path.extension().is_some_and(|e| e == "md"))
    {
        for block in read(&path).split("```toml\n").skip(1) {
            let text = block.split("```").next().unwrap_or_default();
            let rest = if text.contains("[[server]]") { "" } else { REST };
            texts.push((path.display().to_string(), format!("{text}\n{rest}")));
        }
    }
    assert!(texts.len() > 1, "the README shows a configuration");
    let dir = tempfile::tempdir().expect("a folder");
    let secret = dir.path().join("ami");
    fs::write(&secret, "hush").expect("written");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _within = runtime.enter();
    for (name, text) in texts {
        let text = text.replace("/run/secrets/ami", &secret.display().to_string());
        let parsed = parse(&text);
        assert!(parsed.is_ok(), "{name}: {}\n{text}", parsed.expect_err("wrong"));
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_schema_knows_every_key() {
    let schema = reference::json_schema();
    for group in GROUPS.iter().filter(|group| !group.name.is_empty()) {
        let mut at = &schema;
        for word in group.name.split('.') {
            at = &at["properties"][word];
        }
        let table = if group.repeated { &at["items"] } else { at };
        for key in group.keys {
            let mut at = table;
            for word in key.name.split('.') {
                at = &at["properties"][word];
            }
            assert_eq!(at["description"], key.doc, "{} {}", group.name, key.name);
        }
    }
    assert_eq!(
        (&schema["required"], &schema["properties"]["server"]["minItems"]),
        (&json!(["server"]), &json!(1))
    );
    for bus in REGISTRY {
        assert!(schema["properties"]["bus"]["properties"][bus.name].is_object(), "{}", bus.name);
    }
}
