//! What this machine is, as far as it matters to a reader of measurements.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The machine of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu_model: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// The hypervisor or product where this is a virtual machine.
    pub virtual_machine: Option<String>,
    /// The kernel's release.
    pub kernel: String,
    /// Transparent huge pages, for private and for shared memory.
    pub huge_pages: String,
    /// The kernel's clock source.
    pub clock_source: String,
    /// Whether functions read the processor's time stamp counter; else they ask the kernel.
    pub time_stamp_counter: bool,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// CPU time of other virtual machines or processes cannot be excluded: load average of the last
    /// minute when the run began.
    pub load_at_start: String,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let clock_source = read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
        Self {
            cpu_model: field(&cpuinfo, "model name").unwrap_or_else(|| "unknown".into()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            virtual_machine: virtual_machine(&cpuinfo),
            kernel: read("/proc/sys/kernel/osrelease"),
            huge_pages: huge_pages(),
            time_stamp_counter: counter_is_trusted(&cpuinfo, &clock_source),
            clock_source,
            memory_bytes: memory_bytes(&read("/proc/meminfo")),
            load_at_start: read("/proc/loadavg")
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

/// A file's text without its last line end; empty where it cannot be read, as in some containers.
fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path)
        .map(|text| text.trim_end().to_owned())
        .unwrap_or_default()
}

/// The first value of a `name : value` line.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

fn has_flag(cpuinfo: &str, flag: &str) -> bool {
    field(cpuinfo, "flags").is_some_and(|flags| flags.split(' ').any(|f| f == flag))
}

/// The counter is used only where it runs at one rate in all states and the kernel itself trusts
/// it: another clock source means that it found the counters of two CPUs apart.
fn counter_is_trusted(cpuinfo: &str, clock_source: &str) -> bool {
    cfg!(target_arch = "x86_64")
        && clock_source == "tsc"
        && has_flag(cpuinfo, "constant_tsc")
        && has_flag(cpuinfo, "nonstop_tsc")
}

fn virtual_machine(cpuinfo: &str) -> Option<String> {
    if !has_flag(cpuinfo, "hypervisor") {
        return None;
    }
    let vendor = read("/sys/class/dmi/id/sys_vendor");
    let product = read("/sys/class/dmi/id/product_name");
    let name = format!("{vendor} {product}").trim().to_owned();
    Some(if name.is_empty() {
        "yes, of unknown make".into()
    } else {
        name
    })
}

/// The chosen one of `always [madvise] never`.
fn chosen(setting: &str) -> &str {
    setting
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or("unknown", |(chosen, _)| chosen)
}

fn huge_pages() -> String {
    let directory = Path::new("/sys/kernel/mm/transparent_hugepage");
    let private = read(directory.join("enabled"));
    let shared = read(directory.join("shmem_enabled"));
    format!("private {}, shared {}", chosen(&private), chosen(&shared))
}

fn memory_bytes(meminfo: &str) -> u64 {
    field(meminfo, "MemTotal")
        .and_then(|value| value.trim_end_matches(" kB").parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPUINFO: &str = "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\n\
                           flags\t\t: fpu tsc constant_tsc nonstop_tsc hypervisor\n\
                           processor\t: 1\nmodel name\t: Another\n";

    #[test]
    fn fields_are_found_by_their_whole_name() {
        assert_eq!(field(CPUINFO, "model name").unwrap(), "Some CPU @ 3 GHz");
        assert_eq!(field(CPUINFO, "model"), None);
        assert!(has_flag(CPUINFO, "tsc"));
        assert!(!has_flag(CPUINFO, "ts"));
    }

    #[test]
    fn the_counter_is_trusted_only_with_the_kernel() {
        assert_eq!(
            counter_is_trusted(CPUINFO, "tsc"),
            cfg!(target_arch = "x86_64")
        );
        assert!(!counter_is_trusted(CPUINFO, "kvm-clock"));
        assert!(!counter_is_trusted("flags : tsc constant_tsc", "tsc"));
    }

    #[test]
    fn the_chosen_setting_is_in_brackets() {
        assert_eq!(chosen("always [madvise] never"), "madvise");
        assert_eq!(chosen(""), "unknown");
    }

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(
            memory_bytes("MemTotal:       24684084 kB\nMemFree: 1 kB"),
            24_684_084 * 1024
        );
        assert_eq!(memory_bytes("nothing"), 0);
    }

    #[test]
    fn this_machine_has_a_cpu_and_a_kernel() {
        let machine = Machine::here();
        assert!(machine.cpus >= 1);
        assert!(!machine.kernel.is_empty());
    }
}
