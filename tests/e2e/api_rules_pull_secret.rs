//! Rules of both kinds of pull secret.

use crate::support::api::{Rule, rule, try_all};

#[tokio::test]
async fn rules_of_a_pull_secret() {
    try_all("EcrPullSecret", all()).await;
}

#[tokio::test]
async fn rules_of_a_cluster_wide_pull_secret() {
    let mut rules = all();
    rules.push(
        rule("namespaces are selected by name or label")
            .good("namespaceSelector: {matchLabels: {team: a}}, excludeNamespaces: []")
            .good("namespaceSelector: {matchNames: ['*']}, excludeNamespaces: [kube-system, 'kube-*']")
            .bad("namespaceSelector: {matchNames: []}", "spec.namespaceSelector.matchNames", "at least 1 items")
            .bad("excludeNamespaces: [A]", "spec.excludeNamespaces[0]", "should match")
            .bad(
                "namespaceSelector: {matchExpressions: [{key: a, operator: In}]}",
                "spec.namespaceSelector.matchExpressions[0]",
                "operator In and NotIn need values",
            ),
    );
    try_all("ClusterEcrPullSecret", rules).await;
}

fn all() -> Vec<Rule> {
    [registries(), secrets()].into_iter().flatten().collect()
}

fn registries() -> Vec<Rule> {
    let entries = |entries: &[&str]| {
        let entries: Vec<_> = entries.iter().map(|entry| format!("{{{entry}}}")).collect();
        format!("registries: [{}]", entries.join(", "))
    };
    let many = |count: usize| {
        let named: Vec<_> = (0..count).map(|number| format!("registryRef: {{name: r{number}}}")).collect();
        entries(&named.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let other = "registryRef: {name: other}";
    let once = "each registry has one entry";
    let alone = "public stands alone beside registryRef";
    vec![
        rule("one to twenty registries")
            .good(many(20))
            .bad(many(21), "spec.registries", "must have at most 20 items")
            .bad("registries: []", "spec.registries", "at least 1 items"),
        rule("each registry once, by default the one named default")
            .good(entries(&["", other]))
            .good(entries(&["", "public: {}"]))
            .bad(entries(&[other, other]), "spec.registries", once)
            .bad(entries(&["", "registryRef: {name: default}"]), "spec.registries", once)
            .bad(
                entries(&["public: {}", "registryRef: {name: other}, public: {}"]),
                "spec.registries",
                "has one entry",
            ),
        rule("public stands alone in its entry")
            .good(entries(&["registryRef: {name: other}, public: {}"]))
            .bad(entries(&["public: {}, repositories: [a]"]), "spec.registries[0]", alone)
            .bad(entries(&["public: {}, regions: [us-east-1]"]), "spec.registries[0]", alone)
            .bad(entries(&["public: {}, accounts: ['123456789012']"]), "spec.registries[0]", alone)
            .bad(entries(&["public: {}, hosts: [Fips]"]), "spec.registries[0]", alone),
        rule("what an entry is narrowed to")
            .good(entries(&["accounts: ['123456789012'], regions: [eu-west-1], hosts: [Classic, DualStack, Fips]"]))
            .good(entries(&["repositories: ['team-a/*', b]"]))
            .bad(entries(&["accounts: ['1']"]), "spec.registries[0].accounts[0]", "should match '^[0-9]{12}$'")
            .bad(entries(&["regions: [Ireland]"]), "spec.registries[0].regions[0]", "should match")
            .bad(entries(&["hosts: [Ipv6]"]), "spec.registries[0].hosts[0]", "DualStack")
            .bad(entries(&["repositories: ['{namespace}/*']"]), "spec.registries[0].repositories[0]", "should match")
            .bad(entries(&["repositories: []"]), "spec.registries[0].repositories", "at least 1 items")
            .bad(
                entries(&["registryRef: {name: Nope}"]),
                "spec.registries[0].registryRef.name",
                "name of a Kubernetes object",
            ),
    ]
}

fn secrets() -> Vec<Rule> {
    let template = "format: Template, secretTemplate: {data: {password: '{password}'}}";
    let both = "format Template needs secretTemplate.data, and secretTemplate.data needs format Template";
    vec![
        rule("names of the Secret and its keys")
            .good("secretName: ecr.pull-1")
            .bad("secretName: ecr_pull", "spec.secretName", "must be the name of a Kubernetes object")
            .bad("secretName: '%254%'", "spec.secretName", "253")
            .bad(
                "format: Template, secretTemplate: {data: {'a b': c}}",
                "spec.secretTemplate.data",
                "must be a key as ConfigMaps and Secrets take",
            ),
        rule("a template where there is a format for it")
            .good(template)
            .good("secretTemplate: {labels: {a: b}, annotations: {'a/b': 'c d'}}")
            .bad("format: Template", "spec", both)
            .bad("secretTemplate: {data: {a: b}}", "spec", both)
            .bad("format: Template, secretTemplate: {data: {}}", "spec.secretTemplate.data", "at least 1 properties")
            .bad("format: Yaml", "spec.format", "Template"),
        rule("labels and annotations as Kubernetes takes them, except ours")
            .bad("secretTemplate: {labels: {'a b': c}}", "spec.secretTemplate.labels", "a key is a name of up to 63")
            .bad("secretTemplate: {labels: {a: 'b c'}}", "spec.secretTemplate.labels.a", "should match")
            .bad(
                "secretTemplate: {labels: {ecr-operator.dev/owner-uid: a}}",
                "spec.secretTemplate.labels",
                "keys that begin with ecr-operator.dev/ are reserved",
            )
            .bad(
                "secretTemplate: {annotations: {ecr-operator.dev/expires-at: a}}",
                "spec.secretTemplate.annotations",
                "keys that begin with ecr-operator.dev/ are reserved",
            ),
        rule("merging needs entries")
            .good("mergePolicy: Merge")
            .bad(format!("mergePolicy: Merge, {template}"), "spec", "mergePolicy Merge needs format DockerConfigJson")
            .bad("mergePolicy: Merge, secretTemplate: {labels: {a: b}}", "spec", "Merge takes no secretTemplate")
            .bad("mergePolicy: Replace", "spec.mergePolicy", "Merge"),
        rule("a template holds one registry").good(format!("{template}, registries: [{{}}]")).bad(
            format!("{template}, registries: [{{}}, {{public: {{}}}}]"),
            "spec",
            "has room for one registry",
        ),
        rule("ServiceAccounts by name, or all")
            .good("serviceAccounts: []")
            .good("serviceAccounts: [default, builder.x]")
            .good("serviceAccounts: ['*']")
            .bad("serviceAccounts: ['*', default]", "spec.serviceAccounts", "it stands alone")
            .bad("serviceAccounts: ['team-*']", "spec.serviceAccounts[0]", "should match"),
        rule("ServiceAccounts get what pods pull with")
            .good("access: Push, serviceAccounts: []")
            .bad("access: Push, serviceAccounts: [default]", "spec", "access Push takes no serviceAccounts")
            .bad(
                format!("{template}, serviceAccounts: [default]"),
                "spec",
                "serviceAccounts needs format DockerConfigJson",
            )
            .bad("access: All", "spec.access", "Push"),
        rule("pods are restarted for what they pull with")
            .good("restartStuckPods: true")
            .good("access: Push, restartStuckPods: false")
            .bad("access: Push, restartStuckPods: true", "spec", "restartStuckPods needs access Pull"),
        rule("verify names a repository")
            .good("verify: {repository: team-a/app}")
            .bad("verify: {repository: 'team-a/*'}", "spec.verify.repository", "must be an ECR repository name")
            .bad("verify: {}", "spec.verify.repository", "Required value"),
    ]
}
