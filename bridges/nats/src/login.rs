//! Logging in: user and password, token, nkey, or a credentials file.

use std::{fmt, fs, path::Path};

use amibus_contract::{Problem, Values};
use async_nats::{
    Auth,
    rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use nkeys::KeyPair;
use secrecy::{ExposeSecret, SecretString};

use crate::settings;

const MAX_CREDENTIALS_BYTES: u64 = 64 * 1024;

/// How to log in.
#[derive(Clone)]
pub(crate) enum Login {
    Nobody,
    User {
        user: String,
        password: SecretString,
    },
    Token(SecretString),
    /// The seed.
    Nkey(SecretString),
    /// The file's path: it is read at each connect, so that it may be renewed while we run.
    Credentials(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

impl Login {
    pub(crate) fn new(values: &Values, problems: &mut Vec<Problem>) -> Self {
        let given = settings::logins(values);
        if given.len() > 1 {
            let names: Vec<&str> = given.iter().copied().collect();
            problems.extend(given.iter().skip(1).map(|key| {
                Problem::new(key, format!("one way of logging in, please, not {}", names.join(" and ")))
            }));
        }
        let login = Self::read(values, problems);
        if let Err(error) = login.answer(b"") {
            let key = if matches!(login, Self::Nkey(_)) { "nkey" } else { "credentials" };
            problems.push(Problem::new(key, error));
        }
        login
    }

    fn read(values: &Values, problems: &mut Vec<Problem>) -> Self {
        let password = values.secret("password");
        if values.text("user").is_none() && password.is_some() {
            problems.push(Problem::new("user", "is missing; `password` needs it"));
        }
        if let Some(user) = values.text("user") {
            let password = password.cloned().unwrap_or_else(|| {
                problems.push(Problem::new("password", "is missing; `user` needs it"));
                SecretString::default()
            });
            return Self::User { user: user.to_owned(), password };
        }
        if let Some(token) = values.secret("token") {
            return Self::Token(token.clone());
        }
        if let Some(seed) = values.secret("nkey") {
            return Self::Nkey(seed.clone());
        }
        match values.text("credentials") {
            Some(path) => Self::Credentials(path.to_owned()),
            None => Self::Nobody,
        }
    }

    /// The login as the words of `amibus check`.
    pub(crate) fn words(&self) -> &'static str {
        match self {
            Self::Nobody => "without a login",
            Self::User { .. } => "with user and password",
            Self::Token(_) => "with a token",
            Self::Nkey(_) => "with an nkey",
            Self::Credentials(_) => "with a credentials file",
        }
    }

    /// What to answer to a server that greets with `nonce`. The error never holds a secret.
    pub(crate) fn answer(&self, nonce: &[u8]) -> Result<Auth, String> {
        let mut auth = Auth::new();
        match self {
            Self::Nobody => {}
            Self::User { user, password } => {
                auth.username = Some(user.clone());
                auth.password = Some(password.expose_secret().to_owned());
            }
            Self::Token(token) => auth.token = Some(token.expose_secret().to_owned()),
            Self::Nkey(seed) => {
                let pair = KeyPair::from_seed(seed.expose_secret().trim())
                    .map_err(|_| "is not the seed of an nkey (SU...)".to_owned())?;
                auth.signature = Some(pair.sign(nonce).map_err(|error| error.to_string())?);
                auth.nkey = Some(pair.public_key());
            }
            Self::Credentials(path) => {
                let text = read_small(Path::new(path))?;
                let (jwt, seed) = parts(&text).ok_or("holds no user JWT and seed between its marks")?;
                let pair = KeyPair::from_seed(seed).map_err(|_| "holds a seed that is not one".to_owned())?;
                auth.signature = Some(pair.sign(nonce).map_err(|error| error.to_string())?);
                auth.jwt = Some(jwt.to_owned());
            }
        }
        Ok(auth)
    }
}

/// The JWT and the seed of a credentials file: the lines after the two BEGIN marks.
fn parts(text: &str) -> Option<(&str, &str)> {
    let after = |mark: &str| {
        let mut lines = text.lines().skip_while(|line| !(line.contains("BEGIN") && line.contains(mark)));
        lines.nth(1).map(str::trim).filter(|line| !line.is_empty())
    };
    Some((after("USER JWT")?, after("USER NKEY SEED")?))
}

fn read_small(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let bytes = fs::metadata(path).map_err(failed)?.len();
    if bytes > MAX_CREDENTIALS_BYTES {
        return Err(format!("{}: is larger than {MAX_CREDENTIALS_BYTES} bytes", path.display()));
    }
    fs::read_to_string(path).map_err(failed)
}

/// Whether the file holds certificates.
pub(crate) fn check_certificates(path: &Path) -> Result<(), String> {
    let failed = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
    let mut count = 0_usize;
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))? {
        certificate.map_err(|error| failed(&error))?;
        count += 1;
    }
    if count == 0 { Err(failed(&"holds no certificate in PEM")) } else { Ok(()) }
}

/// Whether the file holds a private key.
pub(crate) fn check_key(path: &Path) -> Result<(), String> {
    PrivateKeyDer::from_pem_file(path).map(drop).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credentials_file_gives_its_two_parts() {
        let text = "-----BEGIN NATS USER JWT-----\neyJ0.eyJ1.sig\n------END NATS USER JWT------\n\n\
                    *** IMPORTANT ***\n\n-----BEGIN USER NKEY SEED-----\r\nSUABC\r\n------END USER NKEY SEED------\n";
        assert_eq!(parts(text), Some(("eyJ0.eyJ1.sig", "SUABC")));
        assert_eq!(parts("-----BEGIN NATS USER JWT-----\nx\n"), None);
        assert_eq!(parts(""), None);
    }

    #[test]
    fn no_secret_is_ever_printed() {
        let login = Login::Nkey("SUAIsecret".to_owned().into());
        assert!(!format!("{login:?}").contains("secret"));
        assert!(!login.answer(b"n").err().expect("not a seed").contains("secret"));
    }
}
