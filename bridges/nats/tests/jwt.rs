//! An operator, an account and its users, as `nsc` would make them: NATS JWTs, version 2.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use nkeys::{KeyPair, KeyPairType};
use serde_json::{Value, json};

pub(crate) fn pair(kind: KeyPairType) -> KeyPair {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).expect("random bytes");
    KeyPair::new_from_raw(kind, seed).expect("a key pair")
}

fn sign(by: &KeyPair, subject: &KeyPair, name: &str, nats: &Value) -> String {
    let head = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let claims = json!({
        "jti": name, "iat": 1_700_000_000, "iss": by.public_key(), "sub": subject.public_key(), "name": name,
        "nats": nats,
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&head), part(&claims));
    let signature = by.sign(signed.as_bytes()).expect("signed");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A server's configuration that trusts one operator, and the account that it holds.
pub(crate) struct Operator {
    pub(crate) config: String,
    account: KeyPair,
}

impl Operator {
    pub(crate) fn new() -> Self {
        let (operator, account) = (pair(KeyPairType::Operator), pair(KeyPairType::Account));
        let of_operator = sign(&operator, &operator, "test", &json!({ "type": "operator", "version": 2 }));
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
            "leaf": -1,
        });
        let of_account = json!({ "type": "account", "version": 2, "limits": limits });
        let of_account = sign(&operator, &account, "A", &of_account);
        let public = account.public_key();
        let config = format!(
            "operator: {of_operator}\nresolver: MEMORY\nresolver_preload: {{ {public}: {of_account} }}\n"
        );
        Self { config, account }
    }

    /// A credentials file of a user of the account.
    pub(crate) fn credentials(&self) -> String {
        let user = pair(KeyPairType::User);
        let unlimited = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
        let jwt = sign(&self.account, &user, "u", &unlimited);
        let seed = user.seed().expect("a seed");
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }
}
