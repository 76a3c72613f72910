//! The operations: what each call checks, does to the model, and answers.

pub(crate) mod images;
pub(crate) mod paging;
pub(crate) mod pod_identity;
pub(crate) mod policies;
pub(crate) mod registry;
pub(crate) mod repositories;
pub(crate) mod sts;
pub(crate) mod tagging;
pub(crate) mod tags;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::ApiError;
use crate::model::identity::{Ask, Caller};
use crate::model::names::{self, check_repository_name, is_account_id};
use crate::model::repository::Repository;
use crate::model::{Model, repository_not_found};

pub(crate) type Answer = Result<Value, ApiError>;

/// One call: the model, who calls, where and when.
pub(crate) struct Context<'a> {
    pub model: &'a mut Model,
    pub caller: &'a Caller,
    pub region: &'a str,
    pub now: Timestamp,
}

/// The repository that a call names.
pub(crate) struct Target {
    pub account: String,
    pub name: String,
}

/// Runs an operation of ECR (JSON protocol, `AmazonEC2ContainerRegistry_V20150921`).
pub(crate) fn ecr(cx: &mut Context<'_>, operation: &str, body: Value) -> Answer {
    match operation {
        "CreateRepository" => repositories::create(cx, decode(body)?),
        "DescribeRepositories" => repositories::describe(cx, decode(body)?),
        "DeleteRepository" => repositories::delete(cx, decode(body)?),
        "PutImageTagMutability" => repositories::put_mutability(cx, decode(body)?),
        "PutImageScanningConfiguration" => repositories::put_scanning(cx, decode(body)?),
        "TagResource" => tags::tag(cx, decode(body)?),
        "UntagResource" => tags::untag(cx, decode(body)?),
        "ListTagsForResource" => tags::list(cx, decode(body)?),
        "PutLifecyclePolicy" => policies::put_lifecycle(cx, decode(body)?),
        "GetLifecyclePolicy" => policies::get_lifecycle(cx, decode(body)?),
        "DeleteLifecyclePolicy" => policies::delete_lifecycle(cx, decode(body)?),
        "SetRepositoryPolicy" => policies::set(cx, decode(body)?),
        "GetRepositoryPolicy" => policies::get(cx, decode(body)?),
        "DeleteRepositoryPolicy" => policies::delete(cx, decode(body)?),
        "ListImages" => images::list(cx, decode(body)?),
        "DescribeImages" => images::describe(cx, decode(body)?),
        "BatchGetImage" => images::batch_get(cx, decode(body)?),
        "BatchDeleteImage" => images::batch_delete(cx, decode(body)?),
        "GetAuthorizationToken" => registry::authorization_token(cx, decode(body)?),
        "GetRegistryScanningConfiguration" => registry::get_scanning(cx),
        "PutRegistryScanningConfiguration" => registry::put_scanning(cx, decode(body)?),
        "BatchGetRepositoryScanningConfiguration" => registry::repository_scanning(cx, decode(body)?),
        "DescribeRegistry" => registry::describe(cx),
        _ => Err(unknown_operation(operation)),
    }
}

pub(crate) fn unknown_operation(operation: &str) -> ApiError {
    ApiError::new("UnknownOperationException", format!("The local ECR does not know the operation {operation}"))
}

/// Reads a request's members; a member of the wrong type is what AWS calls a serialization error.
pub(crate) fn decode<T: DeserializeOwned>(body: Value) -> Result<T, ApiError> {
    serde_json::from_value(body).map_err(|error| ApiError::new("SerializationException", error.to_string()))
}

impl Context<'_> {
    /// The repository named in a request; the registry is the caller's own unless another is named.
    pub fn target(&self, registry_id: Option<String>, name: Option<String>) -> Result<Target, ApiError> {
        let name = name.ok_or_else(|| ApiError::missing("repositoryName"))?;
        check_repository_name(&name)?;
        Ok(Target { account: self.registry_id(registry_id)?, name })
    }

    pub fn registry_id(&self, registry_id: Option<String>) -> Result<String, ApiError> {
        match registry_id {
            None => Ok(self.caller.account.clone()),
            Some(id) if is_account_id(&id) => Ok(id),
            Some(_) => Err(ApiError::parameter("registryId", "must satisfy regular expression '[0-9]{12}'")),
        }
    }

    /// Asks for permission to act on a repository, which need not exist.
    pub fn authorize(&self, action: &str, target: &Target) -> Result<(), ApiError> {
        self.authorize_with(action, target, |ask| ask)
    }

    pub fn authorize_with<'a>(
        &'a self,
        action: &'a str,
        target: &'a Target,
        more: impl FnOnce(Ask<'a>) -> Ask<'a>,
    ) -> Result<(), ApiError> {
        let mut ask =
            Ask::new(action, names::repository_arn(&target.account, self.region, &target.name), &target.account);
        if let Some(repository) = self.model.repository(&target.account, self.region, &target.name) {
            ask = ask.policy(repository.policy.as_ref().map(|policy| &policy.document)).resource_tags(&repository.tags);
        }
        self.model.identities.authorize(self.caller, &more(ask))
    }

    /// Asks for permission for something that isn't a repository.
    pub fn authorize_any(&self, action: &str, resource: &str) -> Result<(), ApiError> {
        self.model.identities.authorize(self.caller, &Ask::new(action, resource, &self.caller.account))
    }

    /// Asks for permission to do this to a key by way of ECR, which passes on what KMS says. The policies of keys aren't
    /// modelled: each leaves it to those of the identities, in whichever account.
    pub fn authorize_key(&self, action: &str, key: &str) -> Result<(), ApiError> {
        let via = vec![format!("ecr.{}.amazonaws.com", self.region)];
        let ask = Ask::new(action, key, &self.caller.account).context("kms:ViaService", via);
        self.model
            .identities
            .authorize(self.caller, &ask)
            .map_err(|denied| ApiError::new("KmsException", denied.message).detail("kmsError", "AccessDeniedException"))
    }

    /// A repository as reads see it: a new one may not be there yet.
    pub fn read(&self, target: &Target) -> Result<&Repository, ApiError> {
        self.model
            .repository(&target.account, self.region, &target.name)
            .filter(|repository| self.model.is_visible(repository, self.now))
            .ok_or_else(|| repository_not_found(&target.name, &target.account))
    }

    pub fn write(&mut self, target: &Target) -> Result<&mut Repository, ApiError> {
        self.model.existing(&target.account, self.region, &target.name)
    }
}
