//! Grants as statements.
//!
//! Sources: "Repository policy examples" and "Lambda cross-account access" in the ECR and Lambda guides;
//! `aws:PrincipalOrgID`, `aws:PrincipalOrgPaths`, `aws:SourceOrgID` in the IAM user guide.

use serde_json::{Value, json};

use crate::api::{Grant, GrantAccess, SID_PREFIX};
use crate::core::names::Region;

/// What pulling takes.
const PULL: &[&str] = &["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"];
/// What pushing takes besides.
const PUSH: &[&str] = &["ecr:CompleteLayerUpload", "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart"];
/// What Lambda takes.
const LAMBDA: &[&str] = &["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"];

/// The statements of the `number`th grant, in a Region of `partition`.
pub(super) fn statements(grant: &Grant, number: usize, partition: &str, region: &Region) -> Vec<Value> {
    let actions = match grant.access {
        GrantAccess::Pull => PULL.to_vec(),
        GrantAccess::Push => [PULL, PUSH].concat(),
        GrantAccess::LambdaPull => LAMBDA.to_vec(),
    };
    let accounts = listed(grant.accounts.as_ref());
    let organizations = listed(grant.organizations.as_ref());
    // Without `*` at the end a path is the unit itself and no unit below it.
    let paths = listed(grant.org_paths.as_ref());
    let roots = accounts.iter().map(|account| format!("arn:{partition}:iam::{account}:root"));
    let principals: Vec<_> = roots.chain(listed(grant.role_arns.as_ref()).iter().cloned()).collect();

    let statement = |what: &str, principal: Value, condition: Option<Value>| {
        let mut statement = json!({
            "Sid": format!("{SID_PREFIX}{}{number}{what}", grant.access),
            "Effect": "Allow",
            "Principal": principal,
            "Action": actions,
        });
        if let (Some(condition), Some(object)) = (condition, statement.as_object_mut()) {
            object.insert("Condition".to_owned(), condition);
        }
        statement
    };
    let mut all = Vec::new();
    if !principals.is_empty() {
        all.push(statement("", json!({"AWS": principals}), None));
    }
    if !organizations.is_empty() {
        all.push(statement("Org", json!("*"), Some(json!({"StringEquals": {"aws:PrincipalOrgID": organizations}}))));
    }
    if !paths.is_empty() {
        all.push(statement(
            "OrgPath",
            json!("*"),
            Some(json!({"ForAnyValue:StringLike": {"aws:PrincipalOrgPaths": paths}})),
        ));
    }
    if grant.access == GrantAccess::LambdaPull {
        let service = json!({"Service": "lambda.amazonaws.com"});
        let functions: Vec<_> =
            accounts.iter().map(|account| format!("arn:{partition}:lambda:{region}:{account}:function:*")).collect();
        if !functions.is_empty() {
            all.push(statement("Service", service.clone(), Some(json!({"StringLike": {"aws:sourceArn": functions}}))));
        }
        if !organizations.is_empty() {
            all.push(statement(
                "ServiceOrg",
                service,
                Some(json!({"StringEquals": {"aws:SourceOrgID": organizations}})),
            ));
        }
    }
    all
}

fn listed(list: Option<&Vec<String>>) -> &[String] {
    list.map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(access: GrantAccess) -> Grant {
        Grant { access, accounts: None, role_arns: None, organizations: None, org_paths: None }
    }

    fn told(grant: &Grant) -> Vec<Value> {
        statements(grant, 1, "aws", &Region::parse("eu-west-1").unwrap())
    }

    #[test]
    fn accounts_and_roles_share_a_statement() {
        let made = told(&Grant {
            accounts: Some(vec!["210987654321".into()]),
            role_arns: Some(vec!["arn:aws:iam::123456789012:role/ci".into()]),
            ..grant(GrantAccess::Push)
        });
        assert_eq!(made.len(), 1);
        assert_eq!(made[0]["Sid"], "EcrOperatorPush1");
        assert_eq!(
            made[0]["Principal"]["AWS"],
            json!(["arn:aws:iam::210987654321:root", "arn:aws:iam::123456789012:role/ci"])
        );
        assert_eq!(made[0]["Action"].as_array().unwrap().len(), 7);
    }

    #[test]
    fn organizations_are_conditions_never_the_whole_world_and_paths_are_as_written() {
        let paths = ["o-abcdefghij/r-ab12/ou-ab12-11111111/", "o-abcdefghij/r-ab12/ou-ab12-22222222/*"];
        let made = told(&Grant {
            organizations: Some(vec!["o-abcdefghij".into()]),
            org_paths: Some(paths.map(String::from).into()),
            ..grant(GrantAccess::Pull)
        });
        assert_eq!(made.len(), 2);
        assert!(made.iter().all(|statement| statement["Principal"] == "*" && statement.get("Condition").is_some()));
        assert_eq!(made[1]["Condition"]["ForAnyValue:StringLike"]["aws:PrincipalOrgPaths"], json!(paths));
    }

    #[test]
    fn lambda_takes_the_account_and_the_service() {
        let made = told(&Grant { accounts: Some(vec!["210987654321".into()]), ..grant(GrantAccess::LambdaPull) });
        assert_eq!(made.len(), 2);
        assert_eq!(made[1]["Principal"], json!({"Service": "lambda.amazonaws.com"}));
        assert_eq!(
            made[1]["Condition"]["StringLike"]["aws:sourceArn"],
            json!(["arn:aws:lambda:eu-west-1:210987654321:function:*"])
        );
        let organization =
            told(&Grant { organizations: Some(vec!["o-abcdefghij".into()]), ..grant(GrantAccess::LambdaPull) });
        assert_eq!(organization[1]["Condition"], json!({"StringEquals": {"aws:SourceOrgID": ["o-abcdefghij"]}}));
    }
}
