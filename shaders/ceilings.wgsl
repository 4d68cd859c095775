// What a device can do at most, for the profile to be held against. Not part of any program: its own bindings, no prelude.

@group(0) @binding(0) var<storage, read> source: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> destination: array<vec4<f32>>;

const ROUNDS: u32 = 512u;

// A workgroup does 256 * ROUNDS * 8 multiplications and additions of vec4: eight sums in registers, so that none waits for the last.
@compute @workgroup_size(256)
fn multiply_add(@builtin(global_invocation_id) id: vec3<u32>) {
    let at = id.x % arrayLength(&destination);
    let factor = source[at];
    let term = factor + 0.25;
    var a = factor;
    var b = factor + 0.1;
    var c = factor + 0.2;
    var d = factor + 0.3;
    var e = factor + 0.4;
    var f = factor + 0.5;
    var g = factor + 0.6;
    var h = factor + 0.7;
    for (var i = 0u; i < ROUNDS; i++) {
        a = fma(a, factor, term);
        b = fma(b, factor, term);
        c = fma(c, factor, term);
        d = fma(d, factor, term);
        e = fma(e, factor, term);
        f = fma(f, factor, term);
        g = fma(g, factor, term);
        h = fma(h, factor, term);
    }
    destination[at] = a + b + c + d + e + f + g + h;
}

// An invocation copies one element; grids beyond one axis go on along y.
@compute @workgroup_size(256)
fn copy(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let at = (group.y * groups.x + group.x) * 256u + lane;
    if at < arrayLength(&destination) {
        destination[at] = source[at];
    }
}
