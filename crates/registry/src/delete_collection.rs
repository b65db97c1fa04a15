//! Delete of collections: a list, and a delete of each of its objects, several at once.

use futures::StreamExt;

use crate::dependents;
use crate::error::{ApiError, Reason};
use crate::list::{ListAnswer, ListRequest};
use crate::registry::Registry;
use crate::request::{DeleteOptions, WriteRequest};

/// Objects of a collection that are deleted at once.
const PARALLEL: usize = 16;

impl Registry {
    /// Deletes what is listed; answers the list. An object that was made anew since it was listed stays:
    /// what is deleted is what the list showed, not its name (upstream goes by the name).
    pub async fn delete_collection(
        &self,
        request: &WriteRequest,
        options: &DeleteOptions,
        list: &ListRequest,
    ) -> Result<ListAnswer, ApiError> {
        dependents::warn(request, options);
        let listed = self.list(&request.row, list).await?;
        let mut deletes = Vec::with_capacity(listed.entries.len());
        for entry in &listed.entries {
            let one = WriteRequest {
                namespace: entry.namespace().to_owned(),
                name: entry.name().to_owned(),
                ..request.clone()
            };
            deletes.push(async move {
                match self.delete_from(&one, options, entry.key(), entry.clone(), Some(entry.clone())).await {
                    Err(e) if e.reason != Reason::NotFound => Err(e),
                    _ => Ok(()),
                }
            });
        }
        let mut running = futures::stream::iter(deletes).buffer_unordered(PARALLEL);
        let mut first_error = None;
        while let Some(done) = running.next().await {
            if let Err(e) = done {
                first_error.get_or_insert(e);
            }
        }
        drop(running);
        match first_error {
            Some(error) => Err(error),
            None => Ok(listed),
        }
    }
}
