//! The least Asterisk there is.

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};

/// Plays it: banner, login, and one and the same answer to everything else.
pub(super) async fn answer_all(listener: TcpListener, answer: &'static [u8]) {
    while let Ok((stream, _)) = listener.accept().await {
        let mut stream = BufReader::new(stream);
        let mut send = "Asterisk Call Manager/11.0.0\r\n".to_owned();
        let (mut action, mut id) = (String::new(), String::new());
        loop {
            if stream.write_all(send.as_bytes()).await.is_err() {
                break;
            }
            send.clear();
            let mut line = String::new();
            if !matches!(stream.read_line(&mut line).await, Ok(1..)) {
                break;
            }
            match line.trim_end().split_once(": ") {
                Some(("Action", name)) => name.clone_into(&mut action),
                Some(("ActionID", value)) => value.clone_into(&mut id),
                None if action == "Login" => {
                    send = format!(
                        "Response: Success\r\nActionID: {id}\r\nMessage: Authentication accepted\r\n\r\n"
                    );
                    send.push_str(
                        "Event: FullyBooted\r\nPrivilege: system,all\r\nStatus: Fully Booted\r\n\r\n",
                    );
                }
                None => send = String::from_utf8_lossy(answer).replace('%', &id),
                Some(_) => {}
            }
        }
    }
}
