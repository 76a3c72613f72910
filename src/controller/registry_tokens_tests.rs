//! Whatever a registry declares, tokens are minted by whoever is declared for that, and by nobody else.

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// An identity, or none, each by another role.
fn identity(role: &'static str) -> impl Strategy<Value = Option<Identity>> {
    let arn = format!("arn:aws:iam::123456789012:role/{role}");
    let made = move || serde_json::from_value(json!({"assumeRole": {"roleArn": arn}})).unwrap();
    any::<bool>().prop_map(move |is_there| is_there.then(&made))
}

fn spec() -> impl Strategy<Value = EcrRegistrySpec> {
    let scope = prop::sample::select(vec!["Required", "Never"]);
    (identity("manager"), identity("puller"), identity("pusher"), scope).prop_map(|(manager, puller, pusher, scope)| {
        let mut spec = EcrRegistrySpec { identity: manager, ..EcrRegistrySpec::default() };
        spec.pull = Some(serde_json::from_value(json!({"identity": puller, "scopeTokens": scope})).unwrap());
        spec.push = pusher.map(|pusher| serde_json::from_value(json!({"identity": pusher})).unwrap());
        spec
    })
}

proptest! {
    #[test]
    fn tokens_are_minted_as_whoever_is_declared_for_them_and_push_tokens_never_as_anybody_else(spec in spec()) {
        let puller = spec.pull.as_ref().and_then(|pull| pull.identity.as_ref());
        let own = if puller.is_some() { puller } else { spec.identity.as_ref() };
        prop_assert_eq!(mints("default", &spec, TokenAccess::Pull).unwrap(), own);
        let pushes = mints("default", &spec, TokenAccess::Push);
        let pusher = spec.push.as_ref().map(|push| &push.identity);
        prop_assert_eq!(pushes.map_err(|problem| problem.reason), pusher.map(Some).ok_or(Reason::NotAllowed));
        prop_assert!(is_scoped(&spec, TokenAccess::Push), "whoever may push is kept to what it may push");
        let pull = spec.pull.as_ref().unwrap();
        prop_assert_eq!(is_scoped(&spec, TokenAccess::Pull), pull.scope_tokens == ScopeTokens::Required);
    }
}
