//! What sets one vendor's registries apart, against strict fakes of them.

mod alibaba;
mod azure;
mod frame;
mod harbor;
mod hub;
mod matrix;
mod quay;
mod zot;
