//! The `imagePullSecrets` of ServiceAccounts: our name in, our name out, nothing else touched.
//!
//! The list is atomic for the API server, so it is written whole, guarded by the resourceVersion it was read at. What was
//! added is noted in an annotation within the same write: only that is ever taken out again.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LocalObjectReference, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

/// `secret-name=uid of the pull secret`, separated by commas.
const ADDED: &str = "ecr-operator.dev/image-pull-secrets";

/// Writes ServiceAccounts.
#[derive(Clone)]
pub struct ServiceAccounts {
    client: Client,
}

/// The field manager of what is written: told apart from whoever reverts it.
const WRITER: &str = "ecr-operator";

/// What a pull secret wants of a ServiceAccount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish<'a> {
    /// UID of the pull secret.
    pub owner_uid: &'a str,
    /// The name that is to be in the list; `None`: none of ours.
    pub secret: Option<&'a str>,
}

impl ServiceAccounts {
    /// Through this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Whether `account` isn't as it is wished.
    #[must_use]
    pub fn differs(account: &ServiceAccount, wish: &Wish<'_>) -> bool {
        changed(account, wish).is_some()
    }

    /// Who wrote the ServiceAccount last, besides us: the owner of its `imagePullSecrets` if there is one.
    pub async fn last_writer(&self, account: &ServiceAccount) -> Option<String> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &account.namespace().unwrap_or_default());
        // The watch keeps no managedFields; a list needs no right that the watch doesn't need as well.
        let by_name = ListParams::default().fields(&format!("metadata.name={}", account.name_any()));
        let found = api.list_metadata(&by_name).await.ok()?.items.into_iter().next()?;
        last_writer(found.managed_fields()).map(str::to_owned)
    }

    /// Brings it about, if it isn't so. Returns whether it then is: admission may change what is written.
    ///
    /// # Errors
    /// A conflict where somebody else changed the ServiceAccount meanwhile: nothing is lost, the next pass sees it.
    pub async fn apply(&self, account: &ServiceAccount, wish: &Wish<'_>) -> Result<bool, kube::Error> {
        let Some((list, added)) = changed(account, wish) else {
            return Ok(true);
        };
        let added = (!added.is_empty()).then(|| render(&added));
        let patch = json!({
            "metadata": {
                "uid": account.uid(),
                "resourceVersion": account.resource_version(),
                "annotations": {ADDED: added},
            },
            "imagePullSecrets": list,
        });
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &account.namespace().unwrap_or_default());
        let params = PatchParams { field_manager: Some(WRITER.to_owned()), ..PatchParams::default() };
        let now = api.patch(&account.name_any(), &params, &Patch::Merge(patch)).await?;
        Ok(!Self::differs(&now, wish))
    }
}

fn last_writer(fields: &[ManagedFieldsEntry]) -> Option<&str> {
    let owns_list = |entry: &&ManagedFieldsEntry| {
        entry.fields_v1.as_ref().is_some_and(|fields| fields.0.get("f:imagePullSecrets").is_some())
    };
    let others = || fields.iter().filter(|entry| entry.manager.as_deref() != Some(WRITER));
    let newest = others().max_by_key(|entry| entry.time.as_ref().map(|time| time.0));
    others().find(owns_list).or(newest)?.manager.as_deref()
}

type Added = BTreeMap<String, String>;

/// The list and the note as they are to be; `None` where they are so.
fn changed(account: &ServiceAccount, wish: &Wish<'_>) -> Option<(Vec<LocalObjectReference>, Added)> {
    let mut list = account.image_pull_secrets.clone().unwrap_or_default();
    let mut added = parse(account);
    let before = (list.clone(), added.clone());

    let outdated: Vec<_> = added
        .iter()
        .filter(|(name, uid)| *uid == wish.owner_uid && Some(name.as_str()) != wish.secret)
        .map(|(name, _)| name.clone())
        .collect();
    for name in outdated {
        added.remove(&name);
        list.retain(|entry| entry.name != name);
    }
    if let Some(secret) = wish.secret {
        // One that is there without our note was put there by somebody: it is theirs to take out.
        if !list.iter().any(|entry| entry.name == secret) {
            list.push(LocalObjectReference { name: secret.to_owned() });
            added.insert(secret.to_owned(), wish.owner_uid.to_owned());
        }
    }
    (before != (list.clone(), added.clone())).then_some((list, added))
}

fn parse(account: &ServiceAccount) -> Added {
    let note = account.annotations().get(ADDED).map(String::as_str).unwrap_or_default();
    note.split(',')
        .filter_map(|part| part.split_once('='))
        .map(|(name, uid)| (name.to_owned(), uid.to_owned()))
        .collect()
}

fn render(added: &Added) -> String {
    added.iter().map(|(name, uid)| format!("{name}={uid}")).collect::<Vec<_>>().join(",")
}

/// Whether `account` bears our note for this pull secret.
#[must_use]
pub fn is_marked(account: &ServiceAccount, owner_uid: &str) -> bool {
    parse(account).values().any(|uid| uid == owner_uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(list: &[&str], note: Option<&str>) -> ServiceAccount {
        let mut account = ServiceAccount::default();
        let entry = |name: &&str| LocalObjectReference { name: (*name).to_owned() };
        account.image_pull_secrets = (!list.is_empty()).then(|| list.iter().map(entry).collect());
        account.metadata.annotations = note.map(|note| [(ADDED.to_owned(), note.to_owned())].into());
        account
    }

    fn names(list: &[LocalObjectReference]) -> Vec<&str> {
        list.iter().map(|entry| entry.name.as_str()).collect()
    }

    const WISH: Wish<'_> = Wish { owner_uid: "u1", secret: Some("ecr-pull") };
    const NO_WISH: Wish<'_> = Wish { owner_uid: "u1", secret: None };

    #[test]
    fn our_name_is_added_and_nobody_elses_is_lost() {
        let (list, added) = changed(&account(&["theirs"], None), &WISH).unwrap();
        assert_eq!(names(&list), ["theirs", "ecr-pull"]);
        assert_eq!(render(&added), "ecr-pull=u1");
    }

    #[test]
    fn a_second_pass_has_nothing_to_do() {
        assert_eq!(changed(&account(&["theirs", "ecr-pull"], Some("ecr-pull=u1")), &WISH), None);
        assert_eq!(changed(&account(&["theirs"], None), &NO_WISH), None);
    }

    #[test]
    fn only_what_we_added_is_taken_out() {
        let (list, added) = changed(&account(&["theirs", "ecr-pull"], Some("ecr-pull=u1,other=u2")), &NO_WISH).unwrap();
        assert_eq!(names(&list), ["theirs"]);
        assert_eq!(render(&added), "other=u2");
        assert_eq!(changed(&account(&["ecr-pull"], None), &NO_WISH), None, "somebody else put it there");
    }

    #[test]
    fn a_new_secret_name_replaces_the_old_one() {
        let (list, added) = changed(&account(&["old", "theirs"], Some("old=u1")), &WISH).unwrap();
        assert_eq!(names(&list), ["theirs", "ecr-pull"]);
        assert_eq!(render(&added), "ecr-pull=u1");
    }

    #[test]
    fn a_list_that_was_set_back_gets_our_name_again() {
        let (list, _) = changed(&account(&[], Some("ecr-pull=u1")), &WISH).unwrap();
        assert_eq!(names(&list), ["ecr-pull"]);
    }

    #[test]
    fn who_reverts_is_read_off_the_managed_fields() {
        let fields = |entries: serde_json::Value| serde_json::from_value::<Vec<ManagedFieldsEntry>>(entries).unwrap();
        let list = json!({"f:imagePullSecrets": {}});
        let entry = |manager: &str, time: &str, fields: &serde_json::Value| json!({"manager": manager, "operation": "Apply", "time": time, "fieldsV1": fields});
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let owner = fields(json!([entry("argocd", early, &list), entry("kubectl-label", late, &json!({}))]));
        assert_eq!(last_writer(&owner), Some("argocd"));
        let none = fields(json!([entry("a", early, &json!({})), entry("kubectl-replace", late, &json!({}))]));
        assert_eq!(last_writer(&none), Some("kubectl-replace"));
        assert_eq!(last_writer(&fields(json!([entry("ecr-operator", late, &list)]))), None);
    }
}
