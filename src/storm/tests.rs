//! Tests of more than one module.
