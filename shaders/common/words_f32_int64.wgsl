// Two and four neighbouring numbers of a matrix in 64-bit words: lavapipe's loads cost by the word (see kernels/linear/subgroup.rs).
alias Pair = u64;
alias Quad = vec2<u64>;
fn pair(x: Pair) -> vec2<f32> { return bitcast<vec2<f32>>(vec2<u32>(u32(x), u32(x >> 32u))); }
fn quad(x: Quad) -> vec4<f32> { return vec4<f32>(pair(x.x), pair(x.y)); }
