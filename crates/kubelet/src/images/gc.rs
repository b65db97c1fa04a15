//! Images over the threshold: the least recently used ones that no container uses are deleted until the disk is below
//! the lower threshold.

use std::{collections::HashMap, collections::HashSet, time::Duration};

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::{Error, config::ImageGcThresholds, node::machine, runtime::Runtime};

/// When each image was first seen and last used.
#[derive(Default)]
pub(crate) struct ImageAges(Mutex<HashMap<String, (Timestamp, Timestamp)>>);

impl ImageAges {
    /// Deletes images when the runtime's file system is fuller than the high threshold. Returns bytes freed.
    pub(crate) async fn collect(
        &self,
        runtime: &Runtime,
        limits: &ImageGcThresholds,
        now: Timestamp,
        force: bool,
    ) -> Result<u64, Error> {
        let images = runtime.images().await?;
        let used: HashSet<String> =
            runtime.containers(None).await?.into_iter().flat_map(|c| [c.image_ref, c.image_id]).collect();
        let filesystem = runtime.image_fs().await?.image_filesystems.into_iter().next();
        let mount = filesystem.and_then(|fs| fs.fs_id).map(|id| id.mountpoint).unwrap_or_default();
        {
            let mut ages = self.0.lock();
            ages.retain(|id, _| images.iter().any(|image| image.id == *id));
            for image in &images {
                let entry = ages.entry(image.id.clone()).or_insert((now, Timestamp::UNIX_EPOCH));
                if used.contains(&image.id) {
                    entry.1 = now;
                }
            }
        }
        let Some(disk) = machine::filesystem(mount.as_ref()) else { return Ok(0) };
        let usage = 100 - (disk.available_bytes * 100).checked_div(disk.capacity_bytes).unwrap_or(100).min(100);
        if usage < limits.high_percent && !force {
            return Ok(0);
        }
        let goal = disk.capacity_bytes / 100 * (100 - limits.low_percent.min(100));
        let wanted = goal.saturating_sub(disk.available_bytes);
        let mut candidates: Vec<_> = {
            let ages = self.0.lock();
            images
                .into_iter()
                .filter(|image| !used.contains(&image.id) && !image.pinned)
                .filter_map(|image| ages.get(&image.id).map(|age| (age.1, age.0, image)))
                .filter(|(_, first, _)| age(*first, now) >= limits.minimum_age || force)
                .collect()
        };
        candidates.sort_by_key(|(last, first, _)| (*last, *first));
        let mut freed = 0;
        for (_, _, image) in candidates {
            if freed >= wanted && !force {
                break;
            }
            runtime.remove_image(&image.id).await?;
            freed += image.size;
        }
        Ok(freed)
    }
}

fn age(from: Timestamp, now: Timestamp) -> Duration {
    now.duration_since(from).try_into().unwrap_or_default()
}
