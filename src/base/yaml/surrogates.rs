//! Characters beyond U+FFFF as JSON escapes them, in two halves: `\ud83d\ude80`. The parser does not support halves. They are
//! masked before the parser reads the text, each by another first digit, as a character that the text does not have. The mask
//! takes the same room, so the parser's positions hold for the text itself.

use std::borrow::Cow;

use saphyr_parser::ScalarStyle;

/// Where 2,048 characters begin that differ from the halves by their first digit alone: of private use, and Hangul
/// syllables. The text may have some of them itself.
const BLOCKS: [u32; 3] = [0xe800, 0xc800, 0xb800];
const FIRST: u32 = 0xd800;
const COUNT: u32 = 0x800;

/// What stands for halves in a text that was masked.
#[derive(Clone, Copy)]
pub(super) struct Mask {
    block: u32,
}

/// `text` with its halves masked; `None` where there are none, or no characters to mask them with.
pub(super) fn mask(text: &str) -> Option<(String, Mask)> {
    // An escaped backslash escapes nothing.
    let is_escape = |at: usize| text[..at].bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 0;
    let mut halves = escapes(text).filter(|(at, code)| is_half(*code) && is_escape(*at)).peekable();
    halves.peek()?;
    let has = |block: u32| {
        let holds = |code: u32| (block..block + COUNT).contains(&code);
        text.chars().any(|c| holds(c.into())) || escapes(text).any(|(_, code)| holds(code))
    };
    let block = BLOCKS.into_iter().find(|block| !has(*block))?;
    let mut masked = text.to_owned();
    halves.for_each(|(at, _)| exchange(&mut masked, at, block));
    Some((masked, Mask { block }))
}

/// Gives the escape at a place of `text` the first digit of `block`. What is unmasked must be what was there: the case of
/// the letters, too.
fn exchange(text: &mut String, at: usize, block: u32) {
    let is_upper = text[at + 2..].starts_with(|c: char| c.is_ascii_uppercase());
    let digit = format!("{:x}", block >> 12);
    text.replace_range(at + 2..at + 3, &if is_upper { digit.to_ascii_uppercase() } else { digit });
}

impl Mask {
    /// What `text`, a scalar of the masked text, says; and whether it has a half without the other, which stands as
    /// U+FFFD in it.
    pub fn unmask<'t>(self, text: &'t str, style: ScalarStyle) -> (Cow<'t, str>, bool) {
        let half =
            |code: u32| u16::try_from(code.checked_sub(self.block)? + FIRST).ok().filter(|c| is_half((*c).into()));
        if style != ScalarStyle::DoubleQuoted {
            // No escape means anything here.
            let mut plain = text.to_owned();
            let masked = escapes(text).filter(|(_, code)| half(*code).is_some());
            masked.for_each(|(at, _)| exchange(&mut plain, at, FIRST));
            return (plain.into(), false);
        }
        if !text.chars().any(|c| half(c.into()).is_some()) {
            return (text.into(), false);
        }
        let mut units = Vec::with_capacity(text.len());
        let mut buffer = [0; 2];
        for c in text.chars() {
            match half(c.into()) {
                Some(code) => units.push(code),
                None => units.extend_from_slice(c.encode_utf16(&mut buffer)),
            }
        }
        let mut is_broken = false;
        let chars = char::decode_utf16(units).map(|c| {
            c.unwrap_or_else(|_| {
                is_broken = true;
                char::REPLACEMENT_CHARACTER
            })
        });
        (chars.collect::<String>().into(), is_broken)
    }
}

fn is_half(code: u32) -> bool {
    (FIRST..FIRST + COUNT).contains(&code)
}

/// Everything that could be an escape of four digits: where it begins, and its code.
fn escapes(text: &str) -> impl Iterator<Item = (usize, u32)> {
    text.match_indices("\\u").filter_map(move |(at, _)| {
        let digits = text.get(at + 2..at + 6).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        Some((at, u32::from_str_radix(digits, 16).ok()?))
    })
}
