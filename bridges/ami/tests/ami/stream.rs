//! Bytes cut into chunks, and what a decoder makes of them.

use amibus_ami::{Decoded, Decoder, Frame, FrameError, Limits, Tail};

/// What came out of a stream. Messages are kept as ranges of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) banner: Option<Vec<u8>>,
    pub(crate) frames: Vec<(usize, usize)>,
    pub(crate) empty_lines: u64,
    pub(crate) tail: Vec<u8>,
    pub(crate) error: Option<FrameError>,
}

impl Read {
    pub(crate) fn frames<'b>(&self, bytes: &'b [u8]) -> Vec<Frame<'b>> {
        self.frames.iter().map(|(start, end)| Frame::parse(&bytes[*start..*end])).collect()
    }
}

/// Reads `bytes` as they would arrive in chunks of these sizes, repeated; sizes of 0 count as 1.
pub(crate) fn read(bytes: &[u8], sizes: &[usize], limits: Limits) -> Read {
    let mut decoder = Decoder::new(limits);
    let mut read = Read::default();
    let (mut unread, mut arrived) = (0, 0);
    let mut sizes = sizes.iter().cycle();
    'connection: loop {
        loop {
            match decoder.decode(&bytes[unread..arrived]) {
                Ok(Decoded::Banner { line, consumed }) => {
                    read.banner = Some(line.to_vec());
                    unread += consumed;
                }
                Ok(Decoded::Frame { frame, consumed }) => {
                    let raw = frame.raw();
                    assert_eq!(Frame::parse(raw), frame);
                    let start = raw.as_ptr() as usize - bytes.as_ptr() as usize;
                    read.frames.push((start, start + raw.len()));
                    unread += consumed;
                }
                Ok(Decoded::Incomplete) => break,
                Err(error) => {
                    assert_eq!(decoder.decode(&bytes[unread..arrived]), Err(error), "an error stays");
                    read.error = Some(error);
                    break 'connection;
                }
            }
        }
        if arrived == bytes.len() {
            break;
        }
        arrived = bytes.len().min(arrived + (*sizes.next().unwrap()).max(1));
    }
    read.empty_lines = decoder.empty_lines();
    if read.error.is_none()
        && let Tail::Cut(tail) = decoder.finish(&bytes[unread..])
    {
        read.tail = tail.to_vec();
    }
    read
}

pub(crate) fn read_whole(bytes: &[u8]) -> Read {
    read(bytes, &[usize::MAX / 2], Limits::default())
}

/// The messages of a stream that begins with the banner of Asterisk 22.
pub(crate) fn stream(messages: &[u8]) -> Vec<u8> {
    [b"Asterisk Call Manager/11.0.0\r\n", messages].concat()
}
