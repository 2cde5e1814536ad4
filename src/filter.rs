//! Which events are published at all. Pure: an event is judged by its bytes, before it is encoded.
//!
//! Rules are asked in order, and the first that fits decides; where none fits, the event is kept. What amibus
//! says itself (`ami.link.*`) is no event and never asked about.

use amibus_ami::{Frame, Kind};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::route;

/// Rules of one filter.
pub const MAX_RULES: usize = 256;
/// Globs of one rule.
pub const MAX_RULE_GLOBS: usize = 256;

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is published.
    Keep,
    /// It is not, and takes no sequence number.
    Drop,
}

/// A rule as it is configured. An empty list asks for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What becomes of an event that fits.
    pub verdict: Verdict,
    /// Globs of event names, in any case. What is torn off a message is called [`route::UNPARSED`].
    pub events: Vec<String>,
    /// Globs of servers' names.
    pub servers: Vec<String>,
    /// Header names, in any case, and globs of the value as it stands on the wire. Each name must be there with a
    /// value that one of its globs fits; of a header that repeats, any value counts.
    pub fields: Vec<(String, Vec<String>)>,
}

/// Why a filter could not be built. Nothing mends it but another configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// A glob that is none.
    #[error("filter rule {rule}: {glob:?} is not a glob: {reason}")]
    Glob {
        /// Position of the rule, from 1.
        rule: usize,
        /// The glob as configured.
        glob: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A field without globs could never fit.
    #[error("filter rule {rule}: field {field:?} has no globs")]
    NoGlobs {
        /// Position of the rule, from 1.
        rule: usize,
        /// The field.
        field: String,
    },
    /// More than [`MAX_RULES`].
    #[error("at most {MAX_RULES} filter rules, got {0}")]
    TooManyRules(usize),
    /// More than [`MAX_RULE_GLOBS`].
    #[error("filter rule {0}: at most {MAX_RULE_GLOBS} globs")]
    TooManyGlobs(usize),
}

/// Rules, ready to be asked.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    rules: Vec<Compiled>,
}

#[derive(Clone, Debug)]
struct Compiled {
    verdict: Verdict,
    events: Option<GlobSet>,
    servers: Option<GlobSet>,
    fields: Vec<(String, GlobSet)>,
}

impl Filter {
    /// Builds a filter.
    ///
    /// # Errors
    /// When a glob is none, a field has no globs, or there are too many of either.
    pub fn new(rules: &[Rule]) -> Result<Self, FilterError> {
        if rules.len() > MAX_RULES {
            return Err(FilterError::TooManyRules(rules.len()));
        }
        let rules =
            rules.iter().enumerate().map(|(at, rule)| compile(at + 1, rule)).collect::<Result<_, _>>()?;
        Ok(Self { rules })
    }

    /// Whether that server's event is published.
    pub fn keep(&self, server: &str, frame: &Frame<'_>) -> bool {
        if self.rules.is_empty() || frame.kind() == Kind::Response {
            return true;
        }
        let fitting = self.rules.iter().find(|rule| rule.fits(server, frame));
        fitting.is_none_or(|rule| rule.verdict == Verdict::Keep)
    }
}

impl Compiled {
    fn fits(&self, server: &str, frame: &Frame<'_>) -> bool {
        self.servers.as_ref().is_none_or(|globs| globs.is_match(server))
            && self.events.as_ref().is_none_or(|globs| matches(globs, route::name(frame)))
            && self.fields.iter().all(|(name, globs)| {
                frame.headers().any(|header| header.is(name) && matches(globs, header.value))
            })
    }
}

fn matches(globs: &GlobSet, value: &[u8]) -> bool {
    globs.is_match(&*String::from_utf8_lossy(value))
}

fn compile(number: usize, rule: &Rule) -> Result<Compiled, FilterError> {
    let globs = rule.fields.iter().map(|(_, globs)| globs.len()).sum::<usize>();
    if rule.events.len() + rule.servers.len() + globs > MAX_RULE_GLOBS {
        return Err(FilterError::TooManyGlobs(number));
    }
    let fields = rule.fields.iter().map(|(name, globs)| {
        let set = globs_of(number, globs, false)?;
        set.map(|set| (name.clone(), set))
            .ok_or_else(|| FilterError::NoGlobs { rule: number, field: name.clone() })
    });
    Ok(Compiled {
        verdict: rule.verdict,
        events: globs_of(number, &rule.events, true)?,
        servers: globs_of(number, &rule.servers, false)?,
        fields: fields.collect::<Result<_, _>>()?,
    })
}

fn globs_of(rule: usize, globs: &[String], any_case: bool) -> Result<Option<GlobSet>, FilterError> {
    let wrong = |glob: &str, reason: globset::Error| FilterError::Glob {
        rule,
        glob: glob.to_owned(),
        reason: reason.kind().to_string(),
    };
    if globs.is_empty() {
        return Ok(None);
    }
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        set.add(
            GlobBuilder::new(glob).case_insensitive(any_case).build().map_err(|error| wrong(glob, error))?,
        );
    }
    set.build().map(Some).map_err(|error| wrong(&globs.join(", "), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verdict: Verdict, events: &[&str], servers: &[&str], fields: &[(&str, &[&str])]) -> Rule {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        Rule {
            verdict,
            events: owned(events),
            servers: owned(servers),
            fields: fields.iter().map(|(name, globs)| ((*name).to_owned(), owned(globs))).collect(),
        }
    }

    fn keeps(filter: &Filter, server: &str, message: &str) -> bool {
        filter.keep(server, &Frame::parse(message.replace('\n', "\r\n").as_bytes()))
    }

    #[test]
    fn nothing_configured_keeps_everything() {
        assert!(keeps(&Filter::default(), "pbx1", "Event: RTCPSent"));
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = [
            rule(Verdict::Keep, &["VarSet"], &[], &[("Variable", &["ORDER*"])]),
            rule(Verdict::Drop, &["VarSet", "RTCP*"], &[], &[]),
            rule(Verdict::Keep, &["RTCPSent"], &[], &[]),
        ];
        let filter = Filter::new(&rules).expect("valid");
        assert!(keeps(&filter, "pbx1", "Event: VarSet\nVariable: ORDER_ID\nValue: 1"));
        assert!(!keeps(&filter, "pbx1", "Event: VarSet\nVariable: OTHER\nValue: 1"));
        assert!(!keeps(&filter, "pbx1", "Event: RTCPSent"));
        assert!(keeps(&filter, "pbx1", "Event: Hangup"));
    }

    #[test]
    fn names_are_matched_in_any_case_and_values_are_not() {
        let drop = |events: &[&str], fields: &[(&str, &[&str])]| {
            Filter::new(&[rule(Verdict::Drop, events, &[], fields)]).expect("valid")
        };
        assert!(!keeps(&drop(&["NewExten"], &[]), "pbx1", "Event: Newexten"));
        let filter = drop(&[], &[("channel", &["Local/*@sales", "PJSIP/10[0-3]-*"])]);
        assert!(!keeps(&filter, "pbx1", "Event: Hangup\nChannel: Local/5/6@sales"));
        assert!(!keeps(&filter, "pbx1", "Event: Hangup\nChannel: PJSIP/102-00000001"));
        assert!(keeps(&filter, "pbx1", "Event: Hangup\nChannel: pjsip/102-00000001"));
        assert!(keeps(&filter, "pbx1", "Event: Hangup"), "a field that is not there fits no glob");
    }

    #[test]
    fn every_field_of_a_rule_must_fit_in_any_of_its_values() {
        let fields: &[(&str, &[&str])] = &[("Context", &["sales"]), ("ChanVariable", &["VIP=1"])];
        let filter = Filter::new(&[rule(Verdict::Drop, &[], &["pbx*"], fields)]).expect("valid");
        let fits = "Event: Newexten\nContext: sales\nChanVariable: A=b\nChanVariable: VIP=1";
        assert!(!keeps(&filter, "pbx1", fits));
        assert!(keeps(&filter, "edge1", fits));
        assert!(keeps(&filter, "pbx1", "Event: Newexten\nContext: sales\nChanVariable: VIP=0"));
    }

    #[test]
    fn torn_off_text_has_a_name_and_responses_are_not_asked_about() {
        let filter = Filter::new(&[rule(Verdict::Drop, &["*"], &[], &[])]).expect("valid");
        assert!(!keeps(&filter, "pbx1", "line3\nEvent: Hangup"));
        assert!(keeps(&filter, "pbx1", "Response: Success"));
        let filter = Filter::new(&[rule(Verdict::Drop, &["Unparsed"], &[], &[])]).expect("valid");
        assert!(!keeps(&filter, "pbx1", "line3"));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        let bad = Filter::new(&[rule(Verdict::Drop, &[], &[], &[]), rule(Verdict::Drop, &["a[b"], &[], &[])]);
        assert!(matches!(bad, Err(FilterError::Glob { rule: 2, glob, .. }) if glob == "a[b"));
        let bad = Filter::new(&[rule(Verdict::Drop, &[], &[], &[("Context", &[])])]);
        assert!(matches!(bad, Err(FilterError::NoGlobs { rule: 1, .. })));
        let many = vec!["x"; MAX_RULE_GLOBS + 1];
        assert_eq!(
            Filter::new(&[rule(Verdict::Drop, &many, &[], &[])]).err(),
            Some(FilterError::TooManyGlobs(1))
        );
        let many = vec![rule(Verdict::Drop, &[], &[], &[]); MAX_RULES + 1];
        assert_eq!(Filter::new(&many).err(), Some(FilterError::TooManyRules(MAX_RULES + 1)));
    }
}
