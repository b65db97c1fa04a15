//! Command lines with upstream's flags: one table feeds the parser, `--help` and the notes about
//! flags whose effect does not exist here.

use std::collections::BTreeMap;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Nothing, `=true` or `=false`.
    Bool,
    /// One value; the last one counts.
    Value,
    /// Several values: repeated.
    List,
    /// Several values: repeated, or with commas.
    Commas,
}

/// What comes of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It does what upstream's does.
    Honoured,
    /// It changes nothing here, and nobody is the worse for it; why.
    Nothing(&'static str),
    /// What it asks for is not here; why.
    Refused(&'static str),
    /// As refused, but any value that means "off" is fine.
    RefusedUnless(&'static str, &'static str),
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) takes: Takes,
    pub(crate) effect: Effect,
    pub(crate) help: &'static str,
}

impl Flag {
    /// The value that the help text tells as the default, in brackets at its end.
    pub(crate) fn usual(&self) -> &'static str {
        let inner = self.help.strip_suffix(']').and_then(|text| text.rsplit_once('['));
        match (inner, self.effect) {
            (Some((_, usual)), _) => usual,
            (None, Effect::RefusedUnless(off, _)) => off,
            _ => "",
        }
    }
}

/// One row of a table.
pub(crate) const fn flag(name: &'static str, takes: Takes, effect: Effect, help: &'static str) -> Flag {
    Flag { name, takes, effect, help }
}

/// Why a command line is wrong.
#[derive(Debug, thiserror::Error)]
pub enum FlagError {
    /// No such flag.
    #[error("unknown flag: --{0}")]
    Unknown(String),
    /// Something that is no flag.
    #[error("unknown argument: {0:?}; this command takes flags only")]
    Argument(String),
    /// A flag without its value.
    #[error("flag needs an argument: --{0}")]
    Missing(&'static str),
    /// A value that does not fit.
    #[error("invalid argument {value:?} for \"--{flag}\" flag: {reason}")]
    Invalid {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
        /// Why not.
        reason: String,
    },
    /// A flag that is known and cannot be honoured.
    #[error("--{flag} is not supported: {reason}")]
    Unsupported {
        /// The flag.
        flag: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// A flag that must be there.
    #[error("--{0} is required")]
    Required(&'static str),
}

/// Flags as given.
#[derive(Debug, Default)]
pub(crate) struct Given {
    values: BTreeMap<&'static str, Vec<String>>,
    /// What the user should know.
    pub(crate) notes: Vec<String>,
    /// Whether help was asked for.
    pub(crate) help: bool,
}

/// Reads a command line.
pub(crate) fn parse(table: &[Flag], arguments: impl IntoIterator<Item = String>) -> Result<Given, FlagError> {
    let mut given = Given::default();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        if argument == "-h" || argument == "--help" {
            given.help = true;
            continue;
        }
        // `-v 2` and `-v=2` are the only short form.
        let text = match argument.strip_prefix("--") {
            Some(text) => text.to_owned(),
            None => match argument.strip_prefix("-v") {
                Some(rest) if rest.is_empty() || rest.starts_with('=') => format!("v{rest}"),
                _ if argument.starts_with('-') => {
                    return Err(FlagError::Unknown(argument.trim_start_matches('-').to_owned()));
                }
                _ => return Err(FlagError::Argument(argument)),
            },
        };
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (text, None),
        };
        let name = name.replace('_', "-");
        let flag = table.iter().find(|f| f.name == name).ok_or(FlagError::Unknown(name))?;
        let value = match (flag.takes, value) {
            (_, Some(value)) => value,
            (Takes::Bool, None) => "true".to_owned(),
            (_, None) => arguments.next().ok_or(FlagError::Missing(flag.name))?,
        };
        given.take(flag, value)?;
    }
    Ok(given)
}

fn boolean(flag: &'static str, value: &str) -> Result<bool, FlagError> {
    match value {
        "true" | "True" | "TRUE" | "t" | "T" | "1" => Ok(true),
        "false" | "False" | "FALSE" | "f" | "F" | "0" => Ok(false),
        _ => Err(invalid(flag, value, "must be true or false")),
    }
}

pub(crate) fn invalid(flag: &'static str, value: &str, reason: impl Into<String>) -> FlagError {
    FlagError::Invalid { flag, value: value.to_owned(), reason: reason.into() }
}

impl Given {
    fn take(&mut self, flag: &Flag, value: String) -> Result<(), FlagError> {
        if flag.takes == Takes::Bool {
            boolean(flag.name, &value)?;
        }
        match flag.effect {
            Effect::Honoured => {}
            Effect::Nothing(why) => self.notes.push(format!("--{} has no effect here: {why}", flag.name)),
            Effect::Refused(reason) => return Err(FlagError::Unsupported { flag: flag.name, reason }),
            Effect::RefusedUnless(off, reason) => {
                if value != off {
                    return Err(FlagError::Unsupported { flag: flag.name, reason });
                }
            }
        }
        let values = self.values.entry(flag.name).or_default();
        match flag.takes {
            Takes::Bool | Takes::Value => *values = vec![value],
            Takes::List => values.push(value),
            Takes::Commas => {
                values.extend(value.split(',').map(str::trim).filter(|v| !v.is_empty()).map(str::to_owned));
            }
        }
        Ok(())
    }

    /// The value, where it was given and is not empty.
    pub(crate) fn text(&self, name: &'static str) -> Option<&str> {
        self.values.get(name)?.last().map(String::as_str).filter(|v| !v.is_empty())
    }

    /// Every value.
    pub(crate) fn all(&self, name: &'static str) -> &[String] {
        self.values.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// A switch.
    pub(crate) fn switch(&self, name: &'static str, default: bool) -> bool {
        self.text(name).map_or(default, |v| boolean(name, v).unwrap_or(default))
    }

    /// Something that is parsed.
    pub(crate) fn parsed<T: std::str::FromStr>(&self, name: &'static str, default: T) -> Result<T, FlagError>
    where
        T::Err: std::fmt::Display,
    {
        self.text(name).map_or(Ok(default), |v| v.parse().map_err(|e: T::Err| invalid(name, v, e.to_string())))
    }

    /// A duration as Go writes it (`1m30s`), in whole milliseconds.
    pub(crate) fn duration(
        &self,
        name: &'static str,
        default: std::time::Duration,
    ) -> Result<std::time::Duration, FlagError> {
        self.text(name).map_or(Ok(default), |v| {
            go_duration(v).ok_or_else(|| invalid(name, v, "must be a duration such as 30s, 5m or 1h"))
        })
    }
}

/// `1h2m3.5s`, `100ms`, `0`.
fn go_duration(text: &str) -> Option<std::time::Duration> {
    if text == "0" {
        return Some(std::time::Duration::ZERO);
    }
    let (mut rest, mut seconds) = (text, 0.0_f64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |i| digits + i);
        let unit = match &rest[digits..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += number * unit;
        rest = &rest[unit_end..];
    }
    std::time::Duration::try_from_secs_f64(seconds).ok().filter(|_| !text.is_empty())
}

/// The text of `--help`.
pub(crate) fn help(command: &str, about: &str, table: &[Flag]) -> String {
    let mut out = format!("{about}\n\nUsage:\n  {command} [flags]\n\nFlags:\n");
    for flag in table {
        let value = match flag.takes {
            Takes::Bool => "",
            Takes::Value => " VALUE",
            Takes::List => " VALUE (repeat)",
            Takes::Commas => " VALUE,…",
        };
        let note = match flag.effect {
            Effect::Honoured => String::new(),
            Effect::Nothing(why) => format!(" [no effect: {why}]"),
            Effect::Refused(why) => format!(" [refused: {why}]"),
            Effect::RefusedUnless(off, why) => format!(" [only {off}: {why}]"),
        };
        out.push_str(&format!("  --{}{value}\n        {}{note}\n", flag.name, flag.help));
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    const TABLE: &[Flag] = &[
        Flag { name: "secure-port", takes: Takes::Value, effect: Effect::Honoured, help: "" },
        Flag { name: "profiling", takes: Takes::Bool, effect: Effect::Nothing("x"), help: "" },
        Flag { name: "modes", takes: Takes::Commas, effect: Effect::Honoured, help: "" },
        Flag { name: "issuer", takes: Takes::List, effect: Effect::Honoured, help: "" },
        Flag { name: "tracing", takes: Takes::Value, effect: Effect::Refused("y"), help: "" },
        Flag { name: "v", takes: Takes::Value, effect: Effect::Honoured, help: "" },
    ];

    fn given(line: &str) -> Result<Given, FlagError> {
        parse(TABLE, line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_are_read_as_upstream_reads_them() {
        let g = given("--secure-port 1 --secure-port=2 --modes=a,b --modes c --issuer x,y --issuer z --profiling -v 4")
            .unwrap();
        assert_eq!(g.text("secure-port"), Some("2"));
        assert_eq!(g.all("modes"), ["a", "b", "c"]);
        assert_eq!(g.all("issuer"), ["x,y", "z"]);
        assert_eq!(g.text("v"), Some("4"));
        assert!(g.switch("profiling", false));
        assert_eq!(g.notes, ["--profiling has no effect here: x"]);
        assert!(!given("--profiling=false").unwrap().switch("profiling", true));
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        let check = |line: &str, wanted: &str| assert_eq!(given(line).unwrap_err().to_string(), wanted);
        check("--nothing=1", "unknown flag: --nothing");
        check("-x", "unknown flag: --x");
        check("word", "unknown argument: \"word\"; this command takes flags only");
        check("--secure-port", "flag needs an argument: --secure-port");
        check("--tracing=f", "--tracing is not supported: y");
        check("--profiling=maybe", "invalid argument \"maybe\" for \"--profiling\" flag: must be true or false");
    }

    #[test]
    fn durations_are_gos() {
        assert_eq!(go_duration("1h2m3.5s"), Some(Duration::from_millis(3_723_500)));
        assert_eq!(go_duration("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(go_duration("0"), Some(Duration::ZERO));
        for bad in ["", "5", "s", "1x", "-1s", "1s1"] {
            assert_eq!(go_duration(bad), None, "{bad}");
        }
    }
}
