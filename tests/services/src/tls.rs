//! Certificates for the tests: an authority of their own, and what it signed for the server and for a client.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// PEM files in a directory: elliptic keys (P-256, PKCS #8), valid for ten years, for `localhost` and `127.0.0.1`.
#[derive(Debug, Clone)]
pub struct Certificates {
    directory: PathBuf,
}

impl Certificates {
    /// Makes them with the `openssl` program.
    ///
    /// # Panics
    /// Where there is no such program, or it fails.
    #[must_use]
    pub fn make(directory: &Path) -> Self {
        fs::create_dir_all(directory).expect("a directory for certificates");
        let this = Self { directory: directory.to_owned() };
        this.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=amibus-tests \
                      -addext keyUsage=critical,keyCertSign,cRLSign -keyout ca.key -out ca.pem",
        );
        for (name, usage) in [("server", "serverAuth"), ("client", "clientAuth")] {
            this.sign(name, usage);
        }
        this
    }

    /// The certificate of the authority, which a client has to trust.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// The server's certificate.
    #[must_use]
    pub fn server_file(&self) -> PathBuf {
        self.directory.join("server.pem")
    }

    /// The server's private key.
    #[must_use]
    pub fn server_key_file(&self) -> PathBuf {
        self.directory.join("server.key")
    }

    /// A client's certificate, with the common name `client`.
    #[must_use]
    pub fn client_file(&self) -> PathBuf {
        self.directory.join("client.pem")
    }

    /// The client's private key.
    #[must_use]
    pub fn client_key_file(&self) -> PathBuf {
        self.directory.join("client.key")
    }

    fn sign(&self, name: &str, usage: &str) {
        let text = format!(
            "basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage={usage}\n"
        );
        fs::write(self.directory.join(format!("{name}.ext")), text).expect("the extensions of a certificate");
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -extfile {name}.ext \
             -out {name}.pem"
        ));
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(&self.directory)
            .output()
            .unwrap_or_else(|error| panic!("openssl: {error}: run tests/services/install all"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {errors}");
    }
}
