//! Writes that change nothing: whether what is stored is what would be written now.
//!
//! Upstream compares the bytes, and so such a write rewrites what stands there in another version, in another media
//! type, with fields that the schema does not have any more, or under another key. Storage version migration is made
//! of such writes.

use ironkeel_object::Value;

use crate::entry::Entry;
use crate::error::ApiError;
use crate::registry::Registry;
use crate::storage::Row;

/// What is in the store, seen from a write that changes nothing.
pub(crate) enum Standing {
    /// What would be written.
    Current,
    /// Another form of it.
    Stale,
    /// Another write was first, at this revision or before.
    Overtaken(u64),
}

impl Registry {
    /// How the stored bytes compare to those of `object`, the present state in the row's version.
    pub(crate) async fn standing(
        &self,
        row: &Row,
        key: &str,
        entry: &Entry,
        object: &Value,
    ) -> Result<Standing, ApiError> {
        let home = row.home()?;
        let key = Registry::store_key(home, key);
        // What is under another key need not be encoded to be told.
        if self.store.stale(&key).await? {
            return Ok(Standing::Stale);
        }
        let (found, revision) = self.store.get(&key, 0).await?;
        let Some(found) = found.filter(|kv| kv.mod_revision == entry.revision) else {
            return Ok(Standing::Overtaken(revision));
        };
        let encoded = self.encode(row, home, &mut object.clone()).await?;
        Ok(if encoded.stored == found.value { Standing::Current } else { Standing::Stale })
    }
}
