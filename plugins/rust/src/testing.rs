//! Native tests of policies.
