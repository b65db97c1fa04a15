//! Quantities as numbers: parsing, arithmetic, and the canonical text.
//!
//! Answers to apimachinery's resource.Quantity. An [`Amount`] counts billionths in 128 bits, which holds every value
//! that the API accepts; finer fractions are rounded up, as upstream does.

use std::cmp::Ordering;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const NANOS: i128 = 1_000_000_000;
/// Larger mantissas and exponents are not quantities.
const LONGEST_TEXT: usize = 64;

/// How an amount is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `1k`, `100m`.
    #[default]
    DecimalSi,
    /// `1Ki`.
    BinarySi,
    /// `1e3`.
    DecimalExponent,
}

/// An exact amount and the form that it was written in. Comparison looks at the amount only.
#[derive(Debug, Clone, Copy, Default)]
pub struct Amount {
    nanos: i128,
    format: Format,
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Amount {}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Amount {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Amount {
    /// Nothing.
    pub const ZERO: Amount = Amount { nanos: 0, format: Format::DecimalSi };

    /// That many whole units.
    pub fn from_units(units: i64) -> Self {
        Self { nanos: i128::from(units) * NANOS, format: Format::DecimalSi }
    }

    /// That many thousandths, as CPU is counted.
    pub fn from_millis(millis: i64) -> Self {
        Self { nanos: i128::from(millis) * (NANOS / 1000), format: Format::DecimalSi }
    }

    /// That many bytes, written with binary suffixes.
    pub fn from_bytes(bytes: i64) -> Self {
        Self { nanos: i128::from(bytes) * NANOS, format: Format::BinarySi }
    }

    /// Reads a quantity; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > LONGEST_TEXT {
            return None;
        }
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let (base, exponent, format) = scale(suffix)?;
        let mut mantissa: i128 = 0;
        for digit in whole.bytes().chain(fraction.bytes()) {
            mantissa = mantissa.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
        }
        // value = mantissa / 10^fraction × base^exponent, in nanos.
        let fraction_digits = i32::try_from(fraction.len()).ok()?;
        let nanos = if base == 2 {
            let scaled =
                mantissa.checked_mul(NANOS)?.checked_mul(1_i128.checked_shl(u32::try_from(exponent).ok()?)?)?;
            ceil_div(scaled, power_of_ten(fraction_digits)?)
        } else {
            let power = 9 + exponent - fraction_digits;
            if power >= 0 {
                mantissa.checked_mul(power_of_ten(power)?)?
            } else {
                power_of_ten(-power).map_or(i128::from(mantissa != 0), |divisor| ceil_div(mantissa, divisor))
            }
        };
        Some(Self { nanos: if negative { -nanos } else { nanos }, format })
    }

    /// Whole units, rounded up (away from nothing), clamped to 64 bits.
    pub fn units(self) -> i64 {
        self.scaled(NANOS)
    }

    /// Thousandths, rounded up, clamped to 64 bits.
    pub fn millis(self) -> i64 {
        self.scaled(NANOS / 1000)
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// The amount as a floating-point number of units.
    pub fn as_f64(self) -> f64 {
        self.nanos as f64 / NANOS as f64
    }

    /// The canonical text.
    pub fn to_quantity(self) -> Quantity {
        Quantity(self.to_string())
    }

    fn scaled(self, unit: i128) -> i64 {
        let magnitude = ceil_div(self.nanos.abs(), unit);
        let value = if self.nanos < 0 { -magnitude } else { magnitude };
        i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
    }
}

impl From<&Quantity> for Amount {
    /// Nothing for a text that the API server would have refused.
    fn from(quantity: &Quantity) -> Self {
        Self::parse(&quantity.0).unwrap_or_default()
    }
}

impl Add for Amount {
    type Output = Amount;
    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos), format }
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Amount {
    type Output = Amount;
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Neg for Amount {
    type Output = Amount;
    fn neg(self) -> Self {
        Self { nanos: self.nanos.saturating_neg(), ..self }
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Amount>>(amounts: I) -> Self {
        amounts.fold(Amount::ZERO, Add::add)
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let sign = if self.nanos < 0 { "-" } else { "" };
        let magnitude = self.nanos.abs();
        // Binary suffixes are for whole amounts from 1024 up; below, upstream writes decimal ones.
        if self.format == Format::BinarySi && magnitude >= 1024 * NANOS && magnitude % NANOS == 0 {
            let mut value = magnitude / NANOS;
            let mut step = 0;
            while step < BINARY.len() - 1 && value % 1024 == 0 {
                value /= 1024;
                step += 1;
            }
            return write!(f, "{sign}{value}{}", BINARY[step]);
        }
        let mut value = magnitude;
        let mut exponent = -9;
        while value % 1000 == 0 && exponent < 18 {
            value /= 1000;
            exponent += 3;
        }
        if self.format == Format::DecimalExponent && exponent != 0 {
            return write!(f, "{sign}{value}e{exponent}");
        }
        let suffix = DECIMAL[usize::try_from((exponent + 9) / 3).unwrap_or(3)];
        write!(f, "{sign}{value}{suffix}")
    }
}

const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

/// Base, exponent and format of a suffix.
fn scale(suffix: &str) -> Option<(i32, i32, Format)> {
    if suffix.is_empty() {
        return Some((10, 0, Format::DecimalSi));
    }
    if let Some(step) = BINARY.iter().position(|known| *known == suffix) {
        return Some((2, 10 * i32::try_from(step).ok()?, Format::BinarySi));
    }
    if let Some(step) = DECIMAL.iter().position(|known| *known == suffix) {
        return Some((10, 3 * i32::try_from(step).ok()? - 9, Format::DecimalSi));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    Some((10, exponent, Format::DecimalExponent))
}

fn power_of_ten(exponent: i32) -> Option<i128> {
    10_i128.checked_pow(u32::try_from(exponent).ok()?)
}

fn ceil_div(value: i128, divisor: i128) -> i128 {
    value / divisor + i128::from(value % divisor != 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(text: &str, canonical: &str, units: i64, millis: i64) {
        let amount = Amount::parse(text).unwrap();
        assert_eq!(
            (amount.to_string().as_str(), amount.units(), amount.millis()),
            (canonical, units, millis),
            "{text}"
        );
    }

    #[test]
    fn quantities_read_as_upstream_reads_them() {
        check("0", "0", 0, 0);
        check("100m", "100m", 1, 100);
        check("1.5", "1500m", 2, 1500);
        check("1500m", "1500m", 2, 1500);
        check("2", "2", 2, 2000);
        check("1k", "1k", 1000, 1_000_000);
        check("1000", "1k", 1000, 1_000_000);
        check("1Ki", "1Ki", 1024, 1_024_000);
        check("1024Mi", "1Gi", 1 << 30, (1 << 30) * 1000);
        check("1.5Gi", "1536Mi", 3 << 29, (3 << 29) * 1000);
        check("1e3", "1e3", 1000, 1_000_000);
        check("-5", "-5", -5, -5000);
        check("0.5Gi", "512Mi", 1 << 29, (1 << 29) * 1000);
        check("1n", "1n", 1, 1);
        check("12E", "12E", i64::MAX, i64::MAX);
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", ".", "-", "1.2.3", "1 Gi", "Gi", "1e", "1gi", "1KI", "0x10"] {
            assert!(Amount::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn sums_keep_the_form_of_the_first_amount() {
        let sum: Amount = ["128Mi", "1Gi", "1000"].iter().map(|text| Amount::parse(text).unwrap()).sum();
        assert_eq!(sum.to_string(), "1207960552");
        let sum: Amount = ["128Mi", "1Gi"].iter().map(|text| Amount::parse(text).unwrap()).sum();
        assert_eq!(sum.to_string(), "1152Mi");
    }
}
