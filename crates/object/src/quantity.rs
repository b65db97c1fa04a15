//! Resource quantities: `100m`, `1.5Gi`, `2e3`.
//!
//! Follows upstream's `resource.Quantity`: three formats, precision of one nano (rounded away
//! from zero), and one canonical text (no fraction, the largest suffix that keeps the number whole).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Nanos in one whole.
const NANOS: i128 = 1_000_000_000;
/// What a quantity is capped at when it does not fit: 2^63-1 wholes.
const MAX_NANOS: i128 = i64::MAX as i128 * NANOS;
/// Digits of a number that are looked at; more can only be beyond the cap or below a nano.
const MAX_DIGITS: usize = 37;

/// Numbers of up to so many digits are not capped.
const UNCAPPED_DIGITS: usize = 18;

/// Why a text is not a quantity; worded as upstream does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantityError {
    /// Not of the form number and suffix.
    Format,
    /// An unknown suffix.
    Suffix,
}

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Format => {
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            }
            Self::Suffix => "unable to parse quantity's suffix",
        })
    }
}

impl std::error::Error for QuantityError {}

/// The family of suffixes that a quantity is written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantityFormat {
    /// `k`, `M`, `m`, …
    DecimalSi,
    /// `Ki`, `Mi`, …
    BinarySi,
    /// `e3`, `e-3`, …
    DecimalExponent,
}

/// A fixed-point number with a format. Compares by value alone.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: QuantityFormat,
}

impl Quantity {
    /// Zero.
    pub const ZERO: Quantity = Quantity { nanos: 0, format: QuantityFormat::DecimalSi };

    /// Whole units, written with decimal suffixes.
    pub const fn from_value(value: i64) -> Self {
        Quantity { nanos: value as i128 * NANOS, format: QuantityFormat::DecimalSi }
    }

    /// Thousandths, written with decimal suffixes.
    pub const fn from_milli(milli: i64) -> Self {
        Quantity { nanos: milli as i128 * (NANOS / 1000), format: QuantityFormat::DecimalSi }
    }

    /// Whole units, written with binary suffixes.
    pub const fn from_bytes(bytes: i64) -> Self {
        Quantity { nanos: bytes as i128 * NANOS, format: QuantityFormat::BinarySi }
    }

    /// Parses a quantity.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let bytes = text.as_bytes();
        let (negative, start) = match bytes.first() {
            Some(b'-') => (true, 1),
            Some(b'+') => (false, 1),
            Some(_) => (false, 0),
            None => return Err(QuantityError::Format),
        };
        let digits = |from: usize| from + bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
        let whole_end = digits(start);
        let (whole, mut fraction, suffix) = if bytes.get(whole_end) == Some(&b'.') {
            let end = digits(whole_end + 1);
            (&text[start..whole_end], &text[whole_end + 1..end], &text[end..])
        } else {
            (&text[start..whole_end], "", &text[whole_end..])
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(QuantityError::Format);
        }
        let (base, exponent, mut format) = suffix_of(suffix)?;
        let whole = whole.trim_start_matches('0');
        fraction = fraction.trim_end_matches('0');
        let mut nanos =
            if base == 2 { binary_nanos(whole, fraction, exponent) } else { decimal_nanos(whole, fraction, exponent) };
        // As upstream: what has few digits keeps its value, however large its suffix.
        if whole.len() + fraction.len() > UNCAPPED_DIGITS {
            nanos = nanos.min(MAX_NANOS);
        }
        if format == QuantityFormat::BinarySi && nanos < NANOS {
            format = QuantityFormat::DecimalSi;
        }
        Ok(Quantity { nanos: if negative { -nanos } else { nanos }, format })
    }

    /// The number in whole units, rounded up (away from zero), capped to 64 bits.
    pub fn value(&self) -> i64 {
        self.scaled(NANOS)
    }

    /// The number in thousandths, rounded up (away from zero), capped to 64 bits.
    pub fn milli_value(&self) -> i64 {
        self.scaled(NANOS / 1000)
    }

    /// The number as a float.
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANOS as f64
    }

    /// Whether the number is zero.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    pub fn signum(&self) -> i32 {
        self.nanos.signum() as i32
    }

    /// The format that it is written in.
    pub fn format(&self) -> QuantityFormat {
        self.format
    }

    fn scaled(&self, unit: i128) -> i64 {
        let rounded = div_away(self.nanos, unit);
        rounded.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    fn combine(self, other: Quantity, nanos: i128) -> Quantity {
        Quantity { nanos, format: if self.nanos == 0 { other.format } else { self.format } }
    }
}

impl std::ops::Add for Quantity {
    type Output = Quantity;
    fn add(self, other: Quantity) -> Quantity {
        self.combine(other, self.nanos.saturating_add(other.nanos))
    }
}

impl std::ops::Sub for Quantity {
    type Output = Quantity;
    fn sub(self, other: Quantity) -> Quantity {
        self.combine(other, self.nanos.saturating_sub(other.nanos))
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Quantity::parse(text)
    }
}

/// The canonical text.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANOS;
        if self.format == QuantityFormat::BinarySi && !small {
            let mut number = div_away(self.nanos, NANOS);
            let mut step = 0;
            while step < 6 && number % 1024 == 0 {
                number /= 1024;
                step += 1;
            }
            return write!(f, "{number}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][step]);
        }
        let (mut number, mut exponent) = (self.nanos, -9);
        let largest = if self.format == QuantityFormat::DecimalExponent { 30 } else { 18 };
        while exponent < largest && number % 1000 == 0 {
            number /= 1000;
            exponent += 3;
        }
        match (self.format, exponent) {
            (_, 0) => write!(f, "{number}"),
            (QuantityFormat::DecimalExponent, _) => write!(f, "{number}e{exponent}"),
            _ => {
                let suffix = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][((exponent + 9) / 3) as usize];
                write!(f, "{number}{suffix}")
            }
        }
    }
}

/// Base, exponent and format of a suffix.
fn suffix_of(suffix: &str) -> Result<(u32, i32, QuantityFormat), QuantityError> {
    use QuantityFormat::{BinarySi, DecimalExponent, DecimalSi};
    Ok(match suffix {
        "" => (10, 0, DecimalSi),
        "n" => (10, -9, DecimalSi),
        "u" => (10, -6, DecimalSi),
        "m" => (10, -3, DecimalSi),
        "k" => (10, 3, DecimalSi),
        "M" => (10, 6, DecimalSi),
        "G" => (10, 9, DecimalSi),
        "T" => (10, 12, DecimalSi),
        "P" => (10, 15, DecimalSi),
        "E" => (10, 18, DecimalSi),
        "Ki" => (2, 10, BinarySi),
        "Mi" => (2, 20, BinarySi),
        "Gi" => (2, 30, BinarySi),
        "Ti" => (2, 40, BinarySi),
        "Pi" => (2, 50, BinarySi),
        "Ei" => (2, 60, BinarySi),
        _ => {
            let letters = suffix.trim_start_matches(|c: char| "eEinumkKMGTP".contains(c));
            let number = letters.strip_prefix(['+', '-']).unwrap_or(letters);
            if !number.bytes().all(|b| b.is_ascii_digit()) {
                return Err(QuantityError::Format);
            }
            let exponent = suffix.strip_prefix(['e', 'E']).and_then(|e| e.parse::<i32>().ok());
            (10, exponent.ok_or(QuantityError::Suffix)?, DecimalExponent)
        }
    })
}

/// A run of digits as a number, and how many digits were left out at its end.
fn digits_of(text: &str) -> (i128, usize) {
    let used = &text[..text.len().min(MAX_DIGITS)];
    (used.bytes().fold(0, |n, b| n * 10 + i128::from(b - b'0')), text.len() - used.len())
}

fn decimal_nanos(whole: &str, fraction: &str, exponent: i32) -> i128 {
    let (whole_number, left_out) = digits_of(whole);
    let shift = 9 + i64::from(exponent);
    let whole_nanos = times_power(whole_number, shift + left_out as i64);
    let (fraction_number, _) = digits_of(fraction);
    let used = fraction.len().min(MAX_DIGITS) as i64;
    let fraction_nanos = times_power(fraction_number, shift - used);
    match (whole_nanos, fraction_nanos) {
        // One rounding of the sum, not one of each part.
        (Some(_), Some(_)) if shift < used && whole_number != 0 => {
            let joined = whole_number.checked_mul(10i128.pow(used.min(MAX_DIGITS as i64) as u32));
            match joined.and_then(|w| w.checked_add(fraction_number)) {
                Some(all) => times_power(all, shift - used).unwrap_or(MAX_NANOS),
                None => whole_nanos.unwrap_or(MAX_NANOS),
            }
        }
        (Some(w), Some(f)) => w.checked_add(f).unwrap_or(MAX_NANOS),
        _ => MAX_NANOS,
    }
}

fn binary_nanos(whole: &str, fraction: &str, exponent: i32) -> i128 {
    let unit = 1i128 << exponent;
    let (whole_number, left_out) = digits_of(whole);
    let whole_nanos =
        if left_out > 0 { None } else { whole_number.checked_mul(unit).and_then(|n| n.checked_mul(NANOS)) };
    let fraction = &fraction[..fraction.len().min(10)];
    let (fraction_number, _) = digits_of(fraction);
    let fraction_nanos = div_away(fraction_number * unit * NANOS, 10i128.pow(fraction.len() as u32));
    whole_nanos.and_then(|w| w.checked_add(fraction_nanos)).unwrap_or(MAX_NANOS).min(MAX_NANOS)
}

/// `number * 10^power`, rounded away from zero; `None` when it does not fit.
fn times_power(number: i128, power: i64) -> Option<i128> {
    if number == 0 {
        Some(0)
    } else if power >= 0 {
        let factor = u32::try_from(power).ok().and_then(|p| 10i128.checked_pow(p))?;
        number.checked_mul(factor)
    } else {
        let divisor = u32::try_from(-power).ok().and_then(|p| 10i128.checked_pow(p));
        Some(divisor.map_or(number.signum(), |d| div_away(number, d)))
    }
}

fn div_away(number: i128, divisor: i128) -> i128 {
    let quotient = number / divisor;
    if number % divisor == 0 { quotient } else { quotient + number.signum() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn canonical(text: &str) -> String {
        Quantity::parse(text).map_or_else(|e| format!("{e:?}"), |q| q.to_string())
    }

    #[test]
    fn texts_become_canonical() {
        for (text, expected) in [
            ("0", "0"),
            ("1000m", "1"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.", "1"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1000Ki", "1000Ki"),
            ("1023Ki", "1023Ki"),
            ("1500", "1500"),
            ("1000", "1k"),
            ("100E", "100E"),
            ("12e3", "12e3"),
            ("1.2e3", "1200"),
            ("0.1n", "1n"),
            ("-1.5", "-1500m"),
            ("+5", "5"),
            ("0.5Ki", "512"),
            ("0.0001Ki", "102400u"),
            ("2Ei", "2Ei"),
            ("9Ei", "9223372036854775807"),
            ("1e50", "9223372036854775807"),
            ("1E3", "1e3"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("000001.10", "1100m"),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "-", ".", "a", "1 ", " 1", "1.1.1", "1kb", "--1", "1é"] {
            assert_eq!(canonical(text), "Format", "{text}");
        }
        for text in ["1kM", "1mi", "1K", "1e", "1ee3"] {
            assert_eq!(canonical(text), "Suffix", "{text}");
        }
    }

    #[test]
    fn a_canonical_text_is_canonical() {
        for (text, canonical) in [
            ("22222222222222222222222221.3", "9223372036854775807"),
            ("5222222222222222222.5552222222222222", "5222222222222222222555222223n"),
            ("100E", "100E"),
        ] {
            let first = Quantity::parse(text).expect("a quantity").to_string();
            assert_eq!(first, canonical);
            assert_eq!(Quantity::parse(&first).expect("a quantity").to_string(), first);
        }
    }

    #[test]
    fn arithmetic_rounds_up_and_keeps_the_format() {
        let q = |t| Quantity::parse(t).unwrap();
        assert_eq!(q("100m").value(), 1);
        assert_eq!(q("1.5").milli_value(), 1500);
        assert_eq!(q("1n").milli_value(), 1);
        assert_eq!((q("1Gi") + q("1Gi")).to_string(), "2Gi");
        assert_eq!((q("0") + q("1Gi")).to_string(), "1Gi");
        assert_eq!((q("2") - q("500m")).to_string(), "1500m");
        assert!(q("1Gi") > q("1G"));
        assert_eq!(q("1000m"), q("1"));
    }
}
