//! Between bytes and objects: JSON, YAML, Kubernetes protobuf.
