//! Cpus to the kernel's shares (v1) and weight (v2).

/// Shares of one cpu, the kernel's default weight for a v1 group (cgroup-v1/cpu shares).
const SHARES_PER_CPU: u64 = 1024;
/// The kernel raises anything below to this.
const SHARES_MIN: u64 = 2;
/// The kernel lowers anything above to this (MAX_SHARES of kernel/sched/core.c).
const SHARES_MAX: u64 = 262_144;

/// v1 `cpu.shares` for thousandths of a cpu: 1024 per cpu, rounded down, at least 2. As Mesos has it.
///
/// ```
/// assert_eq!(muster_linux::cgroup::shares_of_cpus(1500), 1536);
/// assert_eq!(muster_linux::cgroup::shares_of_cpus(1), 2);
/// ```
pub fn shares_of_cpus(cpu_milli: u64) -> u64 {
    (cpu_milli.saturating_mul(SHARES_PER_CPU) / 1000).clamp(SHARES_MIN, SHARES_MAX)
}

/// v2 `cpu.weight` for v1 shares, by the kernel's own conversion: 1024 shares are weight 100, rounded to the nearest, from 1 to
/// 10,000. Source: `sched_weight_to_cgroup` in kernel/sched/sched.h.
///
/// ```
/// assert_eq!(muster_linux::cgroup::weight_of_shares(1024), 100);
/// assert_eq!(muster_linux::cgroup::weight_of_shares(2), 1);
/// ```
pub fn weight_of_shares(shares: u64) -> u64 {
    let hundredfold = shares.clamp(SHARES_MIN, SHARES_MAX) * 100;
    ((hundredfold + SHARES_PER_CPU / 2) / SHARES_PER_CPU).clamp(1, 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_keep_proportion_and_bounds() {
        for (cpu_milli, shares, weight) in [
            (0, 2, 1),
            (1, 2, 1),
            (2, 2, 1),
            (10, 10, 1),
            (100, 102, 10),
            (1000, 1024, 100),
            (2500, 2560, 250),
            (256_000, 262_144, 10_000),
            (u64::MAX, 262_144, 10_000),
        ] {
            assert_eq!(shares_of_cpus(cpu_milli), shares, "{cpu_milli} thousandths");
            assert_eq!(weight_of_shares(shares), weight, "{shares} shares");
        }
        assert_eq!(weight_of_shares(u64::MAX), 10_000);
    }
}
