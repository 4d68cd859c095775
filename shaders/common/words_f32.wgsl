// Two and four neighbouring numbers of a matrix, as one load.
alias Pair = vec2<f32>;
alias Quad = vec4<f32>;
fn pair(x: Pair) -> vec2<f32> { return x; }
fn quad(x: Quad) -> vec4<f32> { return x; }
