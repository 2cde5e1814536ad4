//! The engine's own listening socket, where no peer can reach it.

use std::{
    fs::Permissions,
    io,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::PathBuf,
};

use amibus_contract::{Fault, FaultKind};
use tempfile::TempDir;

/// A directory that only this user can enter, with an unguessable name, and a socket in it. Both are gone when this is.
pub(crate) struct PrivateSocket {
    directory: TempDir,
}

impl PrivateSocket {
    /// Makes the directory and listens.
    pub(crate) fn listen() -> Result<(Self, UnixListener), Fault> {
        let made = || -> io::Result<_> {
            let directory = tempfile::Builder::new()
                .prefix("amibus-")
                .rand_bytes(16)
                .permissions(Permissions::from_mode(0o700))
                .tempdir()?;
            let this = Self { directory };
            let listener = UnixListener::bind(this.path())?;
            Ok((this, listener))
        };
        made().map_err(|error| {
            let place = std::env::temp_dir();
            let message = format!("cannot make a private socket in {} (TMPDIR): {error}", place.display());
            Fault::new(FaultKind::Unreachable, message)
        })
    }

    /// Where the socket is.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("engine")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_can_enter_and_nothing_is_left() {
        let (socket, _listener) = PrivateSocket::listen().expect("a socket");
        let directory = socket.directory.path().to_owned();
        let mode = std::fs::metadata(&directory).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        drop(socket);
        assert!(!directory.exists());
    }
}
