//! A server that speaks the wire of Unipile v1 and plays the people.
