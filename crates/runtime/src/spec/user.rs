//! Who a container's process is: from the pod's security context, the image and the image's own
//! /etc/passwd and /etc/group.

use std::path::Path;

use ironkeel_cri::v1::{LinuxContainerSecurityContext, SupplementalGroupsPolicy};

use crate::error::Error;
use crate::rootfs;

/// Numbers for the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

fn accounts(root: &Path) -> Vec<Account> {
    let text = rootfs::read(root, "etc/passwd").unwrap_or_default();
    let parse = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some(Account { name, uid: fields.nth(1)?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    };
    text.lines().filter_map(parse).collect()
}

/// (name, gid, members) of /etc/group.
fn groups(root: &Path) -> Vec<(String, u32, Vec<String>)> {
    let text = rootfs::read(root, "etc/group").unwrap_or_default();
    let parse = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let gid = fields.nth(1)?.parse().ok()?;
        let members = fields.next().unwrap_or_default().split(',').filter(|m| !m.is_empty());
        Some((name, gid, members.map(str::to_owned).collect()))
    };
    text.lines().filter_map(parse).collect()
}

/// An id as the CRI carries it.
fn id(value: i64) -> Result<u32, Error> {
    u32::try_from(value).map_err(|_| Error::Invalid(format!("{value} is not a user or group id")))
}

/// `image_user` is the image's `user[:group]`.
pub(super) fn resolve(
    root: &Path,
    security: &LinuxContainerSecurityContext,
    image_user: &str,
) -> Result<Resolved, Error> {
    let accounts = accounts(root);
    let all_groups = groups(root);
    let (image_name, image_group) = image_user.split_once(':').unwrap_or((image_user, ""));
    let mut named_group = None;
    let wanted = if let Some(uid) = &security.run_as_user {
        id(uid.value)?.to_string()
    } else if !security.run_as_username.is_empty() {
        security.run_as_username.clone()
    } else {
        named_group = Some(image_group).filter(|g| !g.is_empty());
        if image_name.is_empty() { "0".into() } else { image_name.to_owned() }
    };
    let account = match wanted.parse::<u32>() {
        Ok(uid) => accounts.iter().find(|a| a.uid == uid),
        Err(_) => {
            let found = accounts.iter().find(|a| a.name == wanted);
            Some(found.ok_or_else(|| Error::Invalid(format!("user {wanted} is not in the image's /etc/passwd")))?)
        }
    };
    let uid = account.map_or_else(|| wanted.parse().unwrap_or(0), |a| a.uid);
    let gid = if let Some(gid) = &security.run_as_group {
        id(gid.value)?
    } else if let Some(group) = named_group {
        let by_name = || all_groups.iter().find(|(name, ..)| name == group).map(|(_, gid, _)| *gid);
        let found = group.parse().ok().or_else(by_name);
        found.ok_or_else(|| Error::Invalid(format!("group {group} is not in the image's /etc/group")))?
    } else {
        account.map_or(0, |a| a.gid)
    };
    // The primary group is among the groups, as upstream's runtimes have it.
    let mut groups = vec![gid];
    if security.supplemental_groups_policy() == SupplementalGroupsPolicy::Merge
        && let Some(account) = account
    {
        groups.extend(all_groups.iter().filter(|(_, _, m)| m.contains(&account.name)).map(|(_, gid, _)| *gid));
    }
    for group in &security.supplemental_groups {
        groups.push(id(*group)?);
    }
    let mut seen = std::collections::HashSet::new();
    groups.retain(|g| seen.insert(*g));
    Ok(Resolved { uid, gid, groups })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ironkeel_cri::v1::Int64Value;

    #[test]
    fn users_come_from_pod_then_image() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:101:102::/:/bin/sh\n").unwrap();
        std::fs::write(dir.path().join("etc/group"), "root:x:0:\nextra:x:500:web\nother:x:501:\n").unwrap();
        let check = |security: LinuxContainerSecurityContext, image: &str, uid, gid, groups: &[u32]| {
            let wanted = Resolved { uid, gid, groups: groups.to_vec() };
            assert_eq!(resolve(dir.path(), &security, image).unwrap(), wanted);
        };
        let none = LinuxContainerSecurityContext::default();
        check(none.clone(), "", 0, 0, &[0]);
        check(none.clone(), "web", 101, 102, &[102, 500]);
        check(none.clone(), "web:other", 101, 501, &[501, 500]);
        check(none.clone(), "1234", 1234, 0, &[0]);
        let mut pod = LinuxContainerSecurityContext { run_as_user: Some(Int64Value { value: 7 }), ..none.clone() };
        pod.supplemental_groups = vec![9, 9];
        check(pod, "web:other", 7, 0, &[0, 9]);
        let strict = LinuxContainerSecurityContext { supplemental_groups_policy: 1, ..none.clone() };
        check(strict, "web", 101, 102, &[102]);
        assert!(resolve(dir.path(), &none, "nobody").is_err());
    }
}
