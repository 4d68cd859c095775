// Two and four neighbouring numbers of a matrix in 32-bit words: lavapipe's loads cost by the word (see kernels/linear/subgroup.rs).
alias Pair = u32;
alias Quad = vec2<u32>;
fn pair(x: Pair) -> vec2<f32> { return unpack2x16float(x); }
fn quad(x: Quad) -> vec4<f32> { return vec4<f32>(unpack2x16float(x.x), unpack2x16float(x.y)); }
