//! The wire formats and their media types.

/// A wire format of API objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

impl Format {
    /// The media type without parameters.
    pub const fn media_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Yaml => "application/yaml",
            Format::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// From a media type; parameters (`;charset=utf-8`) are ignored.
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        let bare = media_type.split(';').next().unwrap_or_default().trim();
        [Format::Json, Format::Yaml, Format::Protobuf].into_iter().find(|f| bare.eq_ignore_ascii_case(f.media_type()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_found_with_parameters_and_in_any_case() {
        assert_eq!(Format::from_media_type("Application/JSON; charset=utf-8"), Some(Format::Json));
        assert_eq!(Format::from_media_type("application/vnd.kubernetes.protobuf"), Some(Format::Protobuf));
        assert_eq!(Format::from_media_type("application/yaml"), Some(Format::Yaml));
        assert_eq!(Format::from_media_type("text/plain"), None);
    }
}
