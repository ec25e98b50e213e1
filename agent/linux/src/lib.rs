//! Kernel work: cgroups v1, v2 and hybrid, /proc parsers, launcher and supervisor. The one crate with unsafe.
