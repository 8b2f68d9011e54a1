//! The machine a run was made on, as far as the kernel tells.

use std::path::Path;

use crate::cli::VERSION;
use crate::load::outcome::Machine;
use crate::rt::early;

/// Of this machine; the server's words are added by whoever asks it.
pub(super) fn here(cpus: usize) -> Machine {
    let governor = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
    Machine {
        cpu: cpu_model(&text("/proc/cpuinfo")),
        cpus,
        kernel: text("/proc/sys/kernel/osrelease").trim().to_string(),
        governor: text(governor).trim().to_string(),
        version: VERSION.to_string(),
        ..Machine::default()
    }
}

/// Empty when there is no such file: a report is not worth failing for it.
fn text(path: &str) -> String {
    let bytes = early::read_small(Path::new(path)).ok().flatten();
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

fn cpu_model(cpuinfo: &str) -> String {
    let lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let mut models = lines.filter(|(name, _)| name.trim() == "model name");
    models
        .next()
        .map_or(String::new(), |(_, model)| model.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_found() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R)\nflags\t\t: a: b\n";
        assert_eq!(cpu_model(cpuinfo), "Intel(R) Xeon(R)");
        assert_eq!(cpu_model("processor: ARM"), "");
    }
}
