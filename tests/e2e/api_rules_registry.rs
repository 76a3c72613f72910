//! Rules of `EcrRegistry` besides its defaults.

use crate::support::api::{Rule, rule, try_all};

#[tokio::test]
async fn rules_of_a_registry() {
    try_all("EcrRegistry", [basics(), identities(), pull_and_allow()].into_iter().flatten().collect()).await;
}

fn basics() -> Vec<Rule> {
    let no_region = "must be an AWS Region such as eu-west-1";
    let no_account = "must be an AWS account id of 12 digits";
    let no_duration = "must be a duration between 1m and 24h";
    let no_url = "must be a URL that begins with https:// or http://";
    vec![
        rule("a Region of any partition")
            .good("region: ap-southeast-2")
            .good("region: us-gov-west-1")
            .good("region: us-isob-east-1")
            .good("region: eusc-de-east-1")
            .bad("region: Ireland", "spec.region", no_region)
            .bad("region: eu-west-1a", "spec.region", no_region)
            .bad("region: eu-west", "spec.region", no_region),
        rule("an account of 12 digits")
            .good("accountId: '123456789012'")
            .bad("accountId: '12345678901'", "spec.accountId", no_account)
            .bad("accountId: my-account", "spec.accountId", no_account)
            .bad("accountId: 123456789012", "spec.accountId", "must be of type string"),
        rule("endpoints")
            .good("endpoint: {fips: true, dualStack: true, url: 'http://127.0.0.1:4566/x'}")
            .bad("endpoint: {url: '127.0.0.1:4566'}", "spec.endpoint.url", no_url)
            .bad("endpoint: {url: 'ftp://a'}", "spec.endpoint.url", no_url),
        rule("mode is one of two").good("mode: Plan").bad("mode: Stop", "spec.mode", "Plan"),
        rule("driftInterval is a duration")
            .good("driftInterval: 10m")
            .good("driftInterval: 1h30m")
            .good("driftInterval: 24h")
            .bad("driftInterval: 30m1h", "spec.driftInterval", no_duration)
            .bad("driftInterval: '10'", "spec.driftInterval", no_duration)
            .bad("driftInterval: 59s", "spec.driftInterval", no_duration)
            .bad("driftInterval: 25h", "spec.driftInterval", no_duration)
            .bad("driftInterval: -1h", "spec.driftInterval", no_duration)
            .bad("driftInterval: ''", "spec.driftInterval", no_duration),
        rule("readBudgetPerHour isn't negative").good("readBudgetPerHour: 0").bad(
            "readBudgetPerHour: -1",
            "spec.readBudgetPerHour",
            "greater than or equal to 0",
        ),
        rule("takeOverFrom names owners").good("takeOverFrom: [0b1c]").bad(
            "takeOverFrom: ['']",
            "spec.takeOverFrom[0]",
            "at least 1 chars",
        ),
        rule("requiredTags may have placeholders")
            .good("requiredTags: {team: '{namespace}-{name}', x: ''}")
            .bad("requiredTags: {team: '{team}'}", "spec.requiredTags.team", "should match")
            .bad("requiredTags: {'aws:team': a}", "spec.requiredTags", "are reserved"),
    ]
}

const ROLE: &str = "roleArn: 'arn:aws:iam::123456789012:role/ecr'";

fn identities() -> Vec<Rule> {
    let of = |identity: &str| format!("identity: {{{identity}}}");
    let assume = |more: &str| of(&format!("assumeRole: {{{ROLE}{more}}}"));
    let web = format!("webIdentity: {{{ROLE}, serviceAccountRef: {{namespace: ecr, name: puller}}}}");
    let one_of_four = "exactly one of ambient, assumeRole, webIdentity and accessKey";
    let one_of_three = "exactly one of ambient, webIdentity and accessKey";
    let no_role = "must be the ARN of an IAM role";
    let an_hour = "3600 s at most";
    vec![
        rule("one way to log in")
            .good(of("ambient: {}"))
            .good(of(&web))
            .good(of("accessKey: {secretName: key}"))
            .good(assume(""))
            .bad(of(""), "spec.identity", one_of_four)
            .bad(of("ambient: {}, accessKey: {secretName: key}"), "spec.identity", one_of_four),
        rule("the same for pulling and pushing")
            .good(format!("pull: {{{}}}, push: {{{}}}", of(&web), of("ambient: {}")))
            .bad(format!("pull: {{{}}}", of("")), "spec.pull.identity", one_of_four)
            .bad(format!("push: {{{}}}", of("")), "spec.push.identity", one_of_four)
            .bad("push: {}", "spec.push.identity", "Required value"),
        rule("one source for a role")
            .good(assume(&format!(", source: {{{web}}}")))
            .good(assume(", source: {ambient: {}}"))
            .bad(assume(", source: {}"), "spec.identity.assumeRole.source", one_of_three)
            .bad(
                assume(&format!(", source: {{ambient: {{}}, {web}}}")),
                "spec.identity.assumeRole.source",
                one_of_three,
            ),
        rule("a role is named by its ARN")
            .good(of("assumeRole: {roleArn: 'arn:aws-us-gov:iam::123456789012:role/a/b'}"))
            .bad(of("assumeRole: {roleArn: ecr}"), "spec.identity.assumeRole.roleArn", no_role)
            .bad(
                of("assumeRole: {roleArn: 'arn:aws:sts::123456789012:assumed-role/a/b'}"),
                "spec.identity.assumeRole.roleArn",
                no_role,
            )
            .bad(of(&web.replace("role/", "user/")), "spec.identity.webIdentity.roleArn", no_role)
            .bad(of("assumeRole: {}"), "spec.identity.assumeRole.roleArn", "Required value"),
        rule("a session lives from 15 minutes to 12 hours, an hour where roles are chained")
            .good(assume(", durationSeconds: 900"))
            .good(assume(", durationSeconds: 43200, source: {accessKey: {secretName: key}}"))
            .bad(
                assume(", durationSeconds: 899"),
                "spec.identity.assumeRole.durationSeconds",
                "greater than or equal to 900",
            )
            .bad(
                assume(", durationSeconds: 43201, source: {accessKey: {secretName: key}}"),
                "spec.identity.assumeRole.durationSeconds",
                "less than or equal to 43200",
            )
            .bad(assume(", durationSeconds: 3601"), "spec.identity.assumeRole", an_hour)
            .bad(assume(&format!(", durationSeconds: 3601, source: {{{web}}}")), "spec.identity.assumeRole", an_hour),
        rule("names, ids and tags of a session")
            .good(assume(", sessionName: 'a_=,.@-', externalId: 'a:/b', sessionTags: {a: b}"))
            .bad(assume(", sessionName: 'a b'"), "spec.identity.assumeRole.sessionName", "a session name takes")
            .bad(assume(", sessionName: '%65%'"), "spec.identity.assumeRole.sessionName", "64")
            .bad(assume(", externalId: 'a b'"), "spec.identity.assumeRole.externalId", "an external id takes")
            .bad(assume(", externalId: a"), "spec.identity.assumeRole.externalId", "at least 2 chars")
            .bad(assume(", sessionTags: {'': b}"), "spec.identity.assumeRole.sessionTags", "1 to 128 characters"),
        rule("names of a ServiceAccount and a Secret")
            .bad(
                of(&web.replace("puller", "Puller")),
                "spec.identity.webIdentity.serviceAccountRef.name",
                "must be the name of a Kubernetes object",
            )
            .bad(
                of(&web.replace("namespace: ecr", "namespace: e.c")),
                "spec.identity.webIdentity.serviceAccountRef.namespace",
                "must be the name of a namespace",
            )
            .bad(
                of("accessKey: {secretName: a_b}"),
                "spec.identity.accessKey.secretName",
                "must be the name of a Kubernetes object",
            )
            .bad(of("accessKey: {secretName: '%254%'}"), "spec.identity.accessKey.secretName", "253"),
    ]
}

fn pull_and_allow() -> Vec<Rule> {
    let allow = |rule: &str| format!("allow: [{{{rule}}}]");
    let labels = |expression: &str| allow(&format!("namespaces: {{matchExpressions: [{{{expression}}}]}}"));
    let values = "operator In and NotIn need values; Exists and DoesNotExist take none";
    let expression_at = "spec.allow[0].namespaces.matchExpressions[0]";
    vec![
        rule("what pull tokens are for")
            .good(
                "pull: {scopeTokens: Never, accounts: ['210987654321'], regions: [us-east-1], whenNotAllowed: Remove}",
            )
            .good("pull: {accounts: [], regions: []}")
            .bad("pull: {scopeTokens: Maybe}", "spec.pull.scopeTokens", "Required")
            .bad("pull: {whenNotAllowed: Delete}", "spec.pull.whenNotAllowed", "Remove")
            .bad("pull: {accounts: ['1']}", "spec.pull.accounts[0]", "should match '^[0-9]{12}$'")
            .bad("pull: {regions: [Ireland]}", "spec.pull.regions[0]", "should match"),
        rule("allow names namespaces and repositories")
            .good("allow: []")
            .good(allow("namespaces: {}, manage: ['{namespace}/*'], pull: ['*', a/b.c_d-e], push: []"))
            .good(allow(
                "namespaces: {matchNames: ['team-*', '*']}, maxAdoption: TakeOver, maxDeletion: DeleteWithImages",
            ))
            .bad(allow("pull: ['*']"), "spec.allow[0].namespaces", "Required value")
            .bad(allow("namespaces: {matchNames: []}"), "spec.allow[0].namespaces.matchNames", "at least 1 items")
            .bad(allow("namespaces: {matchNames: [A]}"), "spec.allow[0].namespaces.matchNames[0]", "should match")
            .bad(allow("namespaces: {}, manage: [Team]"), "spec.allow[0].manage[0]", "should match")
            .bad(allow("namespaces: {}, pull: ['{team}/*']"), "spec.allow[0].pull[0]", "should match")
            .bad(allow("namespaces: {}, push: ['']"), "spec.allow[0].push[0]", "at least 1 chars")
            .bad(allow("namespaces: {}, maxAdoption: All"), "spec.allow[0].maxAdoption", "TakeOver")
            .bad(allow("namespaces: {}, maxDeletion: All"), "spec.allow[0].maxDeletion", "DeleteWithImages"),
        rule("labels are as Kubernetes takes them")
            .good(allow("namespaces: {matchLabels: {team: a, 'example.com/Team_1.x': ''}}"))
            .bad(
                allow("namespaces: {matchLabels: {}}"),
                "spec.allow[0].namespaces.matchLabels",
                "at least 1 properties",
            )
            .bad(
                allow("namespaces: {matchLabels: {'a b': c}}"),
                "spec.allow[0].namespaces.matchLabels",
                "a key is a name of up to 63",
            )
            .bad(
                allow("namespaces: {matchLabels: {a: 'b c'}}"),
                "spec.allow[0].namespaces.matchLabels.a",
                "should match",
            ),
        rule("In and NotIn have values, the others none")
            .good(labels("key: team, operator: In, values: [a, b]"))
            .good(labels("key: team, operator: DoesNotExist"))
            .good(labels("key: team, operator: Exists, values: []"))
            .bad(labels("key: team, operator: In"), expression_at, values)
            .bad(labels("key: team, operator: NotIn, values: []"), expression_at, values)
            .bad(labels("key: team, operator: Exists, values: [a]"), expression_at, values)
            .bad(labels("key: team, operator: Is"), &format!("{expression_at}.operator"), "DoesNotExist")
            .bad(
                labels("key: 'a b', operator: Exists"),
                &format!("{expression_at}.key"),
                "a key is a name of up to 63",
            ),
    ]
}
