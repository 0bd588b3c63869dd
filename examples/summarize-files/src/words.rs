//! Counts words.

use std::{cmp::Reverse, collections::BTreeMap};

/// Words so common that they say nothing about a text.
const STOP_WORDS: &[&str] = &[
    "about", "after", "all", "also", "and", "any", "are", "because", "been", "but", "can", "could", "did", "does",
    "each", "for", "from", "had", "has", "have", "her", "his", "how", "into", "its", "may", "more", "must", "not",
    "one", "only", "other", "our", "out", "over", "shall", "she", "should", "some", "such", "than", "that", "the",
    "their", "them", "then", "there", "these", "they", "this", "those", "was", "were", "what", "when", "where",
    "which", "who", "why", "will", "with", "would", "you", "your",
];

/// How many words a text has, and how often it uses its terms.
#[derive(Debug, Default)]
pub struct Words {
    /// All of them, stop words and numbers too.
    pub count: u64,
    terms: BTreeMap<String, u64>,
}

impl Words {
    /// Counts a text.
    ///
    /// A word is a run of letters and digits. A term is a word in lower case
    /// that begins with a letter, has three or more, and is no stop word.
    pub fn of(text: &str) -> Self {
        let mut words = Self::default();
        for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
            words.count += 1;
            let term = word.to_lowercase();
            if term.starts_with(char::is_alphabetic)
                && term.chars().count() >= 3
                && STOP_WORDS.binary_search(&term.as_str()).is_err()
            {
                *words.terms.entry(term).or_default() += 1;
            }
        }
        words
    }

    /// Adds what another text has.
    pub fn add(&mut self, other: Self) {
        self.count += other.count;
        for (term, count) in other.terms {
            *self.terms.entry(term).or_default() += count;
        }
    }

    /// Gives the most frequent terms, those of one frequency in alphabetical order.
    pub fn top(&self, limit: usize) -> Vec<(&str, u64)> {
        let mut terms: Vec<_> = self.terms.iter().map(|(term, count)| (term.as_str(), *count)).collect();
        terms.sort_by_key(|&(_, count)| Reverse(count));
        terms.truncate(limit);
        terms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stop_words_are_sorted_for_the_search() {
        assert!(STOP_WORDS.is_sorted());
    }

    #[test]
    fn words_are_counted_and_terms_are_ranked() {
        for (text, count, top) in [
            ("", 0, vec![]),
            (" -- \n", 0, vec![]),
            ("The lease, the LEASE and its gate.", 7, vec![("lease", 2), ("gate", 1)]),
            ("zebra apple zebra apple", 4, vec![("apple", 2), ("zebra", 2)]),
            ("2026 x1 3rd io", 4, vec![]),
            ("Straße straße Öl", 3, vec![("straße", 2)]),
            ("a_b snake_case", 4, vec![("case", 1), ("snake", 1)]),
        ] {
            let words = Words::of(text);
            assert_eq!((words.count, words.top(5)), (count, top), "{text}");
        }
    }

    #[test]
    fn a_sum_counts_as_the_joined_text_does() {
        let mut sum = Words::of("lease gate lease");
        sum.add(Words::of("gate gate permit"));
        assert_eq!((sum.count, sum.top(2)), (6, vec![("gate", 3), ("lease", 2)]));
    }
}
