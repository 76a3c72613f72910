//! Tokens through the real SDK.

use ecr_operator::core::scope::Scope;
use ecr_operator::core::token::{Service, Token};

use crate::support::{account, local, session};

#[tokio::test]
async fn a_token_is_what_registries_take_and_is_shown_nowhere() {
    let local = local().await;
    let minted = session(&local).await.mint(&account(), Service::Private, &Scope::Identity).await.unwrap();
    assert_eq!(minted.session_ends_at, None, "an access key doesn't end");
    let token = Token::parse(minted.auth, minted.life, "").unwrap();
    assert!(token.life.expires_at > token.refresh_at && token.refresh_at > token.life.issued_at);
    let shown = format!("{token:?}");
    assert!(!shown.contains(token.auth.expose()) && !shown.contains(token.password.expose()));
}

#[tokio::test]
async fn ecr_public_is_asked_in_its_own_region_only() {
    let local = local().await;
    let error = session(&local).await.mint(&account(), Service::Public, &Scope::Identity).await.unwrap_err();
    assert_eq!(error.call, "ecr-public:GetAuthorizationToken");
}
