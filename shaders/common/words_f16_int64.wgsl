// Two and four neighbouring numbers of a matrix, as one word: lavapipe's loads cost by the word (see kernels/linear/subgroup.rs).
alias Pair = u32;
alias Quad = u64;
fn pair(x: Pair) -> vec2<f32> { return unpack2x16float(x); }
fn quad(x: Quad) -> vec4<f32> { return vec4<f32>(unpack2x16float(u32(x)), unpack2x16float(u32(x >> 32u))); }
