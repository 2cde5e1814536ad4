//! The CloudEvents 1.0 attributes of a message, as places in one text: its body, most often.

use std::{fmt, ops::Range};

use bytes::Bytes;

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// `id`: the same every time the same record is published, unique among all records of a source.
    Id,
    /// `type`, e.g. `ami.event.Hangup`.
    Type,
    /// `source`, e.g. `/asterisk/pbx1`.
    Source,
    /// `time`, RFC 3339 in UTC.
    Time,
    /// `subject`: the call's Uniqueid or Linkedid, where there is one.
    Subject,
    /// `sequence`: the record's position in its server's log, 20 decimal digits.
    Sequence,
    /// `correlationid`: of a response, its command's id.
    Correlation,
}

impl Attribute {
    /// Every attribute, in the order in which buses show them.
    pub const ALL: [Self; 7] =
        [Self::Id, Self::Type, Self::Source, Self::Time, Self::Subject, Self::Sequence, Self::Correlation];

    /// Its name in CloudEvents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Type => "type",
            Self::Source => "source",
            Self::Time => "time",
            Self::Subject => "subject",
            Self::Sequence => "sequence",
            Self::Correlation => "correlationid",
        }
    }
}

/// Where each attribute stands in a text, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places([(u32, u32); Attribute::ALL.len()]);

impl Places {
    /// With `attribute` at these bytes. An attribute at no byte is not there.
    #[must_use]
    pub fn with(mut self, attribute: Attribute, place: Range<u32>) -> Self {
        if let Some(own) = self.0.get_mut(attribute as usize) {
            *own = (place.start, place.end);
        }
        self
    }

    /// Where `attribute` stands, in bytes.
    pub fn of(&self, attribute: Attribute) -> Range<u32> {
        self.0.get(attribute as usize).map_or(0..0, |&(start, end)| start..end)
    }
}

/// The attributes of a message. Most often they are places in its body, and count no reference to that; so it takes the
/// message to read them: [`Message::attributes`](crate::Message::attributes).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The text that they stand in, where that is not the body.
    own: Option<Bytes>,
    places: Places,
}

impl Attributes {
    /// The attributes that stand at these places of the body. One whose place is not UTF-8 within the body is not there.
    pub fn within(places: Places) -> Self {
        Self { own: None, places }
    }

    /// With attributes of these values, which are copied. An empty value is none.
    pub fn of<'v>(values: impl IntoIterator<Item = (Attribute, &'v str)>) -> Self {
        let mut text = Vec::new();
        let mut places = Places::default();
        for (attribute, value) in values {
            let start = text.len();
            text.extend_from_slice(value.as_bytes());
            if let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(text.len())) {
                places = places.with(attribute, start..end);
            }
        }
        Self { own: Some(text.into()), places }
    }

    /// Without that one.
    pub fn remove(&mut self, attribute: Attribute) {
        self.places = self.places.with(attribute, 0..0);
    }

    /// To be read, in a message with that body.
    pub fn shown<'t>(&'t self, body: &'t [u8]) -> Shown<'t> {
        Shown { text: self.own.as_deref().unwrap_or(body), places: &self.places }
    }
}

/// The attributes of a message, to be read; each is in the body too.
#[derive(Clone, Copy)]
pub struct Shown<'t> {
    text: &'t [u8],
    places: &'t Places,
}

impl<'t> Shown<'t> {
    /// The value of an attribute, if it is there.
    pub fn get(self, attribute: Attribute) -> Option<&'t str> {
        let &(start, end) = self.places.0.get(attribute as usize)?;
        let value = self.text.get(start as usize..end as usize).filter(|value| !value.is_empty())?;
        std::str::from_utf8(value).ok()
    }

    /// [`Attribute::Id`], which every message of amibus has.
    pub fn id(self) -> &'t str {
        self.get(Attribute::Id).unwrap_or_default()
    }

    /// [`Attribute::Type`], which every message of amibus has.
    pub fn kind(self) -> &'t str {
        self.get(Attribute::Type).unwrap_or_default()
    }

    /// [`Attribute::Time`], which every message of amibus has.
    pub fn time(self) -> &'t str {
        self.get(Attribute::Time).unwrap_or_default()
    }

    /// [`Attribute::Sequence`].
    pub fn sequence(self) -> Option<&'t str> {
        self.get(Attribute::Sequence)
    }

    /// [`Attribute::Correlation`].
    pub fn correlation(self) -> Option<&'t str> {
        self.get(Attribute::Correlation)
    }

    /// The attributes by their CloudEvents names, `specversion` first; a bus puts its own prefix before each
    /// (`ce-` in NATS, `ce_` in Kafka).
    pub fn iter(self) -> impl Iterator<Item = (&'static str, &'t str)> {
        let there = move |attribute: Attribute| Some((attribute.as_str(), self.get(attribute)?));
        std::iter::once(("specversion", "1.0")).chain(Attribute::ALL.into_iter().filter_map(there))
    }
}

impl PartialEq for Shown<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Shown<'_> {}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_by_its_name() {
        for (at, attribute) in Attribute::ALL.into_iter().enumerate() {
            assert_eq!(attribute as usize, at);
            let attributes = Attributes::of([(attribute, "v\u{e4}lue")]);
            let shown = attributes.shown(b"another text");
            let all: Vec<_> = shown.iter().collect();
            assert_eq!(all, [("specversion", "1.0"), (attribute.as_str(), "v\u{e4}lue")]);
            assert_eq!(shown.get(attribute), Some("v\u{e4}lue"));
        }
    }

    #[test]
    fn where_they_stand_does_not_matter() {
        let copied =
            Attributes::of([(Attribute::Time, "then"), (Attribute::Id, "1:2"), (Attribute::Sequence, "")]);
        let places = Places::default().with(Attribute::Id, 1..4).with(Attribute::Time, 5..9);
        let mut shared = Attributes::within(places.with(Attribute::Source, 9..10));
        let body = b"<1:2,then>";
        assert_ne!(shared.shown(body), copied.shown(body));
        shared.remove(Attribute::Source);
        let shown = shared.shown(body);
        assert_eq!(shown, copied.shown(b""));
        assert_eq!((shown.id(), shown.time(), shown.kind(), shown.sequence()), ("1:2", "then", "", None));
    }

    #[test]
    fn a_place_without_text_is_none() {
        for place in [2..4, 3..9, 9..12, Range { start: 2, end: 1 }, 1..1] {
            let attributes = Attributes::within(Places::default().with(Attribute::Id, place));
            assert_eq!(attributes.shown(b"abc\xff").get(Attribute::Id), None);
        }
    }
}
