//! Messages between agent and control plane, and the agent's journal frames, as validated rkyv bytes.
