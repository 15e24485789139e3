//! Patterns in filters.

/// EC2 takes no longer value of a filter.
const MAX_CHARACTERS: usize = 255;

/// Whether a text fits what EC2's filters take: `*` stands for any characters, `?` for one, and
/// behind a backslash both for themselves. Nothing fits a pattern of more than 255 characters.
pub fn fits_pattern(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    // Time grows with both lengths.
    if pattern.len() > MAX_CHARACTERS {
        return false;
    }
    // Whether all text up to each place fits the pattern so far.
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    let mut at = 0;
    while let Some(&char) = pattern.get(at) {
        let escaped =
            pattern.get(at + 1).filter(|next| char == '\\' && matches!(next, '*' | '?' | '\\'));
        let mut next = vec![false; text.len() + 1];
        for place in 0..=text.len() {
            next[place] = match (char, escaped) {
                ('*', _) => reached[place] || place > 0 && next[place - 1],
                ('?', _) => place > 0 && reached[place - 1],
                (_, Some(escaped)) => {
                    place > 0 && reached[place - 1] && text[place - 1] == *escaped
                }
                (char, None) => place > 0 && reached[place - 1] && text[place - 1] == char,
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
