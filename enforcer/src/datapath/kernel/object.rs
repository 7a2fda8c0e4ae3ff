//! Loading the BPF object: shapes first, then maps (adopted or made), then the role's programs.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    programs::{self, ProgramInfo},
};
use aya_obj::generated::bpf_map_type;
use enforcer_common::maps::name;

use super::{
    Hooks, Kernel, OpenError, Options, attach,
    pins::{Pins, Shape, pin_over},
    read, sys,
    verifier::{self, Verified, VerifierError},
};
use crate::{
    BPF_OBJECT,
    datapath::program::{Place, Program, Role},
    netlink::filters::{self, Hook},
};

impl Kernel {
    pub(super) fn open(bpffs: &Path, role: Role, options: &Options) -> Result<Self, OpenError> {
        let pins = Pins::prepare(bpffs)?;
        let ours = shapes(role, options)?;
        pins.check(&ours)?;
        let mut ebpf = load_maps(role, options, Some((&pins, &ours)), VerifierLogLevel::DISABLE)?;
        pins.forget_other_maps(&ours)?;
        for &program in Program::ALL.iter().filter(|program| program.role() == role) {
            load_program(&mut ebpf, program).map_err(|error| explained(&ebpf, program, error))?;
            let path = pins.programs().join(program.name());
            pin_over(program_fd(&ebpf, program)?, &path).map_err(|source| OpenError::Pin { path, source })?;
        }
        let readers = read::Readers::take(&mut ebpf)?;
        let hooks = options.hooks.unwrap_or_else(Hooks::of_this_kernel);
        let (links, filters) = attach::shelves(&pins)?;
        Ok(Self { pins, links, filters, role, hooks, ebpf, readers })
    }

    /// The loaded program.
    pub(super) fn program_fd(&self, program: Program) -> Result<&programs::ProgramFd, OpenError> {
        program_fd(&self.ebpf, program)
    }
}

/// The maps of a role that are pinned, as this build makes them.
fn shapes(role: Role, options: &Options) -> Result<BTreeMap<String, Shape>, OpenError> {
    let object = aya_obj::Object::parse(BPF_OBJECT)?;
    let pinned = object.maps.iter().filter(|(name, _)| is_pinned(role, name));
    let shapes = pinned.map(|(name, map)| {
        let kind = map.map_type();
        // aya rounds the value size of a ring buffer down to the nothing that the kernel wants.
        let ring = kind == bpf_map_type::BPF_MAP_TYPE_RINGBUF as u32;
        let value = if ring { 0 } else { map.value_size() };
        let size = options.all_sizes().find(|(map, _)| map == name);
        let entries = size.map_or(map.max_entries(), |(_, entries)| entries);
        (name.clone(), Shape { kind, key: map.key_size(), value, entries })
    });
    Ok(shapes.collect())
}

/// Maps of this role and of both; not the sections of constants, which belong to one build, nor aya's log.
fn is_pinned(role: Role, map: &str) -> bool {
    !other_maps(role).contains(&map) && !map.starts_with(['.', '_']) && map != AYA_LOGS
}

fn other_maps(role: Role) -> &'static [&'static str] {
    match role {
        Role::Node => name::GATEWAY,
        Role::Gateway => name::NODE,
    }
}

/// Ring buffer of aya-log.
const AYA_LOGS: &str = "AYA_LOGS";

/// Makes the maps, or opens those that are pinned. Maps of the other role are there, because the object names them,
/// with one entry each.
pub(super) fn load_maps(
    role: Role,
    options: &Options,
    pinned: Option<(&Pins, &BTreeMap<String, Shape>)>,
    level: VerifierLogLevel,
) -> Result<Ebpf, OpenError> {
    let log = u8::from(options.log);
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(level).override_global("LOG", &log, false);
    if let Some(flows) = &options.flows {
        loader.override_global("FLOW_CAPACITY", flows, false);
    }
    for map in other_maps(role) {
        loader.map_max_entries(map, 1);
    }
    for (map, entries) in options.all_sizes().filter(|(map, _)| !other_maps(role).contains(map)) {
        loader.map_max_entries(map, entries);
    }
    if let Some((pins, ours)) = pinned {
        for map in ours.keys() {
            loader.map_pin_path(map.as_str(), pins.maps().join(map));
        }
    }
    Ok(loader.load(BPF_OBJECT)?)
}

/// Gives one program to the verifier.
pub(super) fn load_program(ebpf: &mut Ebpf, program: Program) -> Result<(), OpenError> {
    let name = program.name();
    let missing = || OpenError::MissingProgram { program: name };
    let loaded = ebpf.program_mut(name).ok_or_else(missing)?;
    let result = match program.place() {
        Place::Ingress | Place::Egress => {
            <&mut programs::SchedClassifier>::try_from(loaded).map_err(|_| missing())?.load()
        }
        Place::Cgroup => <&mut programs::CgroupSockAddr>::try_from(loaded).map_err(|_| missing())?.load(),
    };
    result.map_err(|source| OpenError::Program { program: name, source })
}

/// A refusal with the end of the verifier's log, for which aya asks only if it is to keep all of it.
fn explained(ebpf: &Ebpf, program: Program, error: OpenError) -> OpenError {
    match verifier::verify(ebpf, &[program]) {
        Err(refused @ VerifierError::Refused { .. }) => refused.into(),
        // Not the verifier's doing, or it has changed its mind.
        Ok(_) | Err(_) => error,
    }
}

pub(super) fn program_fd(ebpf: &Ebpf, program: Program) -> Result<&programs::ProgramFd, OpenError> {
    let name = program.name();
    let loaded = ebpf.program(name).ok_or(OpenError::MissingProgram { program: name })?;
    let fd = match loaded {
        programs::Program::SchedClassifier(program) => program.fd(),
        programs::Program::CgroupSockAddr(program) => program.fd(),
        _ => return Err(OpenError::MissingProgram { program: name }),
    };
    fd.map_err(|source| OpenError::Program { program: name, source })
}

pub(super) fn program_info(ebpf: &Ebpf, program: Program) -> Result<ProgramInfo, OpenError> {
    let name = program.name();
    let loaded = ebpf.program(name).ok_or(OpenError::MissingProgram { program: name })?;
    loaded.info().map_err(|source| OpenError::Program { program: name, source })
}

/// Programs that are pinned nowhere and go with this value.
pub struct Unpinned {
    pub ebpf: Ebpf,
    verified: BTreeMap<Program, Verified>,
}

/// Name of a filter that goes with a value.
const LOAN: &str = "enforcer-load";

/// A program on a device, for as long as this lives.
pub enum Loan {
    Link(OwnedFd),
    Filter { ifindex: u32, hook: Hook },
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Self::Filter { ifindex, hook } = self
            && let Err(error) = filters::remove(*ifindex, *hook, LOAN)
        {
            tracing::warn!(ifindex, %error, "the program stays on the device");
        }
    }
}

/// What a program costs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProgramCost {
    pub verified: Verified,
    /// Bytes.
    pub translated_size: Option<u32>,
    /// Bytes.
    pub jited_size: u32,
}

/// Loads programs of both roles, with their log on and with small maps of their own.
pub fn load_unpinned(programs: &[Program]) -> Result<Unpinned, OpenError> {
    const SMALL: u32 = 1 << 10;
    let mut loader = EbpfLoader::new();
    loader.override_global("LOG", &1_u8, false).override_global("FLOW_CAPACITY", &SMALL, false);
    for map in [name::FLOWS, name::FLOW_RING, name::GW_FLOWS, name::GW_NAT] {
        loader.map_max_entries(map, SMALL);
    }
    let mut ebpf = loader.load(BPF_OBJECT)?;
    // First, because it fails at once and with the end of the log; aya tries ten times for all of it.
    let verified = verifier::verify(&ebpf, programs)?;
    for &program in programs {
        load_program(&mut ebpf, program)?;
    }
    Ok(Unpinned { ebpf, verified })
}

impl Unpinned {
    /// Attaches a program to a device of the caller's network namespace, until what is returned is dropped.
    pub fn attach(&self, program: Program, ifindex: u32) -> io::Result<Loan> {
        let fd = program_fd(&self.ebpf, program).map_err(io::Error::other)?.as_fd();
        match Hooks::of_this_kernel() {
            Hooks::Tcx => sys::attach_device(fd, ifindex, program.attach_type()).map(Loan::Link),
            Hooks::Clsact => {
                let hook = program.hook();
                filters::put(ifindex, hook, LOAN, fd)?;
                Ok(Loan::Filter { ifindex, hook })
            }
        }
    }

    /// What each program costs.
    pub fn costs(&self) -> BTreeMap<Program, ProgramCost> {
        let cost = |(program, verified): (&Program, &Verified)| {
            let info = program_info(&self.ebpf, *program).ok();
            let translated_size = info.as_ref().and_then(ProgramInfo::size_translated);
            let jited_size = info.as_ref().map_or(0, ProgramInfo::size_jitted);
            (*program, ProgramCost { verified: verified.clone(), translated_size, jited_size })
        };
        self.verified.iter().map(cost).collect()
    }
}
