//! placeholder
use crate::Cluster;
use crate::webhook::Rounds;
use ironkeel_object::Value;
use ironkeel_registry::{ApiError, Attributes};
#[derive(Default)]
pub(crate) struct Policies {}
impl Policies {
    pub(crate) async fn mutate(
        &self,
        _c: &Cluster,
        _a: &Attributes<'_>,
        _o: &mut Value,
        _old: Option<&Value>,
        _r: &mut Rounds,
    ) -> Result<(), ApiError> {
        Ok(())
    }
    pub(crate) async fn validate(
        &self,
        _c: &Cluster,
        _a: &Attributes<'_>,
        _o: Option<&Value>,
        _old: Option<&Value>,
    ) -> Result<(), ApiError> {
        Ok(())
    }
}
