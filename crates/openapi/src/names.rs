//! What types are called in OpenAPI documents.

use ironkeel_schema::Resource;

/// Packages whose types are served; others (admission reviews, old versions) are not described.
fn go_package(package: &str) -> String {
    match package {
        "meta" => "io.k8s.apimachinery.pkg.apis.meta".to_owned(),
        "apiextensions" => "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions".to_owned(),
        "apiregistration" => "io.k8s.kube-aggregator.pkg.apis.apiregistration".to_owned(),
        package => format!("io.k8s.api.{package}"),
    }
}

/// `io.k8s.api.apps.v1.Deployment` for the table's `apps/v1.Deployment`.
pub fn definition_name(type_name: &str) -> String {
    match type_name.split_once('/') {
        Some((package, rest)) => format!("{}.{rest}", go_package(package)),
        None => type_name.to_owned(),
    }
}

/// `com.example.stable.v1.CronTab`: the group's labels turned round.
pub(crate) fn custom_name(resource: &Resource) -> String {
    let labels: Vec<&str> = resource.group.rsplit('.').collect();
    format!("{}.{}.{}", labels.join("."), resource.version, resource.kind)
}

/// Types whose JSON no table row tells.
pub(crate) const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
pub(crate) const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
pub(crate) const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
pub(crate) const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
pub(crate) const DURATION: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Duration";
pub(crate) const FIELDS_V1: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1";
pub(crate) const RAW_EXTENSION: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
pub(crate) const JSON: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";
pub(crate) const SCHEMA_OR_ARRAY: &str =
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray";
pub(crate) const SCHEMA_OR_BOOL: &str =
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool";
pub(crate) const SCHEMA_OR_STRINGS: &str =
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray";
pub(crate) const VERSION_INFO: &str = "io.k8s.apimachinery.pkg.version.Info";
pub(crate) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
