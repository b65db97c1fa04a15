//! Streams to containers: remote command and port forward over WebSocket and SPDY.
