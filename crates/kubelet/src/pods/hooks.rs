//! Lifecycle hooks: postStart and preStop, by command, HTTP, TCP or sleep.

use std::time::Duration;

use k8s_openapi::api::core::v1::LifecycleHandler;

use crate::probes::prober::{self, Check, Subject};

/// What a hook may take when nothing else limits it.
const HOOK_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// Runs a hook to its end.
pub(crate) async fn run(handler: &LifecycleHandler, subject: &Subject<'_>) -> Result<(), String> {
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or_default())).await;
        return Ok(());
    }
    if let Some(action) = &handler.exec {
        let command = action.command.clone().unwrap_or_default();
        let answer = subject.runtime.exec_sync(subject.container_id, &command, Duration::ZERO).await;
        return match answer {
            Ok(answer) if answer.exit_code == 0 => Ok(()),
            Ok(answer) => Err(format!(
                "command '{}' exited with {}: {}",
                command.join(" "),
                answer.exit_code,
                String::from_utf8_lossy(&answer.stderr)
            )),
            Err(error) => Err(error.to_string()),
        };
    }
    let check = match (&handler.http_get, &handler.tcp_socket) {
        (Some(action), _) => Check::Http(action.clone()),
        (None, Some(action)) => Check::Tcp(action.clone()),
        (None, None) => return Ok(()),
    };
    prober::check(&check, subject, HOOK_TIMEOUT).await
}
