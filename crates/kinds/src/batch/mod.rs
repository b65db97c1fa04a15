//! `batch`.

pub(crate) mod cron_job;
pub(crate) mod cron_schedule;
pub(crate) mod job;
mod job_policies;
mod job_status;
