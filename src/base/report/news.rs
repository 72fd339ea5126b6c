//! What a loop says once: numbers that run are no news.

use super::Reporter;

/// What was said last.
#[derive(Debug, Default)]
pub struct News(String);

impl News {
    /// Says `text`, unless that was said last, with whatever numbers.
    pub fn note(&mut self, reporter: &Reporter, text: String) {
        if without_numbers(&self.0) != without_numbers(&text) {
            reporter.note(&text);
            self.0 = text;
        }
    }
}

/// A text without its digits: what is left of two is the same where only numbers differ.
pub fn without_numbers(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}
