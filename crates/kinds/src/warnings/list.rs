//! The warnings of one write, as far as anybody may come to see them.

use std::fmt::{self, Display, Write};

/// How much of one warning is kept, in bytes: an answer shows 4,096 characters of all of them together.
const WARNING_MAX_BYTES: usize = 32 << 10;
/// How much text is kept in all, in bytes. A warning names the path of a value that may be a single character, or a
/// pair of values, so that an object as large as a request's body could make gigabytes; what comes after this much is
/// not even put in words.
const TEXT_MAX_BYTES: usize = 1 << 20;

/// Collects warnings.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    list: Vec<String>,
    text_bytes: usize,
}

impl Warnings {
    /// Whether one more would be dropped.
    pub(super) fn is_full(&self) -> bool {
        self.text_bytes >= TEXT_MAX_BYTES
    }

    /// Adds one, as long as there is room. `format_args!` spares the words where there is none.
    pub(super) fn push(&mut self, text: impl Display) {
        if self.is_full() {
            return;
        }
        let mut cut = Cut(String::new());
        // It fails where the text is cut.
        let _ = write!(cut, "{text}");
        self.text_bytes += cut.0.len();
        self.list.push(cut.0);
    }

    pub(super) fn into_vec(self) -> Vec<String> {
        self.list
    }
}

/// A text that takes no more than [`WARNING_MAX_BYTES`].
struct Cut(String);

impl Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut room = WARNING_MAX_BYTES - self.0.len();
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        while !text.is_char_boundary(room) {
            room -= 1;
        }
        self.0.push_str(&text[..room]);
        Err(fmt::Error)
    }
}
