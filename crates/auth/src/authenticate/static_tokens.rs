//! `--token-auth-file`: tokens in a CSV file, `token,user,uid[,"group1,group2"]`.

use super::equal_in_constant_time;
use crate::{AuthError, UserInfo};

#[derive(Default)]
pub(super) struct StaticTokens(Vec<(Vec<u8>, UserInfo)>);

impl StaticTokens {
    pub(super) fn parse(text: &str) -> Result<Self, AuthError> {
        let mut tokens = Vec::new();
        for (i, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let columns = split(line);
            let [token, name, uid, rest @ ..] = columns.as_slice() else {
                return Err(AuthError::TokenFileLine { line: i + 1 });
            };
            if token.is_empty() || name.is_empty() {
                return Err(AuthError::TokenFileLine { line: i + 1 });
            }
            let groups = rest.first().map(String::as_str).unwrap_or_default().split(',').map(str::trim);
            let mut user = UserInfo::new(name.clone(), groups.filter(|g| !g.is_empty()));
            user.uid = uid.clone();
            tokens.push((token.clone().into_bytes(), user));
        }
        Ok(StaticTokens(tokens))
    }

    /// Every entry is compared, so that time does not tell which one is near.
    pub(super) fn find(&self, token: &str) -> Option<UserInfo> {
        let mut found = None;
        for (known, user) in &self.0 {
            if equal_in_constant_time(known, token.as_bytes()) {
                found = Some(user);
            }
        }
        found.cloned()
    }
}

/// One line of CSV (RFC 4180); spaces around a field do not count.
fn split(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field).trim().to_owned()),
            c => field.push(c),
        }
    }
    fields.push(field.trim().to_owned());
    fields
}
