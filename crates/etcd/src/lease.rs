//! Leases. A keep-alive is one question and its answer: events' leases end by themselves.

use ironkeel_store::{LeaseId, StoreError};
use tonic::Status;

use crate::Shared;
use crate::endpoints::Repeat;
use crate::error::{Failure, Request};
use crate::etcdserverpb::lease_client::LeaseClient;
use crate::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest};

impl Shared {
    /// etcd gives no lease shorter than its elections last (2 s).
    pub(crate) async fn lease_grant(&self, ttl_seconds: i64) -> Result<LeaseId, StoreError> {
        self.open().map_err(Failure::into_store_error)?;
        let request = LeaseGrantRequest { ttl: ttl_seconds, id: 0 };
        let attempt = |channel| async move { LeaseClient::new(channel).lease_grant(request).await };
        // A lease that was granted unheard holds nothing and ends.
        let call = self.endpoints.call(Repeat::Harmless, Request::default(), attempt);
        Ok(call.await.map_err(Failure::into_store_error)?.id)
    }

    pub(crate) async fn lease_keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.open().map_err(Failure::into_store_error)?;
        let attempt = |channel| async move {
            let asked = tokio_stream::once(LeaseKeepAliveRequest { id: lease });
            let mut answers = LeaseClient::new(channel).lease_keep_alive(asked).await?.into_inner();
            let answer = answers.message().await?;
            answer.map(tonic::Response::new).ok_or_else(|| Status::unavailable("the stream ended without an answer"))
        };
        let call = self.endpoints.call(Repeat::Harmless, Request { lease, ..Request::default() }, attempt);
        let answer = call.await.map_err(Failure::into_store_error)?;
        if answer.ttl > 0 { Ok(()) } else { Err(StoreError::NoLease(lease)) }
    }

    pub(crate) async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.open().map_err(Failure::into_store_error)?;
        let request = LeaseRevokeRequest { id: lease };
        let attempt = |channel| async move { LeaseClient::new(channel).lease_revoke(request).await };
        let call = self.endpoints.call(Repeat::OnlyUndone, Request { lease, ..Request::default() }, attempt);
        call.await.map_err(Failure::into_store_error)?;
        Ok(())
    }
}
