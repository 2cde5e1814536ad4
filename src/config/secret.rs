//! Secrets: inline, from an environment variable or from a file. They are never printed.

use std::{env::VarError, fs::File, io::Read, path::Path};

use secrecy::SecretString;

use super::{
    nearest::hint,
    tree::{Node, Raw, Table},
};

/// The longest secret, in bytes.
pub const MAX_SECRET_BYTES: u64 = 64 * 1024;

const SPELLINGS: &str = "a string, { env = \"NAME\" } or { file = \"/path\" }";

/// Where environment variables are looked up, so that tests need not change those of the process.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Result<String, VarError>;

/// Resolves a secret.
///
/// # Errors
/// What is wrong, in words that hold nothing of the secret.
pub(super) fn resolve(node: &Node, lookup: Lookup<'_>) -> Result<SecretString, String> {
    let text = match &node.raw {
        Raw::Text(text) => text.clone(),
        Raw::Table(table) => from_table(table, lookup)?,
        other => return Err(format!("a secret is {SPELLINGS}, not {}", other.what())),
    };
    if text.is_empty() {
        return Err("the secret is empty".to_owned());
    }
    Ok(SecretString::from(text))
}

fn from_table(table: &Table, lookup: Lookup<'_>) -> Result<String, String> {
    for word in table.0.keys() {
        if word != "env" && word != "file" {
            return Err(format!("unknown key {word:?} in a secret{}", hint(word, ["env", "file"])));
        }
    }
    let text = |word: &str| match table.0.get(word).map(|entry| &entry.node.raw) {
        None => Ok(None),
        Some(Raw::Text(text)) => Ok(Some(text.as_str())),
        Some(other) => Err(format!("{word} must be a string, not {}", other.what())),
    };
    match (text("env")?, text("file")?) {
        (Some(_), Some(_)) => {
            Err("the secret is given twice, by env and by file; keep one of them".to_owned())
        }
        (None, None) => Err(format!("the secret is given nowhere; write {SPELLINGS}")),
        (Some(name), None) => lookup(name).map_err(|error| match error {
            VarError::NotPresent => format!("the environment variable {name} is not set"),
            VarError::NotUnicode(_) => format!("the environment variable {name} is not UTF-8"),
        }),
        (None, Some(path)) => from_file(Path::new(path)),
    }
}

fn from_file(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let cannot = |error: std::io::Error| format!("cannot read the file {shown}: {error}");
    let mut text = String::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(MAX_SECRET_BYTES + 1).read_to_string(&mut text).map_err(cannot)?;
    if text.len() as u64 > MAX_SECRET_BYTES {
        return Err(format!("the file {shown} is over {MAX_SECRET_BYTES} bytes; is it the right one?"));
    }
    let end = text.strip_suffix('\n').map_or(text.len(), |text| text.trim_end_matches('\r').len());
    text.truncate(end);
    Ok(text)
}
