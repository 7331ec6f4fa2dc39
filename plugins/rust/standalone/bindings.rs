//! What the WIT file generates, written out, so that a project of its own need not compile the generator. Everything
//! that a policy needs is re-exported by the crate's root.
#![allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]

include!("contract.rs.in");
