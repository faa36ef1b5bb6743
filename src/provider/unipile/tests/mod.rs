//! The client against a server that records what it gets, and the webhooks against recorded bodies.

mod classes;
mod finds;
mod lists;
mod manages;
mod sends;
mod server;
mod webhooks;
