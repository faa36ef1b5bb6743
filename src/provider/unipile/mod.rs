//! The Unipile v1 adapter.
