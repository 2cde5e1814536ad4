//! The nearest right spelling of a word.

/// How unlike two words may be, from 0 (alike) to 1, for one to be offered for the other.
const MAX_UNLIKENESS: f64 = 0.45;
/// How unlike a word is to one that it begins, or that begins it.
const BEGINNING_UNLIKENESS: f64 = 0.4;
/// The shortest beginning that tells anything, in characters.
const MIN_BEGINNING_CHARS: usize = 3;

/// The candidate that `word` was probably meant to be, if any is near.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = simple(word);
    candidates
        .into_iter()
        .map(|candidate| (unlikeness(&word, &simple(candidate)), candidate))
        .min_by(|(a, _), (b, _)| a.total_cmp(b))
        .filter(|(unlikeness, _)| *unlikeness <= MAX_UNLIKENESS)
        .map(|(_, candidate)| candidate)
}

fn unlikeness(word: &str, candidate: &str) -> f64 {
    let edits = 1.0 - strsim::normalized_damerau_levenshtein(word, candidate);
    let (short, long) = if word.len() < candidate.len() { (word, candidate) } else { (candidate, word) };
    let beginning = short.len() >= MIN_BEGINNING_CHARS && long.starts_with(short);
    if beginning { edits.min(BEGINNING_UNLIKENESS) } else { edits }
}

/// Case, `-` and `_` are what people get wrong first.
fn simple(word: &str) -> String {
    word.to_ascii_lowercase().replace('-', "_")
}

/// `; did you mean "x"?` or, where nothing is near, `; known are ...`. Empty where nothing is known.
pub(super) fn hint<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> String {
    if let Some(near) = nearest(word, candidates.clone()) {
        return format!("; did you mean {near:?}?");
    }
    let known: Vec<&str> = candidates.into_iter().collect();
    if known.is_empty() { String::new() } else { format!("; known are {}", known.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let known = ["url", "username", "secret", "connect_timeout"];
        for (word, expected) in [
            ("usrname", Some("username")),
            ("user", Some("username")),
            ("connect-timeout", Some("connect_timeout")),
            ("URL", Some("url")),
            ("secert", Some("secret")),
            ("max_bytes", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
