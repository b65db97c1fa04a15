//! ImageService.

use ironkeel_cri::v1::image_service_server::ImageService;
use ironkeel_cri::v1::{
    AuthConfig, FilesystemIdentifier, FilesystemUsage, Image, ImageFsInfoRequest, ImageFsInfoResponse, ImageSpec,
    ImageStatusRequest, ImageStatusResponse, Int64Value, ListImagesRequest, ListImagesResponse, PullImageRequest,
    PullImageResponse, RemoveImageRequest, RemoveImageResponse, StreamImagesRequest, StreamImagesResponse, UInt64Value,
};
use oci_client::secrets::RegistryAuth;
use tonic::{Request, Response, Status};

use super::{Answers, Service};
use crate::error::{Error, blocking};
use crate::image::{ImageName, ImageRecord, ProgressSink, PullProgress};
use crate::records;
use crate::runtime::Runtime;
use crate::usage;

fn message(record: &ImageRecord) -> Image {
    let user = record.config().user.unwrap_or_default();
    let name = user.split(':').next().unwrap_or_default();
    let uid = if name.is_empty() { Some(0) } else { name.parse::<i64>().ok() };
    Image {
        id: record.id.clone(),
        repo_tags: record.tags.iter().cloned().collect(),
        repo_digests: record.digests.iter().cloned().collect(),
        size: record.size,
        uid: uid.map(|value| Int64Value { value }),
        username: if uid.is_none() { name.to_owned() } else { String::new() },
        spec: Some(ImageSpec { image: record.id.clone(), ..Default::default() }),
        pinned: record.pinned,
    }
}

/// What the kubelet found for this registry. A server address only says where it came from.
fn registry_auth(auth: Option<AuthConfig>) -> Result<RegistryAuth, Error> {
    use base64::Engine;
    let Some(auth) = auth else { return Ok(RegistryAuth::Anonymous) };
    if !auth.registry_token.is_empty() {
        return Ok(RegistryAuth::Bearer(auth.registry_token));
    }
    if !auth.username.is_empty() {
        return Ok(RegistryAuth::Basic(auth.username, auth.password));
    }
    if !auth.identity_token.is_empty() {
        return Err(Error::Unsupported("registry identity tokens"));
    }
    if auth.auth.is_empty() {
        return Ok(RegistryAuth::Anonymous);
    }
    let invalid = || Error::Invalid("the registry credentials are not base64 of user:password".into());
    let bytes = base64::engine::general_purpose::STANDARD.decode(&auth.auth).map_err(|_| invalid())?;
    let text = String::from_utf8(bytes).map_err(|_| invalid())?;
    let (user, password) = text.split_once(':').ok_or_else(invalid)?;
    Ok(RegistryAuth::Basic(user.into(), password.trim_end_matches('\0').into()))
}

impl Runtime {
    /// Pulls an image; `progress` is told how far it is.
    pub async fn pull_image(
        &self,
        name: &str,
        credentials: Option<(String, String)>,
        progress: impl Fn(PullProgress) + Send + Sync + 'static,
    ) -> Result<std::sync::Arc<ImageRecord>, Error> {
        let auth = credentials.map_or(RegistryAuth::Anonymous, |(user, password)| RegistryAuth::Basic(user, password));
        let sink: ProgressSink = std::sync::Arc::new(progress);
        self.puller.pull(&self.images, &ImageName::parse(name)?, auth, Some(sink)).await
    }

    fn listed(&self, filter: Option<&str>) -> Vec<Image> {
        match filter.filter(|f| !f.is_empty()) {
            Some(name) => self.images.find(name).iter().map(|i| message(i)).collect(),
            None => self.images.list().iter().map(|i| message(i)).collect(),
        }
    }
}

fn spec_name(spec: Option<ImageSpec>) -> Result<String, Error> {
    spec.map(|s| s.image).filter(|n| !n.is_empty()).ok_or_else(|| Error::Invalid("no image is named".into()))
}

#[tonic::async_trait]
impl ImageService for Service {
    async fn list_images(&self, request: Request<ListImagesRequest>) -> Result<Response<ListImagesResponse>, Status> {
        let name = request.into_inner().filter.and_then(|f| f.image).map(|i| i.image);
        Ok(Response::new(ListImagesResponse { images: self.0.listed(name.as_deref()) }))
    }

    type StreamImagesStream = Answers<StreamImagesResponse>;

    async fn stream_images(
        &self,
        request: Request<StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        let name = request.into_inner().filter.and_then(|f| f.image).map(|i| i.image);
        let images = self.0.listed(name.as_deref());
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(StreamImagesResponse { images })))))
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        let request = request.into_inner();
        let found = self.0.images.find(&spec_name(request.image)?);
        let mut info = std::collections::HashMap::new();
        if let Some(image) = found.as_ref().filter(|_| request.verbose) {
            info.insert("config".to_owned(), image.config.clone());
        }
        Ok(Response::new(ImageStatusResponse { image: found.map(|i| message(&i)), info }))
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Result<Response<PullImageResponse>, Status> {
        let request = request.into_inner();
        let name = ImageName::parse(&spec_name(request.image)?)?;
        let auth = registry_auth(request.auth)?;
        let image = self.0.puller.pull(&self.0.images, &name, auth, None).await?;
        Ok(Response::new(PullImageResponse { image_ref: image.id.clone() }))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let name = spec_name(request.into_inner().image)?;
        let images = self.0.images.clone();
        blocking(move || images.remove(&name)).await?;
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Result<Response<ImageFsInfoResponse>, Status> {
        let runtime = self.0.clone();
        let (images, containers) = blocking(move || {
            let containers = runtime.containers.read().keys().cloned().collect::<Vec<_>>();
            let sizes = containers.iter().map(|id| usage::tree(&runtime.container_dir(id).join("upper")));
            let written = sizes.fold((0, 0), |(bytes, files), (b, f)| (bytes + b, files + f));
            Ok((runtime.images.usage(), written))
        })
        .await?;
        let usage = |(bytes, files): (u64, u64)| FilesystemUsage {
            timestamp: records::now(),
            fs_id: Some(FilesystemIdentifier { mountpoint: self.0.config.root_dir.display().to_string() }),
            used_bytes: Some(UInt64Value { value: bytes }),
            inodes_used: Some(UInt64Value { value: files }),
        };
        Ok(Response::new(ImageFsInfoResponse {
            image_filesystems: vec![usage(images)],
            container_filesystems: vec![usage(containers)],
        }))
    }
}
