//! The control plane: HTTP listeners and the event loop around the engines.
