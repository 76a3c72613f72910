//! What is the same in all schedules: who may do what, and what objects may declare.

use ecr_operator::api::{Allow, EcrRegistrySpec, EcrRepositorySpec};
use ecr_operator::core::access::Access;
use ecr_operator::core::names::{AccountId, Region};
use ecr_operator::core::ownership::Owner;
use ecr_operator::core::repository::{Context, Desired};
use ecr_operator::core::selector::NamespaceView;
use serde_json::json;

use super::world::Object;

/// Two objects want one repository, the third another.
pub(super) const NAMES: [(&str, &str); 3] = [("one", "shared"), ("two", "shared"), ("three", "alone")];
pub(super) struct Stage {
    pub(super) registry: EcrRegistrySpec,
    pub(super) access: Access,
    pub(super) account: AccountId,
    pub(super) region: Region,
    pub(super) specs: Vec<EcrRepositorySpec>,
}

impl Stage {
    pub(super) fn new() -> Self {
        let allow: Vec<Allow> = serde_json::from_value(
            json!([{"namespaces": {}, "manage": ["*"], "maxAdoption": "TakeOver", "maxDeletion": "DeleteWithImages"}]),
        )
        .unwrap();
        let rule = json!({"rulePriority": 1, "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 3}, "action": {"type": "expire"}});
        let aspects = [
            json!({}),
            json!({"imageTagMutability": "IMMUTABLE", "tags": {"team": "a"}}),
            json!({"imageTagMutability": "MUTABLE", "lifecyclePolicy": {"rules": [rule]}}),
            json!({"lifecyclePolicy": {"rules": []}, "tags": {}, "repositoryPolicy": {"grants": []}}),
            json!({"imageScanningConfiguration": {"scanOnPush": true}, "repositoryPolicy": {"grants": [{"access": "Pull", "accounts": ["210987654321"]}]}}),
        ];
        let mut specs = Vec::new();
        for aspect in &aspects {
            for deletion in ["Retain", "Delete", "DeleteWithImages"] {
                for adoption in ["Deny", "Adopt", "TakeOver"] {
                    let mut spec = aspect.clone();
                    spec["deletionPolicy"] = json!(deletion);
                    spec["adoptionPolicy"] = json!(adoption);
                    specs.push(serde_json::from_value(spec).unwrap());
                }
            }
        }
        Self {
            registry: serde_json::from_value(json!({"region": "eu-west-1"})).unwrap(),
            access: Access::of(&allow, NamespaceView { name: "team", labels: &[].into() }),
            account: AccountId::parse("123456789012").unwrap(),
            region: Region::parse("eu-west-1").unwrap(),
            specs,
        }
    }

    pub(super) fn owner(name: &str, uid: u32) -> Owner {
        Owner { id: "cluster".into(), namespace: "team".into(), name: name.into(), uid: uid.to_string() }
    }

    pub(super) fn parse<T>(
        &self,
        name: &str,
        object: &Object,
        parse: impl Fn(&EcrRepositorySpec, Context<'_>) -> T,
    ) -> T {
        let owner = Self::owner(name, object.uid);
        let mut spec = self.specs[object.spec].clone();
        spec.name = Some(repository_of(name).to_owned());
        let Self { registry, access, account, region, .. } = self;
        parse(&spec, Context { registry, registry_name: "default", account, region, access, owner: &owner })
    }

    pub(super) fn desired(&self, name: &str, object: &Object) -> Desired {
        self.parse(name, object, |spec, context| Desired::parse(spec, context).unwrap())
    }
}

pub(super) fn repository_of(name: &str) -> &'static str {
    NAMES.iter().find(|(object, _)| *object == name).unwrap().1
}
