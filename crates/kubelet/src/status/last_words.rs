//! A container's last words: the file it was given for them, or the end of its log when it failed and its policy
//! says so.

use std::{fs::File, io::Read};

use k8s_openapi::api::core::v1::Container;

use crate::{logs::read, names, runtime::ContainerView};

/// Most that is read of the file, bytes.
const FILE_MAX_BYTES: u64 = 4096;
/// Most that is read of the log, bytes.
const LOG_MAX_BYTES: usize = 2048;
/// Most that is read of the log, lines.
const LOG_MAX_LINES: usize = 80;

/// The last words of a container that has ended.
pub(crate) fn read(view: &ContainerView, container: &Container) -> Option<String> {
    let path = view.annotations.get(names::TERMINATION_MESSAGE_PATH)?;
    let mount = view.mounts.iter().find(|mount| mount.container_path == *path)?;
    let mut message = String::new();
    if let Ok(file) = File::open(&mount.host_path) {
        let mut bytes = Vec::new();
        if file.take(FILE_MAX_BYTES).read_to_end(&mut bytes).is_ok() {
            message = String::from_utf8_lossy(&bytes).into_owned();
        }
    }
    if !message.is_empty() {
        return Some(message);
    }
    let policy = view.annotations.get(names::TERMINATION_MESSAGE_POLICY).map(String::as_str);
    let policy = container.termination_message_policy.as_deref().or(policy);
    if policy == Some("FallbackToLogsOnError") && view.exit_code != 0 {
        let text = read::tail_text(view.log_path.as_ref(), LOG_MAX_LINES, LOG_MAX_BYTES);
        return (!text.is_empty()).then_some(text);
    }
    None
}
