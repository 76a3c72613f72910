//! Whose a repository is. Recorded in AWS tags, set within CreateRepository, checked before any change.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// Tags of a repository.
pub type Tags = BTreeMap<String, String>;

/// All our own tags start so.
pub const TAG_PREFIX: &str = "ecr-operator.dev/";
const OWNER_ID: &str = "ecr-operator.dev/owner-id";
const NAMESPACE: &str = "ecr-operator.dev/namespace";
const NAME: &str = "ecr-operator.dev/name";
const UID: &str = "ecr-operator.dev/uid";

/// One CR in one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The cluster's owner id.
    pub id: String,
    /// Of the CR.
    pub namespace: String,
    /// Of the CR.
    pub name: String,
    /// Of the CR.
    pub uid: String,
}

impl Owner {
    /// The four tags that say so.
    #[must_use]
    pub fn tags(&self) -> Tags {
        [(OWNER_ID, &self.id), (NAMESPACE, &self.namespace), (NAME, &self.name), (UID, &self.uid)]
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.clone()))
            .collect()
    }

    /// Whom the tags name, if anybody.
    #[must_use]
    pub fn read(tags: &Tags) -> Option<Self> {
        let value = |key: &str| tags.get(key).cloned().unwrap_or_default();
        tags.contains_key(OWNER_ID).then(|| Self {
            id: value(OWNER_ID),
            namespace: value(NAMESPACE),
            name: value(NAME),
            uid: value(UID),
        })
    }

    /// Whether the tags name one CR, and no less.
    #[must_use]
    pub fn is_told(tags: &Tags) -> bool {
        Self::read(tags).is_some_and(|owner| !owner.uid.is_empty())
    }

    fn is_named_like(&self, other: &Self) -> bool {
        self.namespace == other.namespace && self.name == other.name
    }
}

/// What is known of the CR that asks.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The CR.
    pub owner: Owner,
    /// `createdAt` of the repository that this CR (this UID) already held, from its status.
    pub held_since: Option<Timestamp>,
    /// Owner ids whose repositories pass to this cluster.
    pub take_over_from: Vec<String>,
}

/// Whose it is, seen from a [`Claim`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// The claimant's.
    Ours,
    /// The claimant's under an earlier UID, or in a cluster that passed its repositories on: tags are brought up to date.
    Returning,
    /// The claimant's, but somebody took the tags away: they are put back.
    Stripped,
    /// The claimant held it, and it isn't the claimant's any more: whoever yields ends the flip-flop. Says why.
    Lost(String),
    /// Nobody's; free to adopt.
    Nobody,
    /// Another CR's of this cluster: to be adopted only if that CR is gone.
    Sibling(Owner),
    /// Somebody else's, who is named.
    Other(String),
}

/// Tags by which other tools mark what is theirs.
const MARKS: &[(&str, &str)] = &[
    ("services.k8s.aws/", "AWS Controllers for Kubernetes (ACK)"),
    ("crossplane-", "Crossplane"),
    ("aws:cloudformation:", "CloudFormation"),
];

/// Decides it from the tags and, where these don't name one CR, the repository's creation time.
#[must_use]
pub fn ownership(tags: &Tags, created_at: Option<Timestamp>, claim: &Claim) -> Ownership {
    let me = &claim.owner;
    let owner = Owner::read(tags);
    if owner.as_ref().is_some_and(|owner| owner.id == me.id && owner.uid == me.uid) {
        return Ownership::Ours;
    }
    match claim.held_since {
        Some(held) if !Owner::is_told(tags) && Some(held) == created_at => Ownership::Stripped,
        Some(_) => Ownership::Lost(lost(tags, owner)),
        None => owner.map_or_else(|| unmarked(tags), |owner| of_another(owner, claim)),
    }
}

fn of_another(owner: Owner, claim: &Claim) -> Ownership {
    let me = &claim.owner;
    let passes = owner.id == me.id || claim.take_over_from.contains(&owner.id);
    if passes && owner.is_named_like(me) {
        Ownership::Returning
    } else if owner.id == me.id {
        Ownership::Sibling(owner)
    } else {
        Ownership::Other(format!(
            "the EcrRepository {}/{} of the cluster with owner id {}",
            owner.namespace, owner.name, owner.id
        ))
    }
}

fn unmarked(tags: &Tags) -> Ownership {
    manager(tags).map_or(Ownership::Nobody, |manager| Ownership::Other(manager.to_owned()))
}

fn manager(tags: &Tags) -> Option<&'static str> {
    let mark = MARKS.iter().find(|(prefix, _)| tags.keys().any(|key| key.starts_with(prefix)));
    mark.map(|(_, manager)| *manager)
}

fn lost(tags: &Tags, owner: Option<Owner>) -> String {
    if let Some(Owner { id, namespace, name, uid }) = owner {
        return format!("the EcrRepository {namespace}/{name} with UID {uid} (owner id {id}) took it over");
    }
    let by = manager(tags).unwrap_or("somebody");
    format!("{by} deleted and re-created it without this operator's tags")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(id: &str, namespace: &str, name: &str, uid: &str) -> Owner {
        Owner { id: id.into(), namespace: namespace.into(), name: name.into(), uid: uid.into() }
    }

    fn me() -> Owner {
        owner("cluster", "team-a", "app", "u1")
    }

    fn claim() -> Claim {
        Claim { owner: me(), held_since: None, take_over_from: vec![] }
    }

    const CREATED: Timestamp = Timestamp::UNIX_EPOCH;

    fn seen(tags: &Tags, claim: &Claim) -> Ownership {
        ownership(tags, Some(CREATED), claim)
    }

    #[test]
    fn tags_that_were_written_are_read_back() {
        assert_eq!(Owner::read(&me().tags()), Some(me()));
        assert_eq!(Owner::read(&Tags::new()), None);
    }

    #[test]
    fn the_owner_is_known_by_owner_id_and_uid() {
        assert_eq!(seen(&me().tags(), &claim()), Ownership::Ours);
        let mut partly = me().tags();
        partly.remove(NAMESPACE);
        assert_eq!(seen(&partly, &claim()), Ownership::Ours);
    }

    #[test]
    fn a_re_created_cr_returns_to_its_repository() {
        let before = owner("cluster", "team-a", "app", "u0").tags();
        assert_eq!(seen(&before, &claim()), Ownership::Returning);
    }

    #[test]
    fn two_live_clusters_do_not_flip_flop() {
        let held = Claim { held_since: Some(CREATED), take_over_from: vec!["passed".into()], ..claim() };
        for (taken, by) in [
            (owner("cluster", "team-a", "app", "u2"), "the same manifest with the same owner id"),
            (owner("cluster", "team-b", "web", "u2"), "another manifest with the same owner id"),
            (owner("elsewhere", "team-a", "app", "u2"), "another owner id"),
            (owner("passed", "team-a", "app", "u2"), "an owner id that passes on what it has"),
        ] {
            assert!(matches!(seen(&taken.tags(), &held), Ownership::Lost(told) if told.contains("u2")), "{by}");
        }
    }

    #[test]
    fn a_lost_clusters_repositories_pass_on_where_the_registry_says_so() {
        let lost = owner("old", "team-a", "app", "u0").tags();
        assert!(matches!(seen(&lost, &claim()), Ownership::Other(_)));
        let passing = Claim { take_over_from: vec!["old".into()], ..claim() };
        assert_eq!(seen(&lost, &passing), Ownership::Returning);
        let of_another_name = owner("old", "team-a", "web", "u0").tags();
        assert!(matches!(seen(&of_another_name, &passing), Ownership::Other(_)));
    }

    #[test]
    fn another_cr_of_the_cluster_is_named() {
        let sibling = owner("cluster", "team-b", "app", "u9");
        assert_eq!(seen(&sibling.tags(), &claim()), Ownership::Sibling(sibling));
    }

    #[test]
    fn marks_of_other_managers_count() {
        for (key, manager) in [
            ("services.k8s.aws/namespace", "ACK"),
            ("crossplane-name", "Crossplane"),
            ("aws:cloudformation:stack-name", "CloudFormation"),
        ] {
            let tags = Tags::from([(key.to_owned(), "x".to_owned())]);
            assert!(matches!(seen(&tags, &claim()), Ownership::Other(told) if told.contains(manager)), "{key}");
        }
        let plain = Tags::from([("team".to_owned(), "a".to_owned())]);
        assert_eq!(seen(&plain, &claim()), Ownership::Nobody);
    }

    #[test]
    fn stripped_tags_are_told_from_a_re_created_repository() {
        let held = Claim { held_since: Some(CREATED), ..claim() };
        assert_eq!(seen(&Tags::new(), &held), Ownership::Stripped);
        let later = CREATED + std::time::Duration::from_secs(1);
        assert!(matches!(ownership(&Tags::new(), Some(later), &held), Ownership::Lost(_)));
        assert!(matches!(ownership(&Tags::new(), None, &held), Ownership::Lost(_)), "not known to be the same");
    }

    #[test]
    fn what_was_held_and_stripped_is_ours_whatever_other_marks_and_remains_of_ours_there_are() {
        let held = Claim { held_since: Some(CREATED), ..claim() };
        let acks = Tags::from([("services.k8s.aws/namespace".to_owned(), "x".to_owned())]);
        assert_eq!(seen(&acks, &held), Ownership::Stripped, "taken over from ACK, which then took our tags off");
        let mut no_uid = me().tags();
        no_uid.remove(UID);
        assert_eq!(seen(&no_uid, &held), Ownership::Stripped);
        let later = CREATED + std::time::Duration::from_secs(1);
        assert!(matches!(ownership(&acks, Some(later), &held), Ownership::Lost(told) if told.contains("ACK")));
    }
}
