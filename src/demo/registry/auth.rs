//! Who may ask, and who may change something.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, header};

use super::failure::Failure;
use super::{Asked, Options};

/// Refuses requests without the right credentials, and changes where pushing is denied.
pub(super) fn check(options: &Options, asked: &Asked) -> Result<(), Failure> {
    if let Some(credentials) = &options.basic {
        let pair = format!("{}:{}", credentials.username, credentials.password);
        let expected = format!("Basic {}", STANDARD.encode(pair));
        if asked.header(header::AUTHORIZATION) != Some(&expected) {
            return Err(Failure::unauthorized());
        }
    }
    if options.deny_push && ![Method::GET, Method::HEAD].contains(&asked.method) {
        return Err(Failure::denied("requested access to the resource is denied"));
    }
    Ok(())
}
