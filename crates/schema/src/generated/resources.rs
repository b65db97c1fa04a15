//! One row a served resource.
//!
//! Written by `cargo xtask codegen` from the API's facts; do not edit.

use std::borrow::Cow;

use crate::{Resource, Scope, Subresource, TypeId};

pub(crate) static RESOURCES: &[Resource] = &[
    Resource { group: "", version: "v1", plural: "bindings", singular: "binding", kind: "Binding", scope: Scope::Namespaced, verbs: &["create"], short_names: &[], categories: &[], type_id: TypeId(385), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "", version: "v1", plural: "componentstatuses", singular: "componentstatus", kind: "ComponentStatus", scope: Scope::Cluster, verbs: &["get", "list"], short_names: &["cs"], categories: &[], type_id: TypeId(396), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "", version: "v1", plural: "configmaps", singular: "configmap", kind: "ConfigMap", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["cm"], categories: &[], type_id: TypeId(398), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "", version: "v1", plural: "endpoints", singular: "endpoints", kind: "Endpoints", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["ep"], categories: &[], type_id: TypeId(426), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "", version: "v1", plural: "events", singular: "event", kind: "Event", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["ev"], categories: &[], type_id: TypeId(434), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "", version: "v1", plural: "limitranges", singular: "limitrange", kind: "LimitRange", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["limits"], categories: &[], type_id: TypeId(461), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "", version: "v1", plural: "namespaces", singular: "namespace", kind: "Namespace", scope: Scope::Cluster, verbs: &["create", "delete", "get", "list", "patch", "update", "watch"], short_names: &["ns"], categories: &[], type_id: TypeId(472), subresources: Cow::Borrowed(&[
        Subresource { name: "finalize", group: None, version: None, kind: "Namespace", verbs: &["update"], type_id: Some(TypeId(472)) },
        Subresource { name: "status", group: None, version: None, kind: "Namespace", verbs: &["get", "patch", "update"], type_id: Some(TypeId(472)) },
    ]) },
    Resource { group: "", version: "v1", plural: "nodes", singular: "node", kind: "Node", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["no"], categories: &[], type_id: TypeId(477), subresources: Cow::Borrowed(&[
        Subresource { name: "proxy", group: None, version: None, kind: "NodeProxyOptions", verbs: &["create", "delete", "get", "patch", "update"], type_id: Some(TypeId(487)) },
        Subresource { name: "status", group: None, version: None, kind: "Node", verbs: &["get", "patch", "update"], type_id: Some(TypeId(477)) },
    ]) },
    Resource { group: "", version: "v1", plural: "persistentvolumeclaims", singular: "persistentvolumeclaim", kind: "PersistentVolumeClaim", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["pvc"], categories: &[], type_id: TypeId(500), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "PersistentVolumeClaim", verbs: &["get", "patch", "update"], type_id: Some(TypeId(500)) },
    ]) },
    Resource { group: "", version: "v1", plural: "persistentvolumes", singular: "persistentvolume", kind: "PersistentVolume", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["pv"], categories: &[], type_id: TypeId(499), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "PersistentVolume", verbs: &["get", "patch", "update"], type_id: Some(TypeId(499)) },
    ]) },
    Resource { group: "", version: "v1", plural: "pods", singular: "pod", kind: "Pod", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["po"], categories: &["all"], type_id: TypeId(512), subresources: Cow::Borrowed(&[
        Subresource { name: "attach", group: None, version: None, kind: "PodAttachOptions", verbs: &["create", "get"], type_id: Some(TypeId(516)) },
        Subresource { name: "binding", group: None, version: None, kind: "Binding", verbs: &["create"], type_id: Some(TypeId(385)) },
        Subresource { name: "ephemeralcontainers", group: None, version: None, kind: "Pod", verbs: &["get", "patch", "update"], type_id: Some(TypeId(512)) },
        Subresource { name: "eviction", group: Some("policy"), version: Some("v1"), kind: "Eviction", verbs: &["create"], type_id: Some(TypeId(903)) },
        Subresource { name: "exec", group: None, version: None, kind: "PodExecOptions", verbs: &["create", "get"], type_id: Some(TypeId(521)) },
        Subresource { name: "log", group: None, version: None, kind: "Pod", verbs: &["get"], type_id: Some(TypeId(512)) },
        Subresource { name: "portforward", group: None, version: None, kind: "PodPortForwardOptions", verbs: &["create", "get"], type_id: Some(TypeId(527)) },
        Subresource { name: "proxy", group: None, version: None, kind: "PodProxyOptions", verbs: &["create", "delete", "get", "patch", "update"], type_id: Some(TypeId(528)) },
        Subresource { name: "resize", group: None, version: None, kind: "Pod", verbs: &["get", "patch", "update"], type_id: Some(TypeId(512)) },
        Subresource { name: "status", group: None, version: None, kind: "Pod", verbs: &["get", "patch", "update"], type_id: Some(TypeId(512)) },
    ]) },
    Resource { group: "", version: "v1", plural: "podtemplates", singular: "podtemplate", kind: "PodTemplate", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(539), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "", version: "v1", plural: "replicationcontrollers", singular: "replicationcontroller", kind: "ReplicationController", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["rc"], categories: &["all"], type_id: TypeId(554), subresources: Cow::Borrowed(&[
        Subresource { name: "scale", group: Some("autoscaling"), version: Some("v1"), kind: "Scale", verbs: &["get", "patch", "update"], type_id: Some(TypeId(296)) },
        Subresource { name: "status", group: None, version: None, kind: "ReplicationController", verbs: &["get", "patch", "update"], type_id: Some(TypeId(554)) },
    ]) },
    Resource { group: "", version: "v1", plural: "resourcequotas", singular: "resourcequota", kind: "ResourceQuota", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["quota"], categories: &[], type_id: TypeId(562), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "ResourceQuota", verbs: &["get", "patch", "update"], type_id: Some(TypeId(562)) },
    ]) },
    Resource { group: "", version: "v1", plural: "secrets", singular: "secret", kind: "Secret", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(574), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "", version: "v1", plural: "serviceaccounts", singular: "serviceaccount", kind: "ServiceAccount", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["sa"], categories: &[], type_id: TypeId(584), subresources: Cow::Borrowed(&[
        Subresource { name: "token", group: Some("authentication.k8s.io"), version: Some("v1"), kind: "TokenRequest", verbs: &["create"], type_id: Some(TypeId(235)) },
    ]) },
    Resource { group: "", version: "v1", plural: "services", singular: "service", kind: "Service", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["svc"], categories: &["all"], type_id: TypeId(583), subresources: Cow::Borrowed(&[
        Subresource { name: "proxy", group: None, version: None, kind: "ServiceProxyOptions", verbs: &["create", "delete", "get", "patch", "update"], type_id: Some(TypeId(589)) },
        Subresource { name: "status", group: None, version: None, kind: "Service", verbs: &["get", "patch", "update"], type_id: Some(TypeId(583)) },
    ]) },
    Resource { group: "apiregistration.k8s.io", version: "v1", plural: "apiservices", singular: "apiservice", kind: "APIService", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &["api-extensions"], type_id: TypeId(134), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "APIService", verbs: &["get", "patch", "update"], type_id: Some(TypeId(134)) },
    ]) },
    Resource { group: "apps", version: "v1", plural: "controllerrevisions", singular: "controllerrevision", kind: "ControllerRevision", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(146), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "apps", version: "v1", plural: "daemonsets", singular: "daemonset", kind: "DaemonSet", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["ds"], categories: &["all"], type_id: TypeId(148), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "DaemonSet", verbs: &["get", "patch", "update"], type_id: Some(TypeId(148)) },
    ]) },
    Resource { group: "apps", version: "v1", plural: "deployments", singular: "deployment", kind: "Deployment", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["deploy"], categories: &["all"], type_id: TypeId(154), subresources: Cow::Borrowed(&[
        Subresource { name: "scale", group: Some("autoscaling"), version: Some("v1"), kind: "Scale", verbs: &["get", "patch", "update"], type_id: Some(TypeId(296)) },
        Subresource { name: "status", group: None, version: None, kind: "Deployment", verbs: &["get", "patch", "update"], type_id: Some(TypeId(154)) },
    ]) },
    Resource { group: "apps", version: "v1", plural: "replicasets", singular: "replicaset", kind: "ReplicaSet", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["rs"], categories: &["all"], type_id: TypeId(160), subresources: Cow::Borrowed(&[
        Subresource { name: "scale", group: Some("autoscaling"), version: Some("v1"), kind: "Scale", verbs: &["get", "patch", "update"], type_id: Some(TypeId(296)) },
        Subresource { name: "status", group: None, version: None, kind: "ReplicaSet", verbs: &["get", "patch", "update"], type_id: Some(TypeId(160)) },
    ]) },
    Resource { group: "apps", version: "v1", plural: "statefulsets", singular: "statefulset", kind: "StatefulSet", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["sts"], categories: &["all"], type_id: TypeId(168), subresources: Cow::Borrowed(&[
        Subresource { name: "scale", group: Some("autoscaling"), version: Some("v1"), kind: "Scale", verbs: &["get", "patch", "update"], type_id: Some(TypeId(296)) },
        Subresource { name: "status", group: None, version: None, kind: "StatefulSet", verbs: &["get", "patch", "update"], type_id: Some(TypeId(168)) },
    ]) },
    Resource { group: "events.k8s.io", version: "v1", plural: "events", singular: "event", kind: "Event", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["ev"], categories: &[], type_id: TypeId(633), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "authentication.k8s.io", version: "v1", plural: "selfsubjectreviews", singular: "selfsubjectreview", kind: "SelfSubjectReview", scope: Scope::Cluster, verbs: &["create"], short_names: &[], categories: &[], type_id: TypeId(233), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "authentication.k8s.io", version: "v1", plural: "tokenreviews", singular: "tokenreview", kind: "TokenReview", scope: Scope::Cluster, verbs: &["create"], short_names: &[], categories: &[], type_id: TypeId(238), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "authorization.k8s.io", version: "v1", plural: "localsubjectaccessreviews", singular: "localsubjectaccessreview", kind: "LocalSubjectAccessReview", scope: Scope::Namespaced, verbs: &["create"], short_names: &[], categories: &[], type_id: TypeId(252), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "authorization.k8s.io", version: "v1", plural: "selfsubjectaccessreviews", singular: "selfsubjectaccessreview", kind: "SelfSubjectAccessReview", scope: Scope::Cluster, verbs: &["create"], short_names: &[], categories: &[], type_id: TypeId(257), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "authorization.k8s.io", version: "v1", plural: "selfsubjectrulesreviews", singular: "selfsubjectrulesreview", kind: "SelfSubjectRulesReview", scope: Scope::Cluster, verbs: &["create"], short_names: &[], categories: &[], type_id: TypeId(259), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "authorization.k8s.io", version: "v1", plural: "subjectaccessreviews", singular: "subjectaccessreview", kind: "SubjectAccessReview", scope: Scope::Cluster, verbs: &["create"], short_names: &[], categories: &[], type_id: TypeId(261), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "autoscaling", version: "v2", plural: "horizontalpodautoscalers", singular: "horizontalpodautoscaler", kind: "HorizontalPodAutoscaler", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["hpa"], categories: &["all"], type_id: TypeId(306), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "HorizontalPodAutoscaler", verbs: &["get", "patch", "update"], type_id: Some(TypeId(306)) },
    ]) },
    Resource { group: "autoscaling", version: "v1", plural: "horizontalpodautoscalers", singular: "horizontalpodautoscaler", kind: "HorizontalPodAutoscaler", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["hpa"], categories: &["all"], type_id: TypeId(283), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "HorizontalPodAutoscaler", verbs: &["get", "patch", "update"], type_id: Some(TypeId(283)) },
    ]) },
    Resource { group: "batch", version: "v1", plural: "cronjobs", singular: "cronjob", kind: "CronJob", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["cj"], categories: &["all"], type_id: TypeId(323), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "CronJob", verbs: &["get", "patch", "update"], type_id: Some(TypeId(323)) },
    ]) },
    Resource { group: "batch", version: "v1", plural: "jobs", singular: "job", kind: "Job", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &["all"], type_id: TypeId(327), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "Job", verbs: &["get", "patch", "update"], type_id: Some(TypeId(327)) },
    ]) },
    Resource { group: "certificates.k8s.io", version: "v1", plural: "certificatesigningrequests", singular: "certificatesigningrequest", kind: "CertificateSigningRequest", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["csr"], categories: &[], type_id: TypeId(345), subresources: Cow::Borrowed(&[
        Subresource { name: "approval", group: None, version: None, kind: "CertificateSigningRequest", verbs: &["get", "patch", "update"], type_id: Some(TypeId(345)) },
        Subresource { name: "status", group: None, version: None, kind: "CertificateSigningRequest", verbs: &["get", "patch", "update"], type_id: Some(TypeId(345)) },
    ]) },
    Resource { group: "certificates.k8s.io", version: "v1beta1", plural: "clustertrustbundles", singular: "clustertrustbundle", kind: "ClusterTrustBundle", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(358), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "certificates.k8s.io", version: "v1beta1", plural: "podcertificaterequests", singular: "podcertificaterequest", kind: "PodCertificateRequest", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(361), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "PodCertificateRequest", verbs: &["get", "patch", "update"], type_id: Some(TypeId(361)) },
    ]) },
    Resource { group: "certificates.k8s.io", version: "v1alpha1", plural: "clustertrustbundles", singular: "clustertrustbundle", kind: "ClusterTrustBundle", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(350), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "networking.k8s.io", version: "v1", plural: "ingressclasses", singular: "ingressclass", kind: "IngressClass", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(838), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "networking.k8s.io", version: "v1", plural: "ingresses", singular: "ingress", kind: "Ingress", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["ing"], categories: &[], type_id: TypeId(836), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "Ingress", verbs: &["get", "patch", "update"], type_id: Some(TypeId(836)) },
    ]) },
    Resource { group: "networking.k8s.io", version: "v1", plural: "ipaddresses", singular: "ipaddress", kind: "IPAddress", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["ip"], categories: &[], type_id: TypeId(832), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "networking.k8s.io", version: "v1", plural: "networkpolicies", singular: "networkpolicy", kind: "NetworkPolicy", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["netpol"], categories: &[], type_id: TypeId(852), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "networking.k8s.io", version: "v1", plural: "servicecidrs", singular: "servicecidr", kind: "ServiceCIDR", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(861), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "ServiceCIDR", verbs: &["get", "patch", "update"], type_id: Some(TypeId(861)) },
    ]) },
    Resource { group: "networking.k8s.io", version: "v1beta1", plural: "ipaddresses", singular: "ipaddress", kind: "IPAddress", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["ip"], categories: &[], type_id: TypeId(867), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "networking.k8s.io", version: "v1beta1", plural: "servicecidrs", singular: "servicecidr", kind: "ServiceCIDR", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(886), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "ServiceCIDR", verbs: &["get", "patch", "update"], type_id: Some(TypeId(886)) },
    ]) },
    Resource { group: "policy", version: "v1", plural: "poddisruptionbudgets", singular: "poddisruptionbudget", kind: "PodDisruptionBudget", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["pdb"], categories: &[], type_id: TypeId(904), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "PodDisruptionBudget", verbs: &["get", "patch", "update"], type_id: Some(TypeId(904)) },
    ]) },
    Resource { group: "rbac.authorization.k8s.io", version: "v1", plural: "clusterrolebindings", singular: "clusterrolebinding", kind: "ClusterRoleBinding", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(915), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "rbac.authorization.k8s.io", version: "v1", plural: "clusterroles", singular: "clusterrole", kind: "ClusterRole", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(914), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "rbac.authorization.k8s.io", version: "v1", plural: "rolebindings", singular: "rolebinding", kind: "RoleBinding", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(920), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "rbac.authorization.k8s.io", version: "v1", plural: "roles", singular: "role", kind: "Role", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(919), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "storage.k8s.io", version: "v1", plural: "csidrivers", singular: "csidriver", kind: "CSIDriver", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(1121), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "storage.k8s.io", version: "v1", plural: "csinodes", singular: "csinode", kind: "CSINode", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(1124), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "storage.k8s.io", version: "v1", plural: "csistoragecapacities", singular: "csistoragecapacity", kind: "CSIStorageCapacity", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(1128), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "storage.k8s.io", version: "v1", plural: "storageclasses", singular: "storageclass", kind: "StorageClass", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["sc"], categories: &[], type_id: TypeId(1130), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "storage.k8s.io", version: "v1", plural: "volumeattachments", singular: "volumeattachment", kind: "VolumeAttachment", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(1133), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "VolumeAttachment", verbs: &["get", "patch", "update"], type_id: Some(TypeId(1133)) },
    ]) },
    Resource { group: "storage.k8s.io", version: "v1", plural: "volumeattributesclasses", singular: "volumeattributesclass", kind: "VolumeAttributesClass", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["vac"], categories: &[], type_id: TypeId(1138), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "storage.k8s.io", version: "v1beta1", plural: "volumeattributesclasses", singular: "volumeattributesclass", kind: "VolumeAttributesClass", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["vac"], categories: &[], type_id: TypeId(1169), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "admissionregistration.k8s.io", version: "v1", plural: "mutatingadmissionpolicies", singular: "mutatingadmissionpolicy", kind: "MutatingAdmissionPolicy", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &["api-extensions"], type_id: TypeId(12), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "admissionregistration.k8s.io", version: "v1", plural: "mutatingadmissionpolicybindings", singular: "mutatingadmissionpolicybinding", kind: "MutatingAdmissionPolicyBinding", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &["api-extensions"], type_id: TypeId(13), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "admissionregistration.k8s.io", version: "v1", plural: "mutatingwebhookconfigurations", singular: "mutatingwebhookconfiguration", kind: "MutatingWebhookConfiguration", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &["api-extensions"], type_id: TypeId(19), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "admissionregistration.k8s.io", version: "v1", plural: "validatingadmissionpolicies", singular: "validatingadmissionpolicy", kind: "ValidatingAdmissionPolicy", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &["api-extensions"], type_id: TypeId(29), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "ValidatingAdmissionPolicy", verbs: &["get", "patch", "update"], type_id: Some(TypeId(29)) },
    ]) },
    Resource { group: "admissionregistration.k8s.io", version: "v1", plural: "validatingadmissionpolicybindings", singular: "validatingadmissionpolicybinding", kind: "ValidatingAdmissionPolicyBinding", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &["api-extensions"], type_id: TypeId(30), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "admissionregistration.k8s.io", version: "v1", plural: "validatingwebhookconfigurations", singular: "validatingwebhookconfiguration", kind: "ValidatingWebhookConfiguration", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &["api-extensions"], type_id: TypeId(37), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "admissionregistration.k8s.io", version: "v1beta1", plural: "mutatingadmissionpolicies", singular: "mutatingadmissionpolicy", kind: "MutatingAdmissionPolicy", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &["api-extensions"], type_id: TypeId(73), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "admissionregistration.k8s.io", version: "v1beta1", plural: "mutatingadmissionpolicybindings", singular: "mutatingadmissionpolicybinding", kind: "MutatingAdmissionPolicyBinding", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &["api-extensions"], type_id: TypeId(74), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "admissionregistration.k8s.io", version: "v1alpha1", plural: "mutatingadmissionpolicies", singular: "mutatingadmissionpolicy", kind: "MutatingAdmissionPolicy", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &["api-extensions"], type_id: TypeId(47), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "admissionregistration.k8s.io", version: "v1alpha1", plural: "mutatingadmissionpolicybindings", singular: "mutatingadmissionpolicybinding", kind: "MutatingAdmissionPolicyBinding", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &["api-extensions"], type_id: TypeId(48), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "apiextensions.k8s.io", version: "v1", plural: "customresourcedefinitions", singular: "customresourcedefinition", kind: "CustomResourceDefinition", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["crd", "crds"], categories: &["api-extensions"], type_id: TypeId(116), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "CustomResourceDefinition", verbs: &["get", "patch", "update"], type_id: Some(TypeId(116)) },
    ]) },
    Resource { group: "scheduling.k8s.io", version: "v1", plural: "priorityclasses", singular: "priorityclass", kind: "PriorityClass", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &["pc"], categories: &[], type_id: TypeId(1099), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "scheduling.k8s.io", version: "v1alpha2", plural: "podgroups", singular: "podgroup", kind: "PodGroup", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(1103), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "PodGroup", verbs: &["get", "patch", "update"], type_id: Some(TypeId(1103)) },
    ]) },
    Resource { group: "scheduling.k8s.io", version: "v1alpha2", plural: "workloads", singular: "workload", kind: "Workload", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(1115), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "coordination.k8s.io", version: "v1", plural: "leases", singular: "lease", kind: "Lease", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(365), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "coordination.k8s.io", version: "v1beta1", plural: "leasecandidates", singular: "leasecandidate", kind: "LeaseCandidate", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(372), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "coordination.k8s.io", version: "v1alpha2", plural: "leasecandidates", singular: "leasecandidate", kind: "LeaseCandidate", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(368), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "node.k8s.io", version: "v1", plural: "runtimeclasses", singular: "runtimeclass", kind: "RuntimeClass", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(891), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "discovery.k8s.io", version: "v1", plural: "endpointslices", singular: "endpointslice", kind: "EndpointSlice", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(621), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "resource.k8s.io", version: "v1", plural: "deviceclasses", singular: "deviceclass", kind: "DeviceClass", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(964), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "resource.k8s.io", version: "v1", plural: "resourceclaims", singular: "resourceclaim", kind: "ResourceClaim", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(981), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "ResourceClaim", verbs: &["get", "patch", "update"], type_id: Some(TypeId(981)) },
    ]) },
    Resource { group: "resource.k8s.io", version: "v1", plural: "resourceclaimtemplates", singular: "resourceclaimtemplate", kind: "ResourceClaimTemplate", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(986), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "resource.k8s.io", version: "v1", plural: "resourceslices", singular: "resourceslice", kind: "ResourceSlice", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(990), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "resource.k8s.io", version: "v1beta2", plural: "deviceclasses", singular: "deviceclass", kind: "DeviceClass", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(1065), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "resource.k8s.io", version: "v1beta2", plural: "devicetaintrules", singular: "devicetaintrule", kind: "DeviceTaintRule", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(1077), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "DeviceTaintRule", verbs: &["get", "patch", "update"], type_id: Some(TypeId(1077)) },
    ]) },
    Resource { group: "resource.k8s.io", version: "v1beta2", plural: "resourceclaims", singular: "resourceclaim", kind: "ResourceClaim", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(1087), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "ResourceClaim", verbs: &["get", "patch", "update"], type_id: Some(TypeId(1087)) },
    ]) },
    Resource { group: "resource.k8s.io", version: "v1beta2", plural: "resourceclaimtemplates", singular: "resourceclaimtemplate", kind: "ResourceClaimTemplate", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(1092), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "resource.k8s.io", version: "v1beta2", plural: "resourceslices", singular: "resourceslice", kind: "ResourceSlice", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(1096), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "resource.k8s.io", version: "v1beta1", plural: "deviceclasses", singular: "deviceclass", kind: "DeviceClass", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(1022), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "resource.k8s.io", version: "v1beta1", plural: "resourceclaims", singular: "resourceclaim", kind: "ResourceClaim", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(1038), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "ResourceClaim", verbs: &["get", "patch", "update"], type_id: Some(TypeId(1038)) },
    ]) },
    Resource { group: "resource.k8s.io", version: "v1beta1", plural: "resourceclaimtemplates", singular: "resourceclaimtemplate", kind: "ResourceClaimTemplate", scope: Scope::Namespaced, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(1043), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "resource.k8s.io", version: "v1beta1", plural: "resourceslices", singular: "resourceslice", kind: "ResourceSlice", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(1047), subresources: Cow::Borrowed(&[
    ]) },
    Resource { group: "resource.k8s.io", version: "v1alpha3", plural: "devicetaintrules", singular: "devicetaintrule", kind: "DeviceTaintRule", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(996), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "DeviceTaintRule", verbs: &["get", "patch", "update"], type_id: Some(TypeId(996)) },
    ]) },
    Resource { group: "resource.k8s.io", version: "v1alpha3", plural: "resourcepoolstatusrequests", singular: "resourcepoolstatusrequest", kind: "ResourcePoolStatusRequest", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(1002), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "ResourcePoolStatusRequest", verbs: &["get", "patch", "update"], type_id: Some(TypeId(1002)) },
    ]) },
    Resource { group: "flowcontrol.apiserver.k8s.io", version: "v1", plural: "flowschemas", singular: "flowschema", kind: "FlowSchema", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(686), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "FlowSchema", verbs: &["get", "patch", "update"], type_id: Some(TypeId(686)) },
    ]) },
    Resource { group: "flowcontrol.apiserver.k8s.io", version: "v1", plural: "prioritylevelconfigurations", singular: "prioritylevelconfiguration", kind: "PriorityLevelConfiguration", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(696), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "PriorityLevelConfiguration", verbs: &["get", "patch", "update"], type_id: Some(TypeId(696)) },
    ]) },
    Resource { group: "internal.apiserver.k8s.io", version: "v1alpha1", plural: "storageversions", singular: "storageversion", kind: "StorageVersion", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(141), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "StorageVersion", verbs: &["get", "patch", "update"], type_id: Some(TypeId(141)) },
    ]) },
    Resource { group: "storagemigration.k8s.io", version: "v1beta1", plural: "storageversionmigrations", singular: "storageversionmigration", kind: "StorageVersionMigration", scope: Scope::Cluster, verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"], short_names: &[], categories: &[], type_id: TypeId(1173), subresources: Cow::Borrowed(&[
        Subresource { name: "status", group: None, version: None, kind: "StorageVersionMigration", verbs: &["get", "patch", "update"], type_id: Some(TypeId(1173)) },
    ]) },
];
