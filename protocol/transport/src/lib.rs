//! The sockets that programs share: QUIC with mutual TLS, and an HTTP client. Moves bytes, knows no message.
