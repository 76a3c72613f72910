//! Paths of the registry API and the permissions they need.

use http::Method;

/// What a path under `/v2/` is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Ping,
    Manifest { name: String, reference: String },
    Blob { name: String, rest: String },
    Uploads { name: String, rest: String },
    Tags { name: String },
    Referrers { name: String },
    Unknown,
}

impl Route {
    pub fn parse(path: &str) -> Self {
        let Some(path) = path.strip_prefix("/v2").map(|path| path.trim_start_matches('/')) else {
            return Self::Unknown;
        };
        if path.is_empty() {
            return Self::Ping;
        }
        let split = |marker: &str| path.rsplit_once(marker).map(|(name, rest)| (name.to_owned(), rest.to_owned()));
        if let Some((name, rest)) = split("/blobs/uploads") {
            return Self::Uploads { name, rest: rest.trim_start_matches('/').to_owned() };
        }
        if let Some((name, rest)) = split("/blobs/") {
            return Self::Blob { name, rest };
        }
        if let Some((name, reference)) = split("/manifests/") {
            return Self::Manifest { name, reference };
        }
        if let Some((name, _)) = split("/referrers/") {
            return Self::Referrers { name };
        }
        match path.strip_suffix("/tags/list") {
            Some(name) => Self::Tags { name: name.to_owned() },
            None => Self::Unknown,
        }
    }

    pub fn repository(&self) -> Option<&str> {
        match self {
            Self::Manifest { name, .. }
            | Self::Blob { name, .. }
            | Self::Uploads { name, .. }
            | Self::Tags { name }
            | Self::Referrers { name } => Some(name),
            Self::Ping | Self::Unknown => None,
        }
    }

    /// The operation in the log and the IAM action that it needs, if any.
    pub fn operation(&self, method: &Method) -> (&'static str, Option<&'static str>) {
        let read = method == Method::GET;
        match self {
            Self::Ping => ("Ping", None),
            Self::Manifest { .. } if read => ("GetManifest", Some("ecr:BatchGetImage")),
            Self::Manifest { .. } if method == Method::HEAD => ("HeadManifest", Some("ecr:BatchGetImage")),
            Self::Manifest { .. } if method == Method::PUT => ("PutManifest", Some("ecr:PutImage")),
            Self::Blob { .. } if read => ("GetBlob", Some("ecr:GetDownloadUrlForLayer")),
            Self::Blob { .. } if method == Method::HEAD => ("HeadBlob", Some("ecr:BatchCheckLayerAvailability")),
            Self::Uploads { .. } if method == Method::POST => ("StartUpload", Some("ecr:InitiateLayerUpload")),
            Self::Uploads { .. } if method == Method::PATCH => ("UploadPart", Some("ecr:UploadLayerPart")),
            Self::Uploads { .. } if method == Method::PUT => ("CompleteUpload", Some("ecr:CompleteLayerUpload")),
            Self::Uploads { .. } if read || method == Method::DELETE => ("Upload", Some("ecr:UploadLayerPart")),
            Self::Tags { .. } if read => ("ListTags", Some("ecr:ListImages")),
            Self::Referrers { .. } if read => ("ListReferrers", Some("ecr:ListImageReferrers")),
            _ => ("Unsupported", None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let name = || "team-a/app".to_owned();
        assert_eq!(Route::parse("/v2/"), Route::Ping);
        assert_eq!(Route::parse("/v2"), Route::Ping);
        let manifest = Route::Manifest { name: name(), reference: "v1".to_owned() };
        assert_eq!(Route::parse("/v2/team-a/app/manifests/v1"), manifest);
        assert_eq!(Route::parse("/v2/team-a/app/blobs/uploads/"), Route::Uploads { name: name(), rest: String::new() });
        let upload = Route::Uploads { name: name(), rest: "an-id".to_owned() };
        assert_eq!(Route::parse("/v2/team-a/app/blobs/uploads/an-id"), upload);
        assert_eq!(
            Route::parse("/v2/team-a/app/blobs/sha256:1"),
            Route::Blob { name: name(), rest: "sha256:1".to_owned() }
        );
        assert_eq!(Route::parse("/v2/team-a/app/tags/list"), Route::Tags { name: name() });
        assert_eq!(Route::parse("/v2/_catalog"), Route::Unknown);
    }
}
