//! Patterns in the filters of EC2.

/// Longest value of a filter that EC2 accepts, in characters.
const MAX_CHARACTERS: usize = 255;

/// Whether `text` matches `pattern` by the rules of EC2's filters: `*` stands for any characters,
/// `?` for one, and each for itself after a backslash. A pattern of more than 255 characters
/// matches nothing.
pub fn fits_pattern(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    // Time grows with both lengths.
    if pattern.len() > MAX_CHARACTERS {
        return false;
    }
    // `reached[n]`: the first n characters of the text match the pattern so far.
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    let mut at = 0;
    while let Some(&char) = pattern.get(at) {
        let escaped =
            pattern.get(at + 1).filter(|next| char == '\\' && matches!(next, '*' | '?' | '\\'));
        let mut next = vec![false; text.len() + 1];
        for end in 0..=text.len() {
            next[end] = match (char, escaped) {
                ('*', _) => reached[end] || end > 0 && next[end - 1],
                ('?', _) => end > 0 && reached[end - 1],
                (_, Some(escaped)) => end > 0 && reached[end - 1] && text[end - 1] == *escaped,
                (char, None) => end > 0 && reached[end - 1] && text[end - 1] == char,
            };
        }
        at += 1 + usize::from(escaped.is_some());
        reached = next;
    }
    reached[text.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_filters_are_patterns() {
        for (pattern, text) in [
            ("", ""),
            ("a", "a"),
            ("*", ""),
            ("*", "ab"),
            ("a*c", "abbc"),
            ("*b?", "abc"),
            (r"\*", "*"),
            (r"a\b", r"a\b"),
            ("ä?", "äö"),
        ] {
            assert!(fits_pattern(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("a", ""),
            ("a", "ab"),
            ("?", ""),
            ("a*c", "abcd"),
            (r"\*", "a"),
            ("A", "a"),
        ] {
            assert!(!fits_pattern(pattern, text), "{pattern} {text}");
        }
        assert!(fits_pattern(&"*".repeat(255), "a") && !fits_pattern(&"*".repeat(256), "a"));
    }
}
