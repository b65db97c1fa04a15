//! The one write path and the watch cache.
//!
//! Every object, whatever its kind, is written by [`Registry::create`], [`Registry::update`] and
//! [`Registry::delete`], and read from the watch cache, which holds it encoded. What does not live
//! here: HTTP, authentication and authorization (`auth`, `apiserver`), the admission plugins
//! (`admission`; their contract is [`Admission`]), rules of a kind (`kinds`).

mod admit;
mod cache;
mod claims;
mod clock;
mod convert;
mod create;
mod custom;
mod definition_v1beta1;
mod delete;
mod delete_collection;
mod dependents;
mod entry;
mod error;
mod event_lease;
mod feed;
mod list;
mod managed_fields;
mod media;
mod owners;
mod patch;
mod registry;
mod request;
mod rewrite;
mod scale;
mod selector;
mod services;
mod storage;
mod update;
mod wake;
mod watch;

pub use admit::{Admission, AdmitAll, Attributes, Operation, User};
pub use cache::{Cache, Change as CacheChange, EventType, Followed, Snapshot, json_frame};
pub use clock::{Clock, SystemClock, rfc3339};
pub use convert::Converter;
pub use create::name_suffix;
pub use custom::{schema_of, structure_of};
pub use entry::{Entry, Format, View};
pub use error::{ApiError, Cause, Details, OPTIMISTIC_LOCK, Reason, qualified};
pub use event_lease::EVENT_TTL_SECONDS;
pub use list::{ListAnswer, ListRequest, VersionMatch, parse_revision};
pub use media::StorageMedia;
pub use patch::{FieldValidation, Patch, PatchBody};
pub use registry::{Chain, Registry};
pub use request::{DeleteOptions, Deleted, Propagation, WriteRequest, Written};
pub use scale::{ScaleChange, ScaleWrite, scale_of};
pub use selector::{FieldTerm, Selection};
pub use services::ServiceAddresses;
pub use storage::{CustomRows, KindRow, Row, Stored, object_key, prefix_of};
pub use update::{Change, Replace, storage_error};
pub use watch::{WatchStart, WatchedEvent, Watcher};
