//! The settings that an `EcrRepository` declares and an `EcrRegistry` has defaults for: the same rules in both.

use std::fmt::Write as _;

use crate::api_rules_lifecycle::lifecycle;
use crate::support::api::{Rule, rule, try_all};

#[tokio::test]
async fn of_a_repository() {
    try_all("EcrRepository", all()).await;
}

#[tokio::test]
async fn of_a_registrys_defaults() {
    try_all("EcrRegistry", all().into_iter().map(|rule| rule.below("defaults")).collect()).await;
}

fn all() -> Vec<Rule> {
    [settings(), tags(), lifecycle(), policy()].into_iter().flatten().collect()
}

fn filters(filters: &[&str]) -> String {
    let filters: Vec<_> = filters.iter().map(|text| format!("{{filterType: WILDCARD, filter: '{text}'}}")).collect();
    format!(
        "imageTagMutability: IMMUTABLE_WITH_EXCLUSION, imageTagMutabilityExclusionFilters: [{}]",
        filters.join(", ")
    )
}

fn settings() -> Vec<Rule> {
    let filters_at = "spec.imageTagMutabilityExclusionFilters";
    let first_filter = "spec.imageTagMutabilityExclusionFilters[0].filter";
    let needs_filters = "goes with imageTagMutability MUTABLE_WITH_EXCLUSION or IMMUTABLE_WITH_EXCLUSION";
    vec![
        rule("mutability is one of ECR's four")
            .good("imageTagMutability: MUTABLE")
            .good("imageTagMutability: IMMUTABLE")
            .bad("imageTagMutability: Immutable", "spec.imageTagMutability", "IMMUTABLE_WITH_EXCLUSION"),
        rule("exclusion filters go with the modes that have exclusions")
            .good(filters(&["dev-*"]))
            .good(filters(&["dev-*"]).replace("IMMUTABLE", "MUTABLE"))
            .bad("imageTagMutability: IMMUTABLE_WITH_EXCLUSION", "spec", needs_filters)
            .bad(filters(&["dev-*"]).replace("_WITH_EXCLUSION", ""), "spec", needs_filters)
            .bad("imageTagMutabilityExclusionFilters: [{filterType: WILDCARD, filter: a}]", "spec", needs_filters),
        rule("one to five filters")
            .good(filters(&["a", "b", "c", "d", "e"]))
            .bad(filters(&["a", "b", "c", "d", "e", "f"]), filters_at, "must have at most 5 items")
            .bad(filters(&[]), filters_at, "should have at least 1 items"),
        rule("a filter has at most two wildcards and 128 of ECR's characters")
            .good(filters(&["*-rc*", "a.B_c-1", "%128%"]))
            .bad(filters(&["a*b*c*"]), first_filter, "should match")
            .bad(filters(&["a b"]), first_filter, "should match")
            .bad(filters(&["%129%"]), first_filter, "128")
            .bad(filters(&[""]), first_filter, "at least 1 chars"),
        rule("a filter is a wildcard").bad(
            filters(&["a"]).replace("WILDCARD", "REGEX"),
            "spec.imageTagMutabilityExclusionFilters[0].filterType",
            "WILDCARD",
        ),
        rule("scanning says yes or no").good("imageScanningConfiguration: {scanOnPush: false}").bad(
            "imageScanningConfiguration: {}",
            "spec.imageScanningConfiguration.scanOnPush",
            "Required value",
        ),
        rule("encryption is one of ECR's three, with a key for those of KMS")
            .good("encryptionConfiguration: {encryptionType: AES256}")
            .good("encryptionConfiguration: {encryptionType: KMS}")
            .good("encryptionConfiguration: {encryptionType: KMS_DSSE, kmsKey: alias/images}")
            .good("encryptionConfiguration: {encryptionType: KMS, kmsKey: '%2048%'}")
            .bad(
                "encryptionConfiguration: {encryptionType: kms}",
                "spec.encryptionConfiguration.encryptionType",
                "KMS_DSSE",
            )
            .bad("encryptionConfiguration: {}", "spec.encryptionConfiguration.encryptionType", "Required value")
            .bad(
                "encryptionConfiguration: {encryptionType: AES256, kmsKey: alias/a}",
                "spec.encryptionConfiguration",
                "kmsKey goes with encryptionType KMS or KMS_DSSE",
            )
            .bad(
                "encryptionConfiguration: {encryptionType: KMS, kmsKey: '%2049%'}",
                "spec.encryptionConfiguration.kmsKey",
                "2048",
            ),
        rule("deletionPolicy is one of three").good("deletionPolicy: DeleteWithImages").bad(
            "deletionPolicy: Orphan",
            "spec.deletionPolicy",
            "DeleteWithImages",
        ),
    ]
}

fn numbered_tags(count: usize) -> String {
    let mut tags = String::new();
    for number in 0..count {
        write!(tags, "k{number}: v, ").unwrap();
    }
    format!("tags: {{{tags}}}")
}

fn tags() -> Vec<Rule> {
    let reserved = "tags that begin with aws: or ecr-operator.dev/ are reserved";
    vec![
        rule("46 tags at most").good("tags: {}").good(numbered_tags(46)).bad(
            numbered_tags(47),
            "spec.tags",
            "must have at most 46",
        ),
        rule("some keys are reserved")
            .good("tags: {awsome: a, 'ecr-operator.devil/x': a}")
            .bad("tags: {'aws:x': a}", "spec.tags", reserved)
            .bad("tags: {'AWS:x': a}", "spec.tags", reserved)
            .bad("tags: {'ecr-operator.dev/uid': a}", "spec.tags", reserved),
        rule("keys and values are as AWS takes them")
            .good("tags: {'Kosten Stelle_1.:/=+-@ü': 'Wert 1.:/=+-@ü', '%128%': '%256%', empty: ''}")
            .bad("tags: {'%129%': a}", "spec.tags", "1 to 128 characters")
            .bad("tags: {'': a}", "spec.tags", "1 to 128 characters")
            .bad("tags: {'a{b}': a}", "spec.tags", "a tag's key takes letters, digits, spaces")
            .bad("tags: {a: '{b}'}", "spec.tags.a", "should match")
            .bad("tags: {a: '%257%'}", "spec.tags.a", "256"),
    ]
}

fn grant(grant: &str) -> String {
    format!("repositoryPolicy: {{grants: [{{{grant}}}]}}")
}

fn statement(statement: &str) -> String {
    format!("repositoryPolicy: {{statements: [{{{statement}}}]}}")
}

fn policy() -> Vec<Rule> {
    let at = "spec.repositoryPolicy";
    let grant_at = "spec.repositoryPolicy.grants[0]";
    let one_way = "set grants, statements or both, or else policyText";
    let role = |arn: &str| grant(&format!("access: Pull, roleArns: ['{arn}']"));
    vec![
        rule("grants and statements, or policyText")
            .good("repositoryPolicy: {grants: []}")
            .good("repositoryPolicy: {grants: [], statements: []}")
            .good("repositoryPolicy: {policyText: '{\"Statement\": []}', foreignStatements: Keep}")
            .bad("repositoryPolicy: {}", at, one_way)
            .bad("repositoryPolicy: {foreignStatements: Remove}", at, one_way)
            .bad("repositoryPolicy: {grants: [], policyText: '{}'}", at, one_way)
            .bad("repositoryPolicy: {statements: [], policyText: '{}'}", at, one_way),
        rule("policyText is a JSON object of ECR's size")
            .good("repositoryPolicy: {policyText: '{%10238%}'}")
            .bad("repositoryPolicy: {policyText: '{%10239%}'}", "spec.repositoryPolicy.policyText", "10240")
            .bad(
                "repositoryPolicy: {policyText: 'Allow'}",
                "spec.repositoryPolicy.policyText",
                "must be a JSON object",
            ),
        rule("a grant is given to somebody")
            .good(grant("access: Push, accounts: ['123456789012'], organizations: [o-a1b2c3d4e5]"))
            .bad(grant("access: Pull"), grant_at, "a grant needs somebody to give it to")
            .bad(grant("access: Pull, accounts: []"), "spec.repositoryPolicy.grants[0].accounts", "at least 1 items")
            .bad(
                grant("access: Admin, accounts: ['123456789012']"),
                "spec.repositoryPolicy.grants[0].access",
                "LambdaPull",
            ),
        rule("Lambda is granted to accounts and organizations")
            .good(grant("access: LambdaPull, accounts: ['123456789012']"))
            .good(grant("access: LambdaPull, organizations: [o-a1b2c3d4e5]"))
            .bad(
                grant("access: LambdaPull, roleArns: ['arn:aws:iam::123456789012:role/a']"),
                grant_at,
                "access LambdaPull is given to accounts or organizations",
            )
            .bad(
                grant("access: LambdaPull, accounts: ['123456789012'], orgPaths: [o-a1b2c3d4e5/r-ab12/]"),
                grant_at,
                "access LambdaPull is given to accounts or organizations",
            ),
        rule("accounts have 12 digits").bad(
            grant("access: Pull, accounts: ['12345']"),
            "spec.repositoryPolicy.grants[0].accounts[0]",
            "should match '^[0-9]{12}$'",
        ),
        rule("roles of all partitions, but not their sessions")
            .good(role("arn:aws:iam::123456789012:role/path/name+=,.@-_"))
            .good(role("arn:aws-cn:iam::123456789012:role/a"))
            .good(role("arn:aws-us-gov:iam::123456789012:role/a"))
            .good(role("arn:aws-iso-b:iam::123456789012:role/a"))
            .bad(
                role("arn:aws:sts::123456789012:assumed-role/a/session"),
                "spec.repositoryPolicy.grants[0].roleArns",
                "is a session, which ends; name its role",
            )
            .bad(
                role("arn:aws:iam::123456789012:user/a"),
                "spec.repositoryPolicy.grants[0].roleArns[0]",
                "should match",
            )
            .bad(
                role("arn:aws:iam::123456789012:role/*"),
                "spec.repositoryPolicy.grants[0].roleArns[0]",
                "should match",
            )
            .bad(role("*"), "spec.repositoryPolicy.grants[0].roleArns[0]", "should match"),
        rule("organizations and their paths")
            .good(grant("access: Pull, orgPaths: [o-a1b2c3d4e5/r-ab12/ou-ab12-11111111/, 'o-a1b2c3d4e5/r-ab12/*']"))
            .bad(
                grant("access: Pull, organizations: [123]"),
                "spec.repositoryPolicy.grants[0].organizations[0]",
                "string",
            )
            .bad(
                grant("access: Pull, organizations: [my-org]"),
                "spec.repositoryPolicy.grants[0].organizations[0]",
                "should match",
            )
            .bad(
                grant("access: Pull, orgPaths: [o-a1b2c3d4e5/ou-ab12-11111111]"),
                "spec.repositoryPolicy.grants[0].orgPaths[0]",
                "should match",
            ),
        rule("statements in IAM's spelling")
            .good(statement(
                "Sid: a b, Effect: Deny, Principal: '*', Action: 'ecr:*', Condition: {Bool: {'aws:x': [true]}}",
            ))
            .good(statement("Effect: Allow, Principal: {AWS: [a, b]}, Action: ['ecr:A', 'ecr:B']"))
            .bad(
                statement("Principal: '*', Action: 'ecr:*'"),
                "spec.repositoryPolicy.statements[0].Effect",
                "Required value",
            )
            .bad(statement("Effect: allow, Principal: '*'"), "spec.repositoryPolicy.statements[0].Effect", "Allow")
            .bad(
                statement("Sid: EcrOperatorX, Effect: Allow, Principal: '*', Action: 'ecr:*'"),
                "spec.repositoryPolicy.statements[0].Sid",
                "Sids that begin with EcrOperator are reserved",
            ),
    ]
}
