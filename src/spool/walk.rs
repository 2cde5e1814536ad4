//! Walks through a segment, item by item.

use std::{io, path::Path, time::SystemTime};

use amibus_contract::Bytes;

use super::{
    format::{self, Fault, Item, Parsed, SEGMENT_HEADER_BYTES},
    fs::Filesystem,
    lost::{Lost, time},
};

/// A place in a segment.
pub(super) struct Walk<F: Filesystem> {
    fs: F,
    file: F::File,
    /// The segment, by its first sequence.
    pub(super) segment: u64,
    /// Of the next item.
    pub(super) offset: u64,
    /// The next item's number.
    pub(super) expected: u64,
    /// What was read and not yet walked over; begins at `offset`.
    buffer: Bytes,
    /// Nothing is read from here on: what a segment that is being written to has there may yet change.
    pub(super) end: u64,
    /// How much is read at a time, where an item is not larger.
    read_bytes: usize,
}

/// What a step found.
#[derive(Debug)]
pub(super) enum Step {
    Record {
        sequence: u64,
        at: SystemTime,
        payload: Bytes,
    },
    Hole(Lost),
    /// The end of the file, between two items.
    End,
    /// Nothing can be read from here on. The place stays as it is.
    Bad(Fault),
}

impl<F: Filesystem + Clone> Walk<F> {
    /// At the first item of a segment.
    ///
    /// # Errors
    /// The inner one when the header is damaged.
    pub(super) fn open(
        fs: &F,
        dir: &Path,
        segment: u64,
        read_bytes: usize,
    ) -> io::Result<Result<Self, Fault>> {
        let file = fs.open(&dir.join(format::segment_name(segment)), false)?;
        let mut header = [0; SEGMENT_HEADER_BYTES];
        let read = fs.read_at(&file, &mut header, 0)?;
        let end = fs.len(&file)?;
        let checked = format::check_header(header.get(..read).unwrap_or_default(), segment);
        Ok(checked.map(|()| Self {
            fs: fs.clone(),
            file,
            segment,
            offset: SEGMENT_HEADER_BYTES as u64,
            expected: segment,
            buffer: Bytes::new(),
            end,
            read_bytes,
        }))
    }

    /// The next item.
    ///
    /// # Errors
    /// Those of the disk; the place stays as it is.
    pub(super) fn step(&mut self) -> io::Result<Step> {
        let mut asked = 0;
        loop {
            // What was read earlier may have been the unfinished end of a segment that is being written.
            let wanted = match format::parse(&self.buffer, self.expected) {
                Parsed::Item(item, bytes) => return Ok(self.found(item, bytes)),
                Parsed::Bad(fault) if asked > 0 => return Ok(Step::Bad(fault)),
                Parsed::More(bytes) if asked >= bytes => {
                    return Ok(if self.buffer.is_empty() { Step::End } else { Step::Bad(Fault::Short) });
                }
                Parsed::Bad(_) => 0,
                Parsed::More(bytes) => bytes,
            };
            asked = wanted.max(self.read_bytes);
            self.fill(asked)?;
        }
    }

    /// How long the file is now.
    pub(super) fn file_bytes(&self) -> io::Result<u64> {
        self.fs.len(&self.file)
    }

    /// Bytes from this place on, at most `most`.
    pub(super) fn rest(&self, most: usize) -> io::Result<Vec<u8>> {
        let there = usize::try_from(self.file_bytes()?.saturating_sub(self.offset)).unwrap_or(most);
        let mut bytes = vec![0; there.min(most)];
        let read = self.fs.read_at(&self.file, &mut bytes, self.offset)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    fn found(&mut self, item: Item, bytes: usize) -> Step {
        self.expected = item.next();
        self.offset += bytes as u64;
        let whole = self.buffer.split_to(bytes);
        match item {
            Item::Hole(lost) => Step::Hole(lost),
            Item::Record { sequence, micros, payload } => {
                Step::Record { sequence, at: time(micros), payload: whole.slice(payload) }
            }
        }
    }

    /// Reads from this place on, `size` bytes where there are so many.
    fn fill(&mut self, size: usize) -> io::Result<()> {
        let size = size.min(usize::try_from(self.end.saturating_sub(self.offset)).unwrap_or(size));
        let mut bytes = match std::mem::take(&mut self.buffer).try_into_mut() {
            Ok(own) => own.into(),
            Err(_shared) => Vec::new(),
        };
        bytes.resize(size, 0);
        let read = self.fs.read_at(&self.file, &mut bytes, self.offset)?;
        bytes.truncate(read);
        self.buffer = bytes.into();
        Ok(())
    }
}
