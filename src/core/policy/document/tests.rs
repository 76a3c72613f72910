//! What is the same policy, what is not, and what is told of the difference.

use proptest::prelude::*;

use super::*;

fn policy(statement: &str) -> PolicyDocument {
    PolicyDocument::parse(&format!(r#"{{"Version":"2012-10-17","Statement":{statement}}}"#)).unwrap()
}

#[test]
fn spellings_of_one_meaning_are_equal() {
    for (one, other) in [
        (
            r#"[{"Effect":"Allow","Principal":"*","Action":"ecr:X"}]"#,
            r#"{"Action":["ECR:x"],"Principal":{"AWS":["*"]},"Effect":"Allow"}"#,
        ),
        (
            r#"{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam::123456789012:root","arn:aws:iam::123456789012:role/a"]},"Action":["ecr:A","ecr:B"]}"#,
            r#"{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam::123456789012:role/a","123456789012"]},"Action":["ecr:B","ecr:A"]}"#,
        ),
        (
            r#"{"Effect":"Deny","Principal":"*","Action":"ecr:*","Condition":{"Bool":{"aws:SecureTransport":false},"NumericLessThan":{"a:B":5}}}"#,
            r#"{"Effect":"Deny","Principal":"*","Action":"ecr:*","Condition":{"numericlessthan":{"A:b":["5"]},"Bool":{"aws:securetransport":"false"}}}"#,
        ),
        (
            r#"{"Sid":"EcrOperatorPull1","Effect":"Allow","Principal":"*","Action":"a:b"}"#,
            r#"{"Sid":"EcrOperatorPull7","Effect":"Allow","Principal":"*","Action":"a:b"}"#,
        ),
    ] {
        assert_eq!(policy(one), policy(other), "{one}");
    }
}

#[test]
fn different_meanings_differ() {
    let base = r#"{"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"ecr:A"}"#;
    for other in [
        r#"{"Effect":"Deny","Principal":{"AWS":"123456789012"},"Action":"ecr:A"}"#,
        r#"{"Effect":"Allow","Principal":{"Service":"123456789012"},"Action":"ecr:A"}"#,
        r#"{"Effect":"Allow","NotPrincipal":{"AWS":"123456789012"},"Action":"ecr:A"}"#,
        r#"{"Effect":"Allow","Principal":{"AWS":"123456789012"},"NotAction":"ecr:A"}"#,
        r#"{"Sid":"theirs","Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"ecr:A"}"#,
        r#"{"Sid":"EcrOperator1","Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"ecr:A"}"#,
        r#"{"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"ecr:A","Condition":{"Bool":{"a:b":true}}}"#,
    ] {
        assert_ne!(policy(base), policy(other), "{other}");
    }
}

#[test]
fn the_version_matters_only_where_there_are_variables() {
    let of = |version: &str, action: &str| {
        PolicyDocument::parse(&format!(
            r#"{{"Version":"{version}","Statement":{{"Effect":"Allow","Principal":"*","Action":"{action}"}}}}"#
        ))
        .unwrap()
    };
    assert_eq!(of("2012-10-17", "a:b"), of("2008-10-17", "a:b"));
    assert_ne!(of("2012-10-17", "${x}"), of("2008-10-17", "${x}"));
}

#[test]
fn nonsense_is_refused_by_name() {
    assert!(matches!(PolicyDocument::parse("{"), Err(PolicyError::Json(_))));
    for bad in ["[]", "{}", r#"{"Statement":"x"}"#, r#"{"Statement":[{}]}"#] {
        assert_eq!(PolicyDocument::parse(bad), Err(PolicyError::Shape), "{bad}");
    }
}

#[test]
fn the_length_counts_where_it_is_written_and_never_where_it_is_read() {
    let text = |padding: usize| {
        json!({"Version": VERSION, "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "x".repeat(padding)}]})
            .to_string()
    };
    let fits = MOST_CHARACTERS - text(0).len();
    let read = |text: &str| PolicyDocument::parse(text).unwrap().statements().to_vec();
    assert_eq!(PolicyDocument::of(read(&text(fits))).unwrap().text().len(), MOST_CHARACTERS);
    let longer = read(&text(fits + 1));
    assert_eq!(PolicyDocument::of(longer), Err(PolicyError::TooLong(MOST_CHARACTERS + 1)));
}

#[test]
fn what_a_statement_is_not_about_is_not_told_as_what_it_is_about() {
    for (statement, told) in [
        (
            r#"{"Effect":"Deny","NotPrincipal":{"AWS":"123456789012"},"Action":"ecr:A"}"#,
            "Deny ecr:a to all but 123456789012",
        ),
        (r#"{"Effect":"Allow","Principal":"*","NotAction":["ecr:B","ecr:A"]}"#, "Allow all but ecr:a, ecr:b to *"),
    ] {
        assert_eq!(policy(statement).statements()[0].describe(), told);
    }
}

#[test]
fn a_statement_that_only_gets_another_name_is_neither_added_nor_removed() {
    let named = |sid: &str| policy(&format!(r#"{{"Sid":"{sid}","Effect":"Allow","Principal":"*","Action":"a:b"}}"#));
    let changes = |old: &str, new: &str| PolicyDocument::changes(Some(&named(old)), Some(&named(new)));
    assert_eq!(changes("theirs", "EcrOperatorA"), ["rename statement from theirs to EcrOperatorA: Allow a:b to *"]);
    assert_eq!(changes("", "EcrOperatorA"), ["rename statement from no Sid to EcrOperatorA: Allow a:b to *"]);
    assert_eq!(changes("EcrOperatorA", "EcrOperatorB"), [""; 0]);
}

#[test]
fn changes_are_told_statement_by_statement() {
    let old = policy(r#"{"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"ecr:A"}"#);
    let new = policy(r#"{"Effect":"Allow","Principal":{"AWS":"210987654321"},"Action":"ecr:A"}"#);
    assert_eq!(
        PolicyDocument::changes(Some(&old), Some(&new)),
        ["add statement: Allow ecr:a to 210987654321", "remove statement: Allow ecr:a to 123456789012"]
    );
}

fn any_statement() -> impl Strategy<Value = Value> {
    (prop::sample::select(vec!["Allow", "Deny"]), prop::collection::vec("[0-9]{12}", 1..4), prop::collection::vec("ecr:[A-C]", 1..4))
        .prop_map(|(effect, principals, actions)| json!({"Effect": effect, "Principal": {"AWS": principals}, "Action": actions}))
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(statements in prop::collection::vec(any_statement(), 1..5)) {
        let document = PolicyDocument::of(statements.into_iter().map(|value| Statement::new(value).unwrap()).collect()).unwrap();
        prop_assert_eq!(PolicyDocument::parse(&document.text()).unwrap(), document);
    }

    #[test]
    fn order_means_nothing(mut statements in prop::collection::vec(any_statement(), 1..5)) {
        let of = |statements: &[Value]| PolicyDocument::of(statements.iter().map(|value| Statement::new(value.clone()).unwrap()).collect()).unwrap();
        let forth = of(&statements);
        statements.reverse();
        for statement in &mut statements {
            for pointer in ["/Principal/AWS", "/Action"] {
                statement.pointer_mut(pointer).unwrap().as_array_mut().unwrap().reverse();
            }
        }
        prop_assert_eq!(forth, of(&statements));
    }
}
