//! Between the versions of a custom resource: who converts, and what the cache keeps of it.
//!
//! Built-in kinds convert in their hooks, at once. A custom resource may ask a webhook, which takes
//! time and many objects in one go; so whoever reads entries through such a row calls
//! [`Registry::prepare`] before, which leaves the converted form in the entries (one conversion a
//! version, shared by all readers).

use std::sync::Arc;

use async_trait::async_trait;
use ironkeel_object::{ObjectMeta, Value};

use crate::create::{Encoded, encode_stored};
use crate::entry::{Entry, Format, View, complete};
use crate::error::ApiError;
use crate::media;
use crate::registry::Registry;
use crate::storage::{Row, Stored};

/// Objects that one conversion request carries at most.
const BATCH_OBJECTS: usize = 500;

/// Converts the objects of one custom resource.
#[async_trait]
pub trait Converter: Send + Sync + std::fmt::Debug {
    /// The objects in the version `to` (`group/version`), in their order.
    async fn convert(&self, objects: Vec<Value>, to: &str) -> Result<Vec<Value>, ApiError>;
}

impl Registry {
    /// Makes entries readable through `row`: a no-op except for custom resources with a converter.
    pub async fn prepare(&self, row: &Row, entries: &[Arc<Entry>]) -> Result<(), ApiError> {
        let Some(converter) = &row.converter else { return Ok(()) };
        let view = View { row: row.id, format: Format::Json };
        let missing: Vec<&Arc<Entry>> =
            entries.iter().filter(|e| row.converts_entry(e) && e.known_view(view).is_none()).collect();
        for batch in missing.chunks(BATCH_OBJECTS) {
            let mut objects = Vec::with_capacity(batch.len());
            for entry in batch {
                objects.push(Arc::unwrap_or_clone(entry.tree()?));
            }
            let converted = converter.convert(objects, &row.api_version).await?;
            for (entry, mut object) in batch.iter().zip(converted) {
                row.kind.hooks.default(&mut object);
                entry.view(view, || Ok(media::canonical(&object)))?;
            }
        }
        Ok(())
    }

    /// An object of one row in the version of another row of the same resource.
    pub async fn convert(&self, from: &Row, to: &Row, mut object: Value) -> Result<Value, ApiError> {
        if from.api_version == to.api_version {
            return Ok(object);
        }
        if let Some(converter) = &to.converter {
            let mut converted = converter.convert(vec![object], &to.api_version).await?;
            return converted.pop().ok_or_else(|| ApiError::internal("the converter answered no object"));
        }
        from.to_stored(&mut object, to.home()?);
        to.from_stored(&mut object);
        complete(&to.kind, &mut object);
        Ok(object)
    }

    /// The tree of an entry in the row's version, converted where that is needed.
    pub async fn current(&self, row: &Row, entry: &Arc<Entry>) -> Result<Value, ApiError> {
        if row.converter.is_some() {
            self.prepare(row, std::slice::from_ref(entry)).await?;
        }
        self.tree(row, entry)
    }

    /// The stored form of an object of the row's version.
    pub(crate) async fn encode(&self, row: &Row, home: &Stored, object: &mut Value) -> Result<Encoded, ApiError> {
        if let Some(converter) = row.converter.as_ref().filter(|_| row.converts) {
            let version = object.resource_version().to_owned();
            let mut converted = converter.convert(vec![object.take()], &home.api_version).await?;
            *object = converted.pop().ok_or_else(|| ApiError::internal("the converter answered no object"))?;
            if !version.is_empty() {
                object.meta_mut().insert("resourceVersion", version);
            }
            home.kind.hooks.default(object);
        }
        encode_stored(row, home, object)
    }
}
