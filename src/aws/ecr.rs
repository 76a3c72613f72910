//! The calls to ECR that this operator makes, in its own terms. "Not there" is an answer, never an error.

use aws_config::SdkConfig;
use aws_sdk_ecr::Client;
use aws_sdk_ecr::operation::create_repository::builders::CreateRepositoryFluentBuilder;
use aws_sdk_ecr::types;
use jiff::Timestamp;

use crate::aws::AwsError;
use crate::aws::error::{Kind, faulty, incomplete};
use crate::aws::fence::Fence;
use crate::aws::limiter::{Line, Priority};
use crate::core::lifecycle::LifecycleDocument;
use crate::core::names::AccountId;
use crate::core::ownership::Tags;
use crate::core::policy::PolicyDocument;
use crate::core::repository::{Core, Creation, Encryption, Mutability, Reading, Step};
use crate::tenure::Tenure;

/// ECR in one Region, as one identity.
#[derive(Debug, Clone)]
pub struct Ecr {
    client: Client,
    line: Line,
    /// Named in every call that takes it: whatever identity the credentials turn into, no other account is touched.
    account: String,
}

/// The images of a repository, as far as a person who wants it gone asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// How many; a first page of 1,000 that isn't the last is told as such.
    pub count: usize,
    /// Whether there are more than were counted.
    pub more: bool,
    /// The newest push; absent where there are more than were counted: they come in no order.
    pub newest: Option<Timestamp>,
}

/// A repository with its name.
pub type Named = (String, Core);

impl Ecr {
    pub(super) fn new(config: &SdkConfig, account: &AccountId, line: Line, tenure: &Tenure) -> Self {
        let config = aws_sdk_ecr::config::Builder::from(config).interceptor(Fence(tenure.clone())).build();
        Self { client: Client::from_conf(config), line, account: account.to_string() }
    }

    /// The same, whose calls go before others, or after them.
    #[must_use]
    pub fn at(self, priority: Priority) -> Self {
        Self { line: self.line.at(priority), ..self }
    }

    /// The repository of that name; its tags and policies are read by calls of their own.
    ///
    /// # Errors
    /// Where ECR can't be asked.
    pub async fn describe(&self, name: &str) -> Result<Option<Core>, AwsError> {
        const CALL: &str = "ecr:DescribeRepositories";
        let request = self.client.describe_repositories().registry_id(&self.account).repository_names(name);
        let Some(answer) = found(self.line.call(CALL, || request.clone().send()).await)? else {
            return Ok(None);
        };
        answer.repositories().first().map(|repository| core(CALL, repository)).transpose()
    }

    /// One page of all repositories of the registry, up to 1,000, and the token of the next.
    ///
    /// # Errors
    /// Where ECR can't be asked.
    pub async fn page(&self, token: Option<String>) -> Result<(Vec<Named>, Option<String>), AwsError> {
        const CALL: &str = "ecr:DescribeRepositories";
        let request =
            self.client.describe_repositories().registry_id(&self.account).max_results(1000).set_next_token(token);
        let answer = self.line.call(CALL, || request.clone().send()).await?;
        let named = answer.repositories().iter().map(|repository| named(CALL, repository)).collect::<Result<_, _>>()?;
        Ok((named, answer.next_token))
    }

    /// Up to 100 repositories by name; `None` where one of them isn't there: ECR then tells of none.
    ///
    /// # Errors
    /// Where ECR can't be asked.
    pub async fn describe_all(&self, names: &[String]) -> Result<Option<Vec<Named>>, AwsError> {
        const CALL: &str = "ecr:DescribeRepositories";
        let request =
            self.client.describe_repositories().registry_id(&self.account).set_repository_names(Some(names.to_vec()));
        let answer = found(self.line.call(CALL, || request.clone().send()).await)?;
        answer
            .map(|answer| answer.repositories().iter().map(|repository| named(CALL, repository)).collect())
            .transpose()
    }

    /// All tags of the repository with that ARN; `None` where there is none.
    ///
    /// # Errors
    /// Where ECR can't be asked.
    pub async fn tags(&self, arn: &str) -> Result<Option<Tags>, AwsError> {
        let request = self.client.list_tags_for_resource().resource_arn(arn);
        let answer = found(self.line.call("ecr:ListTagsForResource", || request.clone().send()).await)?;
        Ok(answer
            .map(|answer| answer.tags().iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect()))
    }

    /// The lifecycle policy.
    ///
    /// # Errors
    /// Where ECR can't be asked, or what it holds is no lifecycle policy.
    pub async fn lifecycle_policy(&self, name: &str) -> Result<Reading<LifecycleDocument>, AwsError> {
        const CALL: &str = "ecr:GetLifecyclePolicy";
        let request = self.client.get_lifecycle_policy().registry_id(&self.account).repository_name(name);
        let answer = found(self.line.call(CALL, || request.clone().send()).await)?;
        let Some(text) = answer.and_then(|answer| answer.lifecycle_policy_text) else {
            return Ok(Reading::Absent);
        };
        LifecycleDocument::parse(&text).map(Reading::Found).map_err(|error| faulty(CALL, &error.to_string()))
    }

    /// The repository policy.
    ///
    /// # Errors
    /// Where ECR can't be asked, or what it holds is no policy.
    pub async fn repository_policy(&self, name: &str) -> Result<Reading<PolicyDocument>, AwsError> {
        const CALL: &str = "ecr:GetRepositoryPolicy";
        let request = self.client.get_repository_policy().registry_id(&self.account).repository_name(name);
        let answer = found(self.line.call(CALL, || request.clone().send()).await)?;
        let Some(text) = answer.and_then(|answer| answer.policy_text) else {
            return Ok(Reading::Absent);
        };
        PolicyDocument::parse(&text).map(Reading::Found).map_err(|error| faulty(CALL, &error.to_string()))
    }

    /// How the registry's own configuration scans images, if it decides: then the repositories' is of no effect. With a
    /// rule it decides for all of them: those that no filter matches are scanned by hand only (BASIC) or not at all.
    ///
    /// Source: "Filters to choose which repositories are scanned in Amazon ECR" in the ECR user guide.
    ///
    /// # Errors
    /// Where ECR can't be asked.
    pub async fn registry_scanning(&self) -> Result<Option<String>, AwsError> {
        let request = self.client.get_registry_scanning_configuration();
        let answer = self.line.call("ecr:GetRegistryScanningConfiguration", || request.clone().send()).await?;
        let scanning = answer.scanning_configuration();
        let decides =
            scanning.filter(|it| it.scan_type() == Some(&types::ScanType::Enhanced) || !it.rules().is_empty());
        Ok(decides.map(|it| it.scan_type().map_or("BASIC", types::ScanType::as_str).to_owned()))
    }

    /// The images, for a message: one page of up to 1,000.
    ///
    /// # Errors
    /// Where ECR can't be asked.
    pub async fn images(&self, name: &str) -> Result<Images, AwsError> {
        let request = self.client.describe_images().registry_id(&self.account).repository_name(name).max_results(1000);
        let answer = self.line.call("ecr:DescribeImages", || request.clone().send()).await?;
        let more = answer.next_token().is_some();
        let pushed = answer.image_details().iter().filter_map(|image| image.image_pushed_at().and_then(timestamp));
        let newest = pushed.max().filter(|_| !more);
        Ok(Images { count: answer.image_details().len(), more, newest })
    }

    /// Creates a repository, if `may` says so just before that is sent.
    ///
    /// # Errors
    /// Why it may not; within, [`Kind::AlreadyExists`] among others.
    pub async fn create<Asking, Refusal>(
        &self,
        name: &str,
        creation: &Creation,
        may: impl Fn() -> Asking,
    ) -> Result<Result<Core, AwsError>, Refusal>
    where
        Asking: Future<Output = Result<(), Refusal>>,
    {
        const CALL: &str = "ecr:CreateRepository";
        let request = match self.creation(name, creation) {
            Ok(request) => request,
            Err(error) => return Ok(Err(error)),
        };
        let answer = self.line.call_if(CALL, may, || request.clone().send()).await?;
        Ok(answer.and_then(|answer| core(CALL, answer.repository().ok_or_else(|| incomplete(CALL, "repository"))?)))
    }

    fn creation(&self, name: &str, creation: &Creation) -> Result<CreateRepositoryFluentBuilder, AwsError> {
        const CALL: &str = "ecr:CreateRepository";
        let encryption = creation.encryption.as_ref().map(|encryption| {
            types::EncryptionConfiguration::builder()
                .encryption_type(encryption.kind.as_str().into())
                .set_kms_key(encryption.key.clone())
                .build()
                .map_err(|error| faulty(CALL, &error.to_string()))
        });
        let mutability = creation.mutability.as_ref();
        let request = self
            .client
            .create_repository()
            .registry_id(&self.account)
            .repository_name(name)
            .set_image_tag_mutability(mutability.map(|mutability| mutability.mode.as_str().into()))
            .set_image_tag_mutability_exclusion_filters(mutability.map(|m| filters(CALL, m)).transpose()?.flatten())
            .set_image_scanning_configuration(creation.scan_on_push.map(scanning))
            .set_encryption_configuration(encryption.transpose()?)
            .set_tags(Some(tags(CALL, &creation.tags)?));
        Ok(request)
    }

    /// Takes a step, if `may` says so just before that is sent.
    ///
    /// # Errors
    /// Why it may not; within, where ECR refuses it.
    pub async fn perform<Asking, Refusal>(
        &self,
        name: &str,
        arn: &str,
        step: &Step,
        may: impl Fn() -> Asking,
    ) -> Result<Result<(), AwsError>, Refusal>
    where
        Asking: Future<Output = Result<(), Refusal>>,
    {
        let (client, line) = (&self.client, &self.line);
        Ok(match step {
            Step::Create(creation) => self.create(name, creation, may).await?.map(drop),
            Step::Claim(set) | Step::TagResource(set) => {
                const CALL: &str = "ecr:TagResource";
                let set = match tags(CALL, set) {
                    Ok(set) => set,
                    Err(error) => return Ok(Err(error)),
                };
                let request = client.tag_resource().resource_arn(arn).set_tags(Some(set));
                line.call_if(CALL, may, || request.clone().send()).await?.map(drop)
            }
            Step::UntagResource(keys) => {
                let request = client.untag_resource().resource_arn(arn).set_tag_keys(Some(keys.clone()));
                line.call_if("ecr:UntagResource", may, || request.clone().send()).await?.map(drop)
            }
            Step::PutImageTagMutability(mutability) => {
                const CALL: &str = "ecr:PutImageTagMutability";
                let excluded = match filters(CALL, mutability) {
                    Ok(excluded) => excluded,
                    Err(error) => return Ok(Err(error)),
                };
                let request = client
                    .put_image_tag_mutability()
                    .registry_id(&self.account)
                    .repository_name(name)
                    .image_tag_mutability(mutability.mode.as_str().into())
                    .set_image_tag_mutability_exclusion_filters(excluded);
                line.call_if(CALL, may, || request.clone().send()).await?.map(drop)
            }
            Step::PutImageScanningConfiguration(on) => {
                let request = client
                    .put_image_scanning_configuration()
                    .registry_id(&self.account)
                    .repository_name(name)
                    .image_scanning_configuration(scanning(*on));
                line.call_if("ecr:PutImageScanningConfiguration", may, || request.clone().send()).await?.map(drop)
            }
            Step::PutLifecyclePolicy { document, .. } => {
                let request = client
                    .put_lifecycle_policy()
                    .registry_id(&self.account)
                    .repository_name(name)
                    .lifecycle_policy_text(document.text());
                line.call_if("ecr:PutLifecyclePolicy", may, || request.clone().send()).await?.map(drop)
            }
            Step::SetRepositoryPolicy { document, .. } => {
                let request = client
                    .set_repository_policy()
                    .registry_id(&self.account)
                    .repository_name(name)
                    .policy_text(document.text());
                line.call_if("ecr:SetRepositoryPolicy", may, || request.clone().send()).await?.map(drop)
            }
            Step::DeleteRepositoryPolicy { .. } => {
                let request = client.delete_repository_policy().registry_id(&self.account).repository_name(name);
                found(line.call_if("ecr:DeleteRepositoryPolicy", may, || request.clone().send()).await?).map(drop)
            }
            Step::DeleteLifecyclePolicy { .. } => {
                let request = client.delete_lifecycle_policy().registry_id(&self.account).repository_name(name);
                found(line.call_if("ecr:DeleteLifecyclePolicy", may, || request.clone().send()).await?).map(drop)
            }
        })
    }

    /// Deletes a repository, if `may` says so just before that is sent; one that is already gone is deleted.
    ///
    /// # Errors
    /// Why it may not; within, [`Kind::NotEmpty`] where it has images and `force` isn't set, among others.
    pub async fn delete<Asking, Refusal>(
        &self,
        name: &str,
        force: bool,
        may: impl Fn() -> Asking,
    ) -> Result<Result<(), AwsError>, Refusal>
    where
        Asking: Future<Output = Result<(), Refusal>>,
    {
        let request = self.client.delete_repository().registry_id(&self.account).repository_name(name).force(force);
        let answer = self.line.call_if("ecr:DeleteRepository", may, || request.clone().send()).await?;
        Ok(found(answer).map(drop))
    }
}

/// "Not there" as `None`.
fn found<T>(answer: Result<T, AwsError>) -> Result<Option<T>, AwsError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn core(call: &'static str, repository: &types::Repository) -> Result<Core, AwsError> {
    let text = |value: Option<&str>, what| value.map(str::to_owned).ok_or_else(|| incomplete(call, what));
    let mode = repository.image_tag_mutability().map_or("MUTABLE", types::ImageTagMutability::as_str);
    let excluded = repository.image_tag_mutability_exclusion_filters();
    let encryption = repository.encryption_configuration();
    Ok(Core {
        arn: text(repository.repository_arn(), "repositoryArn")?,
        uri: text(repository.repository_uri(), "repositoryUri")?,
        registry_id: text(repository.registry_id(), "registryId")?,
        // To the second, as a status of Kubernetes keeps it: the two are compared.
        created_at: repository
            .created_at()
            .and_then(|time| Timestamp::from_second(time.secs()).ok())
            .ok_or_else(|| incomplete(call, "createdAt"))?,
        mutability: Mutability::new(mode, excluded.iter().map(spelled).collect()),
        scan_on_push: repository
            .image_scanning_configuration()
            .is_some_and(types::ImageScanningConfiguration::scan_on_push),
        encryption: Encryption {
            kind: encryption.map_or("AES256", |encryption| encryption.encryption_type().as_str()).to_owned(),
            key: encryption.and_then(|encryption| encryption.kms_key()).map(str::to_owned),
        },
    })
}

/// A filter of a type that is newer than this version is another one than the wildcard of its text.
fn spelled(filter: &types::ImageTagMutabilityExclusionFilter) -> String {
    match filter.filter_type() {
        types::ImageTagMutabilityExclusionFilterType::Wildcard => filter.filter().to_owned(),
        newer => format!("{newer} {}", filter.filter()),
    }
}

fn named(call: &'static str, repository: &types::Repository) -> Result<Named, AwsError> {
    let name = repository.repository_name().ok_or_else(|| incomplete(call, "repositoryName"))?;
    Ok((name.to_owned(), core(call, repository)?))
}

fn tags(call: &'static str, tags: &Tags) -> Result<Vec<types::Tag>, AwsError> {
    tags.iter()
        .map(|(key, value)| {
            types::Tag::builder().key(key).value(value).build().map_err(|error| faulty(call, &error.to_string()))
        })
        .collect()
}

type Filters = Option<Vec<types::ImageTagMutabilityExclusionFilter>>;

fn filters(call: &'static str, mutability: &Mutability) -> Result<Filters, AwsError> {
    let filter = |text: &String| {
        types::ImageTagMutabilityExclusionFilter::builder()
            .filter_type(types::ImageTagMutabilityExclusionFilterType::Wildcard)
            .filter(text)
            .build()
            .map_err(|error| faulty(call, &error.to_string()))
    };
    let filters: Vec<_> = mutability.filters().iter().map(filter).collect::<Result<_, _>>()?;
    Ok((!filters.is_empty()).then_some(filters))
}

fn scanning(on: bool) -> types::ImageScanningConfiguration {
    types::ImageScanningConfiguration::builder().scan_on_push(on).build()
}

/// AWS's time as ours.
pub(super) fn timestamp(time: &aws_smithy_types::DateTime) -> Option<Timestamp> {
    Timestamp::new(time.secs(), i32::try_from(time.subsec_nanos()).ok()?).ok()
}
