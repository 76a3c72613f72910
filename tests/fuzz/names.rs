//! Host names, globs, image references, ARNs and tokens.

use std::collections::BTreeSet;

use ecr_operator::core::glob;
use ecr_operator::core::hosts::RegistryHost;
use ecr_operator::core::names::{AccountId, Region, RepositoryName};
use ecr_operator::core::stuck_pods::{Decision, StuckPod, Wish, decide};
use ecr_operator::core::trust;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::mutate::fuzz;

const SUFFIXES: [&str; 10] = [
    ".amazonaws.com",
    ".amazonaws.com.cn",
    ".amazonaws.eu",
    ".c2s.ic.gov",
    ".sc2s.sgov.gov",
    ".cloud.adc-e.uk",
    ".csp.hci.ic.gov",
    ".on.aws",
    ".on.amazonwebservices.com.cn",
    ".aws",
];

#[test]
fn hosts() {
    fuzz("host", |bytes| {
        let text = String::from_utf8_lossy(bytes);
        drop((AccountId::parse(&text), Region::parse(&text), RepositoryName::parse(&text)));
        let Some(host) = RegistryHost::parse(&text) else { return };
        assert_eq!(host.to_string(), text, "one spelling");
        assert!(text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte)));
        assert!(SUFFIXES.iter().any(|suffix| text.ends_with(suffix)), "{text} is AWS's");
        assert_eq!(text.split('.').next(), Some(host.account.as_str()), "whose it is comes first");
    });
}

#[test]
fn globs() {
    fuzz("glob", |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.lines().chain(std::iter::repeat(""));
        let (a, b, name) = (lines.next().unwrap(), lines.next().unwrap(), lines.next().unwrap());
        let both = glob::matches(a, name) && glob::matches(b, name);
        if glob::covers(a, b) && glob::matches(b, name) {
            assert!(glob::matches(a, name), "{a} covers {b}");
        }
        // Of what is long only that it comes to an end is looked at.
        if let Some(common) = glob::intersect(a, b, &mut glob::Effort::default()) {
            assert_eq!(common.iter().any(|glob| glob::matches(glob, name)), both, "{a} and {b}: {common:?} of {name}");
        }
    });
}

#[test]
fn image_references() {
    let host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
    let wish = Wish {
        hosts: BTreeSet::from([host.to_owned()]),
        secret: "s".into(),
        namespaces: BTreeSet::from(["a".to_owned()]),
    };
    fuzz("image", |bytes| {
        let image = String::from_utf8_lossy(bytes);
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "a", "name": "p", "uid": "u", "ownerReferences": [{"apiVersion": "v1", "kind": "R", "name": "r", "uid": "r", "controller": true}]},
            "spec": {"containers": [{"name": "c", "image": image}]},
            "status": {"containerStatuses": [{"name": "c", "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": {"waiting": {"reason": "ErrImagePull"}}}]},
        }))
        .unwrap();
        let evicts = decide(&StuckPod::read(&pod).unwrap(), &wish, true, None) == Decision::Evict;
        assert_eq!(evicts, image.starts_with(&format!("{host}/")), "{image}");
    });
}

#[test]
fn arns_and_tokens() {
    fuzz("trust", |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let statement: Value = serde_json::from_str(&trust::of_caller(&text, Some(&text), true)).unwrap();
        assert_eq!(statement["Condition"]["StringEquals"]["sts:ExternalId"], *text, "as it was given");
        let told = trust::of_token("arn:aws:iam::123456789012:role/r", &text);
        let told = told.into_iter().chain(trust::of_token(&text, "e30.eyJpc3MiOiJhIiwic3ViIjoiYiIsImF1ZCI6ImMifQ.x"));
        for statement in told {
            let statement: Value = serde_json::from_str(&statement).unwrap();
            assert!(statement["Condition"]["StringEquals"].is_object(), "never without a condition");
        }
    });
}
