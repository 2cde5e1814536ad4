//! What the options say of every call, and the name that they and the file give a batch.

use sha2::{Digest, Sha256};

/// The longest name of a batch, in bytes.
const MAX_NAME_BYTES: usize = 100;
/// How much of the hash of file and options names a batch, in bytes.
const HASH_BYTES: usize = 8;

/// What the options say of every call, unread.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    pub(super) name: Option<String>,
    pub(super) id_column: Option<String>,
    pub(super) server: String,
    pub(super) channel: String,
    pub(super) context: Option<String>,
    pub(super) exten: String,
    pub(super) priority: String,
    pub(super) application: Option<String>,
    pub(super) data: Option<String>,
    pub(super) caller_id: Option<String>,
    pub(super) account: Option<String>,
    pub(super) timeout: Option<String>,
    pub(super) allowed: String,
    pub(super) ignored: Vec<String>,
    /// Columns that may be variables on which Asterisk acts. They are in the file either way, so ids do not change.
    pub(super) allowed_variables: Vec<String>,
    /// How the file is written: delimiter and encoding.
    pub(super) form: String,
}

impl Options {
    /// The batch's name, which is another for a file of other `bytes` or other options where none is given.
    ///
    /// # Errors
    /// Where the given one cannot be the beginning of ids.
    pub(super) fn batch_name(&self, bytes: &[u8]) -> Result<String, String> {
        match &self.name {
            Some(name) => checked(name),
            None => Ok(hashed(self, bytes)),
        }
    }

    /// What the calls depend on, by names that do not change from version to version.
    fn stable(&self) -> Vec<(&'static str, &str)> {
        let given = [
            ("server", Some(&self.server)),
            ("channel", Some(&self.channel)),
            ("context", self.context.as_ref()),
            ("exten", self.context.as_ref().map(|_| &self.exten)),
            ("priority", self.context.as_ref().map(|_| &self.priority)),
            ("application", self.application.as_ref()),
            ("data", self.data.as_ref()),
            ("caller-id", self.caller_id.as_ref()),
            ("account", self.account.as_ref()),
            ("timeout", self.timeout.as_ref()),
            ("id-column", self.id_column.as_ref()),
            ("form", Some(&self.form)),
        ];
        let given = given.into_iter().filter_map(|(name, value)| Some((name, value?.as_str())));
        given.chain(self.ignored.iter().map(|column| ("ignore", column.as_str()))).collect()
    }
}

fn checked(name: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(plain) {
        return Err(format!("--batch {name:?}: 1 to {MAX_NAME_BYTES} of letters, digits, '.', '_' and '-'"));
    }
    Ok(name.to_owned())
}

/// A name that is another for another file or other options.
fn hashed(options: &Options, bytes: &[u8]) -> String {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    add(bytes);
    for (name, value) in options.stable() {
        add(name.as_bytes());
        add(value.as_bytes());
    }
    let digest = hash.finalize();
    digest.iter().take(HASH_BYTES).fold("dial-".to_owned(), |name, byte| format!("{name}{byte:02x}"))
}
