//! Objects that are sent to a subresource and not stored: an Eviction, a Binding, a TokenRequest.
//! They pass admission as what they are, in a CREATE of the subresource; what then happens to the
//! stored object is the server's own doing, and is not admitted again.

use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{ApiError, Operation, WriteRequest};

/// What clients may not say of an object that is created.
const SYSTEM_FIELDS: &[&str] = &[
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
];

/// Puts the object into the request's namespace, or says that it is in another.
pub(crate) fn place(request: &WriteRequest, object: &mut Value) -> Result<(), ApiError> {
    let namespace = object.namespace();
    if namespace.is_empty() {
        object.meta_mut().insert("namespace", request.namespace.as_str());
    } else if namespace != request.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// Takes out what only the server says of an object. Bindings and TokenRequests keep it, as
/// preconditions.
pub(crate) fn wipe(object: &mut Value) {
    for key in SYSTEM_FIELDS {
        object.meta_mut().remove(key);
    }
}

/// Lets admission change the object.
pub(crate) async fn mutate(request: &WriteRequest, object: &mut Value) -> Result<(), ApiError> {
    request.admission.mutate(&request.attributes(Operation::Create, &request.name), object, None).await
}

/// Lets admission refuse the object.
pub(crate) async fn validate(request: &WriteRequest, object: &Value) -> Result<(), ApiError> {
    request.admission.validate(&request.attributes(Operation::Create, &request.name), Some(object), None).await
}
