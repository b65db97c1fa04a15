//! CRI v1: messages, client and server, generated from its facts.
