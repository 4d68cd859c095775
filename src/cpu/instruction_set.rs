//! Which of this CPU's vector instructions the ops use: the widest, or those that `LEXEL_INSTRUCTIONS` names, so that the paths
//! of lesser CPUs can be tested and measured on a better one. (rten-gemm, which computes int8 elsewhere than `linear_dot`,
//! chooses its own.)

#[cfg(target_arch = "x86_64")]
use super::{amx, dot::Vnni512};
use crate::error::{Error, Result};
#[cfg(target_arch = "aarch64")]
use rten_simd::isa::ArmNeonIsa;
use rten_simd::isa::GenericIsa;
#[cfg(target_arch = "x86_64")]
use rten_simd::isa::{Avx2Isa, Avx512Isa};
use rten_simd::ops::BitOps;
use rten_simd::{Isa, SimdOp};
use std::sync::OnceLock;

/// The environment variable.
const VARIABLE: &str = "LEXEL_INSTRUCTIONS";

/// What the variable may say, on one CPU or another.
const NAMES: [&str; 5] = ["AMX", "AVX-512", "AVX2", "NEON", "portable"];

/// Vector instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstructionSet {
    /// AVX-512, and AMX for products.
    #[cfg(target_arch = "x86_64")]
    Amx,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// Whatever the compiler makes of four numbers at a time.
    Portable,
}

impl InstructionSet {
    /// Those that the ops use. What the variable asks for and the CPU lacks is not used: [`InstructionSet::check`] says so.
    pub fn current() -> InstructionSet {
        static CURRENT: OnceLock<InstructionSet> = OnceLock::new();
        *CURRENT.get_or_init(|| asked_for().ok().flatten().unwrap_or_else(InstructionSet::widest))
    }

    /// # Errors
    /// [`Error::Device`] if the variable names what this CPU has not, [`Error::InvalidInput`] if it names nothing that is known.
    pub fn check() -> Result<()> {
        asked_for().map(|_| ())
    }

    /// For people, and in the variable.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Amx => "AMX",
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => "AVX2",
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon => "NEON",
            InstructionSet::Portable => "portable",
        }
    }

    /// For people: those of everything but int8's products.
    pub fn of_floats(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Amx if amx::exists() => "AVX-512 and AMX",
            other => other.of_vectors(),
        }
    }

    /// For people: without AMX.
    pub fn of_vectors(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Amx => InstructionSet::Avx512.name(),
            other => other.name(),
        }
    }

    fn widest() -> InstructionSet {
        InstructionSet::available()[0]
    }

    /// Those of this CPU, the widest first.
    fn available() -> Vec<InstructionSet> {
        let sets = [
            #[cfg(target_arch = "x86_64")]
            Vnni512::new().filter(|_| amx::has_amx()).map(|_| InstructionSet::Amx),
            #[cfg(target_arch = "x86_64")]
            Avx512Isa::new().map(|_| InstructionSet::Avx512),
            #[cfg(target_arch = "x86_64")]
            Avx2Isa::new().map(|_| InstructionSet::Avx2),
            #[cfg(target_arch = "aarch64")]
            Some(InstructionSet::Neon),
            Some(InstructionSet::Portable),
        ];
        sets.into_iter().flatten().collect()
    }
}

/// What the variable says.
fn asked_for() -> Result<Option<InstructionSet>> {
    let named = std::env::var_os(VARIABLE).filter(|name| !name.is_empty());
    named.map(|name| parse(&name.to_string_lossy())).transpose()
}

fn parse(name: &str) -> Result<InstructionSet> {
    let available = InstructionSet::available();
    // `avx512` is AVX-512.
    let plain = |name: &str| name.replace('-', "").to_ascii_lowercase();
    available.iter().copied().find(|set| plain(set.name()) == plain(name)).ok_or_else(|| {
        let names: Vec<_> = available.iter().map(|set| set.name()).collect();
        let message = format!("{VARIABLE}={name}: this CPU has {}", names.join(", "));
        match NAMES.iter().any(|known| plain(known) == plain(name)) {
            true => Error::Device(message),
            false => Error::InvalidInput(message),
        }
    })
}

/// Numbers of a vector.
pub fn lanes() -> usize {
    struct Lanes;
    impl SimdOp for Lanes {
        type Output = usize;
        #[inline(always)]
        fn eval<I: Isa>(self, isa: I) -> usize {
            isa.f32().len()
        }
    }
    dispatch(Lanes)
}

/// Evaluates an op with the current instructions. Every op goes through here, not through its own `dispatch`: each way is a
/// copy of the op's code.
pub fn dispatch<O: SimdOp>(op: O) -> O::Output {
    match InstructionSet::current() {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Amx | InstructionSet::Avx512 => {
            // The features that `Avx512Isa::new` tests for.
            #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,f16c")]
            fn with_avx512<O: SimdOp>(isa: Avx512Isa, op: O) -> O::Output {
                op.eval(isa)
            }
            let isa = Avx512Isa::new().expect("AVX-512 is current only if the CPU has it");
            // SAFETY: the CPU has these features.
            unsafe { with_avx512(isa, op) }
        }
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 => {
            // The features that `Avx2Isa::new` tests for.
            #[target_feature(enable = "avx2,avx,fma,f16c")]
            fn with_avx2<O: SimdOp>(isa: Avx2Isa, op: O) -> O::Output {
                op.eval(isa)
            }
            let isa = Avx2Isa::new().expect("AVX2 is current only if the CPU has it");
            // SAFETY: the CPU has these features.
            unsafe { with_avx2(isa, op) }
        }
        #[cfg(target_arch = "aarch64")]
        InstructionSet::Neon => {
            let isa = ArmNeonIsa::new().expect("every such CPU has NEON");
            op.eval(isa)
        }
        InstructionSet::Portable => op.eval(GenericIsa::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_the_cpu_has_not_is_an_error_that_lists_those_it_has() {
        assert_eq!(parse("PORTABLE").unwrap(), InstructionSet::Portable);
        for set in InstructionSet::available() {
            assert_eq!(parse(set.name()).unwrap(), set);
            assert_eq!(parse(&set.name().replace('-', "")).unwrap(), set);
        }
        let other = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
        assert!(matches!(parse(other), Err(Error::Device(_))));
        let error = parse("mmx").unwrap_err();
        assert!(matches!(error, Error::InvalidInput(_)));
        let error = error.to_string();
        assert!(error.contains("LEXEL_INSTRUCTIONS=mmx") && error.contains("portable"), "{error}");
    }
}
