//! Instructions that the CPU at hand lacks, for tests of the kernels that need them: Linux signals each one that is not known, and
//! here it is done in its place, on the registers that the signal has saved. It takes some microseconds.
//!
//! What they do is as in Intel's *Software Developer's Manual*, volume 2: `VPDPBUSD` of AVX-VNNI, and AMX of bytes and bf16.

use std::arch::x86_64::__cpuid_count;
use std::cell::{Cell, RefCell};
use std::sync::Once;

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    static TILES: RefCell<Tiles> = const { RefCell::new(Tiles::NONE) };
    static PRODUCTS: Cell<usize> = const { Cell::new(0) };
}

/// How many matrices this thread has multiplied.
pub fn products() -> usize {
    PRODUCTS.get()
}

/// Whether this thread takes the instructions for its CPU's.
pub fn is_on() -> bool {
    ON.get()
}

/// Does something as if the CPU had them, on this thread alone.
pub fn with<T>(work: impl FnOnce() -> T) -> T {
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            ON.set(false);
        }
    }
    static HANDLER: Once = Once::new();
    HANDLER.call_once(|| {
        // SAFETY: an empty mask is zeros, and the handler is one for `SA_SIGINFO`.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_unknown_instruction as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut()), 0);
        }
    });
    ON.set(true);
    let _off = Off;
    work()
}

extern "C" fn on_unknown_instruction(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: this is what Linux passes for a context, and nobody else looks at it. What the kernels' instructions read and
    // write is theirs.
    unsafe {
        let machine = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext;
        if !is_on() || emulate(machine).is_none() {
            // Not one of these, or not where they are expected: it is met again, and ends the program.
            libc::signal(libc::SIGILL, libc::SIG_DFL);
            return;
        }
        // One signal for several in a row: signals are what takes time.
        while emulate(machine).is_some() {}
    }
}

/// Does the instruction that is next; `None` if it is none of these, or not allowed.
///
/// # Safety
/// The registers must be those of code that may execute it.
unsafe fn emulate(machine: &mut libc::mcontext_t) -> Option<()> {
    // SAFETY: as the caller promises.
    unsafe {
        let code = machine.gregs[libc::REG_RIP as usize] as *const u8;
        // A VEX prefix of three bytes, the opcode, and the byte that is called ModRM.
        let [escape, first, second, opcode, modrm] = *code.cast::<[u8; 5]>();
        let (map, wide, long, kind) = (first & 31, second >> 7, second >> 2 & 1, second & 3);
        if (escape, map, wide) != (0xc4, 2, 0) {
            return None;
        }
        let high = |bit: u8| usize::from(!first >> bit & 1) * 8;
        let destination = usize::from(modrm >> 3 & 7) + high(7);
        let second = usize::from(!second >> 3 & 15);
        let (third, length) = match modrm >> 6 {
            3 => (Operand::Register(usize::from(modrm & 7) + high(5)), 5),
            _ => memory(machine, code.add(4), high(6), high(5)),
        };
        match (opcode, kind, long) {
            // VPDPBUSD, of 32 bytes.
            (0x50, 1, 1) => {
                let vectors = Vectors::of(machine)?;
                let b = match third {
                    Operand::Register(register) => vectors.get(register),
                    Operand::Memory { at, index } => at.offset(index).cast::<[u8; 32]>().read_unaligned(),
                };
                let (a, mut sums) = (vectors.get(second), vectors.get(destination));
                for ((sum, a), b) in sums.chunks_exact_mut(4).zip(a.chunks_exact(4)).zip(b.chunks_exact(4)) {
                    add_products(sum, a, b);
                }
                vectors.set(destination, sums);
            }
            (0x49 | 0x4b | 0x5c | 0x5e, _, 0) => {
                TILES.with_borrow_mut(|tiles| tiles.emulate((opcode, kind), destination, second, third))?;
            }
            _ => return None,
        }
        machine.gregs[libc::REG_RIP as usize] += length;
        Some(())
    }
}

/// The last operand of an instruction.
enum Operand {
    Register(usize),
    /// At `at + index` bytes; of a matrix, row `r` is at `at + r * index`.
    Memory {
        at: *mut u8,
        index: isize,
    },
}

/// What ModRM and the bytes behind it say, and how long the instruction is.
///
/// # Safety
/// They must be those of an instruction with these registers.
unsafe fn memory(
    machine: &libc::mcontext_t,
    modrm: *const u8,
    index_high: usize,
    base_high: usize,
) -> (Operand, libc::greg_t) {
    let general = |number: usize| machine.gregs[GENERAL[number] as usize] as isize;
    // SAFETY: as the caller promises.
    unsafe {
        let (mode, low) = (*modrm >> 6, usize::from(*modrm & 7));
        let (mut next, mut base, mut index) = (modrm.add(1), low, 0);
        if low == 4 {
            // The byte that is called SIB.
            let sib = *next;
            next = next.add(1);
            base = usize::from(sib & 7);
            let register = usize::from(sib >> 3 & 7) + index_high;
            if register != 4 {
                index = general(register) << (sib >> 6);
            }
        }
        let (displacement, bytes) = match (mode, base) {
            (1, _) => (isize::from(next.cast::<i8>().read()), 1),
            (2, _) | (0, 5) => (next.cast::<i32>().read_unaligned() as isize, 4),
            _ => (0, 0),
        };
        next = next.add(bytes);
        let start = match (mode, low, base) {
            // Relative to the next instruction, or to nothing.
            (0, 5, _) => next as isize,
            (0, _, 5) => 0,
            _ => general(base + base_high),
        };
        // Before ModRM, there are four bytes.
        let length = 4 + next.offset_from(modrm) as libc::greg_t;
        (Operand::Memory { at: (start + displacement) as *mut u8, index }, length)
    }
}

/// Where Linux keeps the general registers, in the order of their numbers.
const GENERAL: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// `sum += a * b`, four unsigned by four signed bytes.
fn add_products(sum: &mut [u8], a: &[u8], b: &[u8]) {
    let products: i32 = a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b as i8)).sum();
    let total = i32::from_le_bytes(sum.try_into().expect("four bytes")).wrapping_add(products);
    sum.copy_from_slice(&total.to_le_bytes());
}

/// `sum += a * b` in f32, two by two bf16s. Subnormal numbers are 0.
fn add_bf16_products(sum: &mut [u8], a: &[u8], b: &[u8]) {
    let normal = |x: f32| if x.is_subnormal() { 0.0 * x } else { x };
    let number = |two: &[u8]| normal(f32::from_bits(u32::from_le_bytes([0, 0, two[0], two[1]])));
    let mut total = f32::from_le_bytes((&*sum).try_into().expect("four bytes"));
    for (a, b) in a.chunks_exact(2).zip(b.chunks_exact(2)) {
        total = normal(number(a).mul_add(number(b), total));
    }
    sum.copy_from_slice(&total.to_le_bytes());
}

/// What a signal saved of the vectors: their 16, 16 and 32 bytes from below, each for all registers.
struct Vectors {
    low: *mut u8,
    high: *mut u8,
    /// If the CPU has them.
    above: Option<*mut u8>,
}

impl Vectors {
    /// `None` if the signal saved none.
    ///
    /// # Safety
    /// The registers must be a signal's.
    unsafe fn of(machine: &mut libc::mcontext_t) -> Option<Vectors> {
        /// Where the parts of `XSAVE`'s layout are.
        const LOW: usize = 160;
        const HIGH: usize = 576;
        /// Says that there is more than `FXSAVE`'s layout, and where it stands; where it says which parts.
        const MAGIC: (usize, u32) = (464, 0x4650_5853);
        const PARTS: usize = 512;
        // SAFETY: as the caller promises; the layout is what the magic number says.
        unsafe {
            let saved = machine.fpregs.cast::<u8>();
            if saved.add(MAGIC.0).cast::<u32>().read_unaligned() != MAGIC.1 {
                return None;
            }
            let (parts, low, high) = (saved.add(PARTS).cast::<u64>(), saved.add(LOW), saved.add(HIGH));
            // What is all zeros need not have been saved.
            for (part, at) in [(2, low), (4, high)] {
                if *parts & part == 0 {
                    at.write_bytes(0, 256);
                    *parts |= part;
                }
            }
            // Part 6, where it is.
            let above = (*parts & 64 != 0).then(|| saved.add(__cpuid_count(13, 6).ebx as usize));
            Some(Vectors { low, high, above })
        }
    }

    fn get(&self, register: usize) -> [u8; 32] {
        let mut bytes = [0; 32];
        // SAFETY: there are 16.
        unsafe {
            self.low.add(16 * register).copy_to(bytes.as_mut_ptr(), 16);
            self.high.add(16 * register).copy_to(bytes[16..].as_mut_ptr(), 16);
        }
        bytes
    }

    fn set(&self, register: usize, bytes: [u8; 32]) {
        // SAFETY: as above.
        unsafe {
            self.low.add(16 * register).copy_from(bytes.as_ptr(), 16);
            self.high.add(16 * register).copy_from(bytes[16..].as_ptr(), 16);
            if let Some(above) = self.above {
                above.add(32 * register).write_bytes(0, 32);
            }
        }
    }
}

/// AMX's registers: matrices of so many rows of so many bytes.
struct Tiles {
    shapes: [(usize, usize); 8],
    bytes: [[[u8; 64]; 16]; 8],
}

impl Tiles {
    /// As long as there is no configuration.
    const NONE: Tiles = Tiles { shapes: [(0, 0); 8], bytes: [[[0; 64]; 16]; 8] };

    /// `None` if the instruction is not known, or not allowed.
    ///
    /// # Safety
    /// What it reads and writes must be the code's that executes it.
    unsafe fn emulate(
        &mut self,
        instruction: (u8, u8),
        destination: usize,
        second: usize,
        third: Operand,
    ) -> Option<()> {
        // SAFETY: as the caller promises.
        unsafe {
            match (instruction, third) {
                // LDTILECFG
                ((0x49, 0), Operand::Memory { at, .. }) => *self = Tiles::configured(*at.cast())?,
                // TILERELEASE
                ((0x49, 0), Operand::Register(0)) => *self = Tiles::NONE,
                // TILEZERO
                ((0x49, 3), Operand::Register(0)) => {
                    self.shape(destination)?;
                    self.bytes[destination] = [[0; 64]; 16];
                }
                // TILELOADD, and TILELOADDT1, which only asks other caches.
                ((0x4b, 1 | 3), Operand::Memory { at, index }) => {
                    let (rows, width) = self.shape(destination)?;
                    let tile = &mut self.bytes[destination];
                    *tile = [[0; 64]; 16];
                    for (r, row) in tile[..rows].iter_mut().enumerate() {
                        at.offset(r as isize * index).copy_to(row.as_mut_ptr(), width);
                    }
                }
                // TILESTORED
                ((0x4b, 2), Operand::Memory { at, index }) => {
                    let (rows, width) = self.shape(destination)?;
                    for (r, row) in self.bytes[destination][..rows].iter().enumerate() {
                        at.offset(r as isize * index).copy_from(row.as_ptr(), width);
                    }
                }
                // TDPBUSD: the operand in the prefix is the last.
                ((0x5e, 1), Operand::Register(a)) => self.multiply(destination, a, second, add_products)?,
                // TDPBF16PS
                ((0x5c, 2), Operand::Register(a)) => self.multiply(destination, a, second, add_bf16_products)?,
                _ => return None,
            }
        }
        Some(())
    }

    /// By the 64 bytes of a configuration.
    fn configured(bytes: [u8; 64]) -> Option<Tiles> {
        let mut tiles = Tiles::NONE;
        for (t, shape) in tiles.shapes.iter_mut().enumerate() {
            let width = u16::from_le_bytes([bytes[16 + 2 * t], bytes[17 + 2 * t]]);
            *shape = (bytes[48 + t].into(), width.into());
        }
        // Palette 1, nothing begun, and nothing where nothing may be.
        let rest = bytes[1..16].iter().chain(&bytes[32..48]).chain(&bytes[56..]);
        let allowed = |&(rows, width): &(usize, usize)| rows <= 16 && width <= 64 && (rows == 0) == (width == 0);
        (bytes[0] == 1 && rest.into_iter().all(|&byte| byte == 0) && tiles.shapes.iter().all(allowed)).then_some(tiles)
    }

    /// A register's; `None` if it has none.
    fn shape(&self, register: usize) -> Option<(usize, usize)> {
        self.shapes.get(register).copied().filter(|&(rows, _)| rows > 0)
    }

    /// `sum += a * b`, where four bytes of `b`'s row are a column's.
    fn multiply(&mut self, sum: usize, a: usize, b: usize, add: fn(&mut [u8], &[u8], &[u8])) -> Option<()> {
        let ((rows, width), (a_rows, a_width), (b_rows, b_width)) = (self.shape(sum)?, self.shape(a)?, self.shape(b)?);
        if rows != a_rows || a_width != 4 * b_rows || width != b_width || sum == a || a == b || sum == b {
            return None;
        }
        let (a, b) = (self.bytes[a], self.bytes[b]);
        for (sums, a) in self.bytes[sum][..rows].iter_mut().zip(a) {
            for (a, b) in a[..a_width].chunks_exact(4).zip(b) {
                for (sum, b) in sums[..width].chunks_exact_mut(4).zip(b.chunks_exact(4)) {
                    add(sum, a, b);
                }
            }
        }
        PRODUCTS.set(PRODUCTS.get() + 1);
        Some(())
    }
}
