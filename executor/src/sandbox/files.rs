//! Which files functions reach, and which ports, where the kernel has Landlock.

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope, path_beneath_rules,
};

use super::{Level, Sandbox, SandboxError};

/// What the C library, and the executor itself, read in every process. What is not there is left
/// out.
const ALWAYS_READABLE: [&str; 9] = [
    // How many threads there are.
    "/proc/self",
    "/dev/null",
    "/dev/zero",
    "/dev/random",
    "/dev/urandom",
    // Where libraries are, and what time it is.
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    // How many CPUs there are.
    "/sys/devices/system/cpu",
];
/// What finding a machine by its name, and trusting it, reads.
const READABLE_WITH_PORTS: [&str; 9] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/ssl",
    "/etc/pki",
    "/usr/share/ca-certificates",
];
/// What every process may write to.
const ALWAYS_WRITABLE: [&str; 1] = ["/dev/null"];
/// The rights that are known to this file: the kernel may have fewer.
const KNOWN: ABI = ABI::V6;

/// Takes away all files and ports but those of the sandbox.
pub fn restrict(sandbox: &Sandbox) -> Result<(), SandboxError> {
    // Ports that could not be kept apart would be all ports, the node's among them.
    let all = sandbox.level == Level::Strict || !sandbox.connect.is_empty();
    let needed = if all {
        CompatLevel::HardRequirement
    } else {
        CompatLevel::BestEffort
    };
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    // Nothing is executed: there are no new programs.
    let write = AccessFs::from_all(KNOWN) & !BitFlags::from(AccessFs::Execute);
    let for_names = READABLE_WITH_PORTS
        .iter()
        .filter(|_| !sandbox.connect.is_empty());
    let ports = sandbox.connect.iter();
    let ports = ports.map(|port| NetPort::new(*port, AccessNet::ConnectTcp));
    let status = Ruleset::default()
        .set_compatibility(needed)
        .handle_access(AccessFs::from_all(super::offers::STRICT_LANDLOCK))?
        .handle_access(AccessNet::from_all(super::offers::STRICT_LANDLOCK))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?
        .add_rules(path_beneath_rules(ALWAYS_READABLE, read))?
        .add_rules(path_beneath_rules(ALWAYS_WRITABLE, write))?
        // The directory of the manifest.
        .add_rules(path_beneath_rules(["."], read))?
        .add_rules(path_beneath_rules(&sandbox.readable, read))?
        .add_rules(path_beneath_rules(&sandbox.writable, write))?
        .add_rules(path_beneath_rules(for_names, read))?
        .add_rules(ports.map(Ok::<_, landlock::RulesetError>))?
        .restrict_self()?;
    if all && status.ruleset == RulesetStatus::NotEnforced {
        return Err(SandboxError::NotRestricted);
    }
    Ok(())
}
