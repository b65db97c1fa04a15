//! The pod that a Job makes.

use ironkeel_informer::controller_reference;
use ironkeel_semantics::pods;
use ironkeel_semantics::well_known::JOB_TRACKING_FINALIZER;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use kube::ResourceExt as _;

use super::indexes::INDEX;
use super::policy;

/// A pod of the Job, with its index if it has one, and how often that failed before.
pub(super) fn pod_of(job: &Job, spec: &JobSpec, index: Option<(i32, u32)>) -> Pod {
    let mut pod = pods::from_template(&spec.template);
    let name = job.name_any();
    pod.metadata.owner_references = Some(vec![controller_reference(job)]);
    pod.metadata.finalizers.get_or_insert_default().push(JOB_TRACKING_FINALIZER.to_owned());
    let Some((index, failures)) = index else {
        pod.metadata.generate_name = Some(format!("{name}-"));
        return pod;
    };
    pod.metadata.generate_name = Some(format!("{name}-{index}-"));
    pod.metadata.annotations.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    if spec.backoff_limit_per_index.is_some() {
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(policy::FAILURES.to_owned(), failures.to_string());
    }
    let Some(pod_spec) = &mut pod.spec else { return pod };
    pod_spec.hostname = Some(format!("{name}-{index}"));
    let variable = EnvVar {
        name: "JOB_COMPLETION_INDEX".to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: format!("metadata.labels['{INDEX}']"),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    let init = pod_spec.init_containers.iter_mut().flatten();
    for container in pod_spec.containers.iter_mut().chain(init) {
        let env = container.env.get_or_insert_default();
        if env.iter().all(|known| known.name != variable.name) {
            env.push(variable.clone());
        }
    }
    pod
}
