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

/// Decides it from the tags and, where these name nobody, the repository's creation time.
#[must_use]
pub fn ownership(tags: &Tags, created_at: Option<Timestamp>, claim: &Claim) -> Ownership {
    let me = &claim.owner;
    let Some(owner) = Owner::read(tags) else {
        return unmarked(tags, created_at, claim);
    };
    if owner.id == me.id && owner.uid == me.uid {
        return Ownership::Ours;
    }
    let passes = owner.id == me.id || claim.take_over_from.contains(&owner.id);
    match (passes && owner.is_named_like(me), claim.held_since) {
        (true, None) => Ownership::Returning,
        // It was ours and bears another UID now: two live clusters with one owner id. Whoever yields ends the flip-flop.
        (true, Some(_)) => Ownership::Other(format!(
            "the EcrRepository {}/{} with UID {} (owner id {}), which took it over while this one held it",
            owner.namespace, owner.name, owner.uid, owner.id
        )),
        (false, _) if owner.id == me.id => Ownership::Sibling(owner),
        (false, _) => Ownership::Other(format!(
            "the EcrRepository {}/{} of the cluster with owner id {}",
            owner.namespace, owner.name, owner.id
        )),
    }
}

fn unmarked(tags: &Tags, created_at: Option<Timestamp>, claim: &Claim) -> Ownership {
    let mark = MARKS.iter().find(|(prefix, _)| tags.keys().any(|key| key.starts_with(prefix)));
    match (mark, claim.held_since) {
        (Some((_, manager)), _) => Ownership::Other((*manager).to_owned()),
        (None, Some(held)) if Some(held) == created_at => Ownership::Stripped,
        (None, Some(_)) => {
            Ownership::Other("somebody who deleted and re-created it without this operator's tags".to_owned())
        }
        (None, None) => Ownership::Nobody,
    }
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
        let taken = owner("cluster", "team-a", "app", "u2").tags();
        let held = Claim { held_since: Some(CREATED), ..claim() };
        assert!(matches!(seen(&taken, &held), Ownership::Other(_)));
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
        assert!(matches!(ownership(&Tags::new(), Some(later), &held), Ownership::Other(_)));
    }
}
