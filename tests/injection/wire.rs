//! How Asterisk reads what a client sends, written from `main/manager.c` (`get_input`, `do_message`) and from what was
//! measured; nothing of it is shared with amibus.

/// Bytes of a line with its end that still fit Asterisk's buffer; of a longer one it makes something else.
const MAX_LINE_BYTES: usize = 1024;
/// Headers of an action that Asterisk keeps.
const MAX_HEADERS: usize = 128;

/// One action as Asterisk takes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Taken {
    pub(super) action: Vec<u8>,
    /// The other headers but the ActionID, name and value, in order.
    pub(super) headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) action_id: Vec<u8>,
}

impl Taken {
    /// For a message about it.
    pub(super) fn shown(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.action).into_owned();
        for (name, value) in &self.headers {
            text += &format!(" | {}: {:.80}", name.escape_ascii(), value.escape_ascii().to_string());
        }
        text
    }
}

/// Takes what one connection sent apart.
///
/// # Errors
/// What Asterisk would have cut, dropped or taken for something else.
pub(super) fn read(sent: &[u8]) -> Result<Vec<Taken>, String> {
    let (mut taken, mut lines) = (Vec::new(), Vec::<&[u8]>::new());
    let mut rest = sent;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = rest.split_at(end + 1);
        rest = after;
        if line.len() > MAX_LINE_BYTES {
            return Err(format!("a line of {} bytes ends its action early", line.len()));
        }
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return Err(format!("a line that ends in LF alone: {:?}", line.escape_ascii().to_string()));
        };
        if line.contains(&0) || line.contains(&b'\r') {
            return Err(format!("NUL or CR within a line: {:?}", line.escape_ascii().to_string()));
        }
        if !line.is_empty() {
            lines.push(line);
            continue;
        }
        taken.push(action(&lines)?);
        lines.clear();
    }
    match (rest.is_empty(), lines.is_empty()) {
        (true, true) => Ok(taken),
        // It is on its way still; whoever waits looks again.
        _ => Err("it ends amid an action".to_owned()),
    }
}

fn action(lines: &[&[u8]]) -> Result<Taken, String> {
    if lines.len() > MAX_HEADERS {
        return Err(format!("an action of {} headers loses some", lines.len()));
    }
    if lines.is_empty() {
        return Err("an action without a line".to_owned());
    }
    let mut all = Vec::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':');
        let colon = colon.ok_or_else(|| format!("no colon in {:?}", line.escape_ascii().to_string()))?;
        // Asterisk skips what is no more than a blank before a value; one blank is the separator of everybody.
        let value = line[colon + 1..].strip_prefix(b" ").unwrap_or(&line[colon + 1..]);
        all.push((line[..colon].to_vec(), value.to_vec()));
    }
    let of = |name: &str| {
        let mut found = all.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name.as_bytes()));
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Ok(value.clone()),
            (first, _) => {
                Err(format!("{name} stands {} in {all:?}", if first.is_some() { "twice" } else { "not" }))
            }
        }
    };
    let (action, action_id) = (of("Action")?, of("ActionID")?);
    let own = |name: &[u8]| name.eq_ignore_ascii_case(b"Action") || name.eq_ignore_ascii_case(b"ActionID");
    let headers = all.into_iter().filter(|(name, _)| !own(name)).collect();
    Ok(Taken { action, headers, action_id })
}

#[test]
fn it_finds_what_asterisk_would_find() {
    let read = |text: &str| read(text.as_bytes());
    let one = read("Action: Ping\r\nActionID: 1\r\nA:  x\r\n\r\n").expect("well formed");
    assert_eq!(one.len(), 1);
    assert_eq!(one[0].headers, [(b"A".to_vec(), b" x".to_vec())]);
    let forged = read("Action: Ping\r\nActionID: 1\r\nA: x\r\n\r\nAction: Logoff\r\nActionID: 2\r\n\r\n");
    assert_eq!(forged.expect("two").len(), 2);
    let line = |bytes: usize| format!("Action: Ping\r\nActionID: 1\r\nA: {}\r\n\r\n", "x".repeat(bytes - 3));
    assert!(read(&line(1022)).is_ok() && read(&line(1023)).is_err());
    let many = |count: usize| format!("Action: Ping\r\nActionID: 1\r\n{}\r\n", "A: x\r\n".repeat(count - 2));
    assert!(read(&many(128)).is_ok() && read(&many(129)).is_err());
    for bad in [
        "Action: Ping\r\nActionID: 1\r\nA: x\n\r\n",
        "Action: Ping\r\nActionID: 1\r\nA: x\ry\r\n\r\n",
        "Action: Ping\r\nActionID: 1\r\nA: x\0y\r\n\r\n",
        "Action: Ping\r\naction: Logoff\r\nActionID: 1\r\n\r\n",
        "Action: Ping\r\n\r\n",
        "\r\n",
        "Action: Ping\r\nActionID: 1\r\n",
    ] {
        assert!(read(bad).is_err(), "{bad:?}");
    }
}
