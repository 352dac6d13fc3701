//! Requests to token servers, and what their refusals mean in words.

use super::failure::Failure;
use super::login::Reading;
use super::realm::Realm;
use super::scopes::Scopes;
use super::token;
use crate::registry::ErrorKind;
use crate::registry::remote::echo::Sent;
use crate::registry::remote::transport::{TokenReply, TokenRequest};
use crate::telemetry::Secret;

/// How we present ourselves to token servers that speak OAuth2 (distribution's OAuth2 specification: required).
const CLIENT_ID: &str = "transship";

/// distribution's token specification: GET with `service`, a `scope` for each, `account`, and Basic.
pub(super) fn get_request(realm: &Realm, wanted: &Scopes, reading: &Reading) -> TokenRequest {
    let mut url = realm.url.clone();
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = &realm.service {
            query.append_pair("service", service);
        }
        for scope in wanted.iter() {
            query.append_pair("scope", scope);
        }
        if let Some(credentials) = reading.password() {
            query.append_pair("account", &credentials.username);
        }
    }
    if url.query() == Some("") {
        url.set_query(None);
    }
    TokenRequest {
        url,
        form: None,
        basic: reading.password().cloned(),
    }
}

/// distribution's OAuth2 specification: POST of a form with all scopes in one field, or, where the kind wants that, in a
/// field for each.
pub(super) fn refresh_request(realm: &Realm, wanted: &Scopes, refresh: &Secret, a_field_each: bool) -> TokenRequest {
    let mut form = vec![("grant_type".to_owned(), "refresh_token".to_owned())];
    form.extend(
        realm
            .service
            .iter()
            .map(|service| ("service".to_owned(), service.clone())),
    );
    form.push(("client_id".to_owned(), CLIENT_ID.to_owned()));
    let scopes: Vec<&str> = wanted.iter().collect();
    if a_field_each {
        form.extend(scopes.iter().map(|scope| ("scope".to_owned(), (*scope).to_owned())));
    } else if !scopes.is_empty() {
        form.push(("scope".to_owned(), scopes.join(" ")));
    }
    form.push(("refresh_token".to_owned(), refresh.expose().to_owned()));
    TokenRequest {
        url: realm.url.clone(),
        form: Some(form),
        basic: None,
    }
}

pub(super) fn server(realm: &Realm) -> String {
    let host = realm.url.host_str().unwrap_or_default();
    match realm.url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// What a token server's answer other than 200 means. `refresh` is the refresh token that was sent, where one was.
pub(super) fn refusal(realm: &Realm, reading: &Reading, refresh: Option<&Secret>, reply: &TokenReply) -> Failure {
    let server = format!("the token server {}", server(realm));
    let mut said = token::refusal(&reply.body);
    // A server that repeats what it was sent must not bring it into the logs.
    let mut sent = reading
        .credentials
        .as_ref()
        .map(Sent::by_credentials)
        .unwrap_or_default();
    if let Some(refresh) = refresh {
        sent.add(refresh.expose());
    }
    if sent.is_in(&reply.body) {
        said.clear();
    }
    let failure = match reply.status {
        // 400 is how OAuth2 says that a refresh token is no longer good (RFC 6749, 5.2: `invalid_grant`).
        401 | 400 if reply.status == 401 || reading.identity_token().is_some() => match &reading.credentials {
            Some(_) => Failure {
                login_refused: true,
                ..refused_login(reading, &server)
            },
            None => no_login(),
        },
        403 => Failure::new(
            ErrorKind::Denied,
            format!("{server} refuses this request; grant the user the rights to this repository"),
        ),
        429 => Failure::new(ErrorKind::Throttled, format!("{server} is asked too often")),
        408 | 500.. => Failure::new(
            ErrorKind::Server,
            format!("{server} failed with status {}", reply.status),
        ),
        _ => Failure::new(
            ErrorKind::Invalid,
            format!("{server} answers with status {} instead of a token", reply.status),
        ),
    };
    let failure = if said.is_empty() {
        failure
    } else {
        Failure {
            message: format!("{}{said}", failure.message),
            ..failure
        }
    };
    failure.with_status(reply.status)
}

pub(super) fn no_login() -> Failure {
    Failure::new(
        ErrorKind::Unauthorized,
        "the registry wants a login and there is no credential for it; set `username` and `password` of this registry, \
         or run docker login as the user that transship runs as",
    )
    .with_status(401)
}

pub(super) fn refused_login(reading: &Reading, who: &str) -> Failure {
    let message = match reading.password() {
        Some(credentials) => format!(
            "{who} refuses the user {:?} with this password; check `username` and `password` of this registry, or run docker login again",
            credentials.username
        ),
        None => format!("{who} refuses the identity token, which may have run out; run docker login again"),
    };
    Failure::new(ErrorKind::Unauthorized, message).with_status(401)
}
