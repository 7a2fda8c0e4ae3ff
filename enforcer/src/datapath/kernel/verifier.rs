//! What the verifier says about a program that it accepts. aya keeps its log of rejected programs only, so the
//! program is given to the kernel once more, with a log.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use aya::Ebpf;
use aya_obj::{
    Object, ProgramSection,
    generated::{bpf_prog_type, bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR},
};

use super::{
    sys::{self, ProgramAttr},
    table::data_of,
};
use crate::datapath::program::{Place, Program};

/// Cost of one program.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Verified {
    /// Instructions that the verifier walked through, on all paths.
    pub instructions: Option<u32>,
    /// Stack of the program and of each function it calls, in bytes, joined by `+`.
    pub stack: String,
    /// What the verifier itself needed.
    pub verification: Option<Duration>,
    /// The whole system call: verifier and JIT.
    pub load: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    #[error("the BPF object cannot be read")]
    Parse(#[from] aya_obj::ParseError),
    #[error("the BPF object's types cannot be read")]
    Btf(#[from] aya_obj::btf::BtfError),
    #[error("the BPF object cannot be linked")]
    Relocation(#[from] aya_obj::relocation::EbpfRelocationError),
    #[error("the kernel refuses the BPF object's types")]
    LoadBtf(#[source] io::Error),
    #[error("the verifier refuses program {program}:\n{log}")]
    Refused {
        program: &'static str,
        log: String,
        #[source]
        source: io::Error,
    },
}

/// Gives the programs to the verifier, with the maps of an object that is loaded already.
pub fn verify(ebpf: &Ebpf, programs: &[Program]) -> Result<BTreeMap<Program, Verified>, VerifierError> {
    let mut object = Object::parse(crate::BPF_OBJECT)?;
    let features = aya::features();
    let btf = match features.btf() {
        Some(features) => object.fixup_and_sanitize_btf(features)?.map(aya_obj::btf::Btf::to_bytes),
        None => None,
    };
    let btf = btf.as_deref().map(sys::load_btf).transpose().map_err(VerifierError::LoadBtf)?;
    let maps = object.maps.clone();
    let opened = maps.iter().filter_map(|(name, map)| {
        let data = data_of(ebpf.map(name)?)?;
        Some((name.as_str(), data.fd().as_fd().as_raw_fd(), map))
    });
    let text = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_maps(opened, &text)?;
    object.relocate_calls(&text)?;
    object.sanitize_functions(features);
    let present = programs.iter().filter(|program| object.programs.contains_key(program.name()));
    present.map(|&program| Ok((program, load(&object, program, btf.as_ref())?))).collect()
}

fn load(object: &Object, program: Program, btf: Option<&OwnedFd>) -> Result<Verified, VerifierError> {
    let parsed = &object.programs[program.name()];
    let function = &object.functions[&parsed.function_key()];
    let kind = match (program.place(), &parsed.section) {
        (Place::Cgroup, ProgramSection::CgroupSockAddr { .. }) => BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
        _ => bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS,
    };
    let functions = function.func_info.func_info_bytes();
    let lines = function.line_info.line_info_bytes();
    let mut attr = ProgramAttr {
        kind: kind as u32,
        instruction_count: function.instructions.len() as u32,
        instructions: function.instructions.as_ptr() as u64,
        license: parsed.license.as_ptr() as u64,
        ..ProgramAttr::default()
    };
    if program.place() == Place::Cgroup {
        attr.attach_type = program.attach_type();
    }
    if let Some(btf) = btf {
        attr.btf = btf.as_raw_fd() as u32;
        attr.function_size = function.func_info_rec_size as u32;
        attr.functions = functions.as_ptr() as u64;
        attr.function_count = function.func_info.len() as u32;
        attr.line_size = function.line_info_rec_size as u32;
        attr.lines = lines.as_ptr() as u64;
        attr.line_count = function.line_info.len() as u32;
    }
    let mut log = vec![0_u8; LOG_SIZE];
    let started = Instant::now();
    let loaded = sys::load_program(&mut attr, sys::LOG_STATS, &mut log);
    let elapsed = started.elapsed();
    match loaded {
        Ok(_) => Ok(Verified { load: elapsed, ..parse(&text(&log)) }),
        Err(source) => {
            // A program that is too much for the verifier would be so again, for minutes, with a line for each step.
            if !text(&log).contains(TOO_LARGE) {
                // The kernel keeps the end of a log that is too long, and fails with another error for it.
                let _ = sys::load_program(&mut attr, sys::LOG_PATH, &mut log);
            }
            Err(VerifierError::Refused { program: program.name(), log: end_of(&text(&log)), source })
        }
    }
}

/// What the verifier says after a million instructions.
const TOO_LARGE: &str = "BPF program is too large";

/// Bytes of the verifier's log that are kept.
const LOG_SIZE: usize = 1 << 20;

/// Lines of a refusal's log that are shown: the last instructions and what is wrong with them.
const LOG_LINES: usize = 60;

fn text(log: &[u8]) -> String {
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    String::from_utf8_lossy(&log[..end]).into_owned()
}

fn end_of(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// The statistics at the end of the verifier's log:
///
/// ```text
/// verification time 1357 usec
/// stack depth 96+32
/// processed 1201 insns (limit 1000000) max_states_per_insn 4 total_states 96 …
/// ```
fn parse(log: &str) -> Verified {
    let mut verified = Verified::default();
    for line in log.lines() {
        let number = |text: &str| text.split(' ').next().and_then(|word| word.parse().ok());
        if let Some(rest) = line.strip_prefix("verification time ") {
            verified.verification = number(rest).map(Duration::from_micros);
        } else if let Some(rest) = line.strip_prefix("stack depth ") {
            rest.clone_into(&mut verified.stack);
        } else if let Some(rest) = line.strip_prefix("processed ") {
            verified.instructions = number(rest).and_then(|count| u32::try_from(count).ok());
        }
    }
    verified
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_statistics_are_read() {
        let log = "verification time 1357 usec\nstack depth 96+32\nprocessed 1201 insns (limit 1000000) \
                   max_states_per_insn 4 total_states 96 peak_states 96 mark_read 20\n";
        let expected = Verified {
            instructions: Some(1201),
            stack: "96+32".into(),
            verification: Some(Duration::from_micros(1357)),
            load: Duration::ZERO,
        };
        assert_eq!(parse(log), expected);
        assert_eq!(parse(""), Verified::default());
    }
}
