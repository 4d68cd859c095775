// Element-wise functions, on four columns at once: `act_X` is the activation that `Activation::name()` in
// src/program/op.rs calls X. (The prefix keeps WGSL's own `tanh` reachable.) STORES_F16: what becomes of them is rounded to f16.
// Arguments of exp and tanh are bounded: exp overflows to infinity, and tanh of a large number is NaN on drivers that
// compute it as a quotient of exponentials.

// y, and NaN where x is: clamp and max may make a number of it, and nobody would hear of a broken row. By its bits, because
// compilers that assume that there is no NaN take `x != x` to be false.
fn keep_nan(y: vec4<f32>, x: vec4<f32>) -> vec4<f32> {
    return select(y, x, (bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u));
}

// A rational function of degree 13 over 8 on [-4, 4], beyond which erf is 1 within f32. Coefficients: Eigen's
// generic_fast_erf_float. It leaves gelu within 2e-7 of max(1, |x|) (tests/gpu.rs).
fn erf(x: vec4<f32>) -> vec4<f32> {
    let a = clamp(x, vec4<f32>(-4.0), vec4<f32>(4.0));
    let b = a * a;
    var p = vec4<f32>(-2.72614225801306e-10);
    p = p * b + 2.77068142495902e-08;
    p = p * b - 2.10102402082508e-06;
    p = p * b - 5.69250639462346e-05;
    p = p * b - 7.34990630326855e-04;
    p = p * b - 2.95459980854025e-03;
    p = p * b - 1.60960333262415e-02;
    var q = vec4<f32>(-1.45660718464996e-05);
    q = q * b - 2.13374055278905e-04;
    q = q * b - 1.68282697438203e-03;
    q = q * b - 7.37332916720468e-03;
    q = q * b - 1.42647390514189e-02;
    return clamp(a * p / q, vec4<f32>(-1.0), vec4<f32>(1.0));
}

// e^x - 1 for x <= 0: near zero by its series, where the difference would cancel.
fn expm1_negative(x: vec4<f32>) -> vec4<f32> {
    let series = x * (1.0 + x * (0.5 + x * (1.0 / 6.0 + x * (1.0 / 24.0 + x * (1.0 / 120.0)))));
    return select(exp(max(x, vec4<f32>(-87.0))) - 1.0, series, x > vec4<f32>(-0.2));
}

// ln(1 + x) for x >= 0: near zero by its series, where 1 + x would lose it.
fn log1p(x: vec4<f32>) -> vec4<f32> {
    let series = x * (1.0 - x * (0.5 - x * (1.0 / 3.0 - x * 0.25)));
    return select(log(1.0 + x), series, x < vec4<f32>(0.02));
}

// ln(1 + e^-|x|), the part of softplus that never overflows.
fn log1p_exp_negative(x: vec4<f32>) -> vec4<f32> {
    return log1p(exp(-min(abs(x), vec4<f32>(87.0))));
}

// The normal distribution's function, where f16 will do: with gelu 17 instructions instead of 24 (Mesa's compiler for NVIDIA). A
// rational function of degree 7 over 10 on [-5, 5], beyond which it is 0 or 1, fitted by weighted least squares to what it leaves of
// gelu: within 1e-6 of max(1, |x|) (tests/gpu_numbers.rs), where f16 rounds a number near 1 by up to 2.4e-4.
fn normal_f16(x: vec4<f32>) -> vec4<f32> {
    let a = clamp(x, vec4<f32>(-5.0), vec4<f32>(5.0));
    let b = a * a;
    var p = vec4<f32>(-7.7313498e-06);
    p = p * b + 3.56947095e-03;
    p = p * b + 2.18524225e-02;
    p = p * b + 3.98948103e-01;
    var q = vec4<f32>(6.27906118e-08);
    q = q * b - 1.04525561e-05;
    q = q * b + 9.27374291e-04;
    q = q * b + 2.07933895e-02;
    q = q * b + 2.21499458e-01;
    q = q * b + 1.0;
    return clamp(a * p / q + 0.5, vec4<f32>(0.0), vec4<f32>(1.0));
}

fn act_gelu(x: vec4<f32>) -> vec4<f32> {
    if STORES_F16 {
        return x * normal_f16(x);
    }
    return 0.5 * x * (1.0 + erf(x * 0.70710678118654752));
}

fn act_gelu_tanh(x: vec4<f32>) -> vec4<f32> {
    let y = 0.7978845608028654 * x * (1.0 + 0.044715 * x * x);
    return 0.5 * x * (1.0 + act_tanh(y));
}

fn act_quick_gelu(x: vec4<f32>) -> vec4<f32> {
    return x * act_sigmoid(1.702 * x);
}

fn act_relu(x: vec4<f32>) -> vec4<f32> {
    return max(x, vec4<f32>(0.0));
}

fn act_silu(x: vec4<f32>) -> vec4<f32> {
    return x * act_sigmoid(x);
}

fn act_tanh(x: vec4<f32>) -> vec4<f32> {
    return tanh(clamp(x, vec4<f32>(-10.0), vec4<f32>(10.0)));
}

fn act_sigmoid(x: vec4<f32>) -> vec4<f32> {
    return 1.0 / (1.0 + exp(-clamp(x, vec4<f32>(-87.0), vec4<f32>(87.0))));
}

fn act_relu6(x: vec4<f32>) -> vec4<f32> {
    return clamp(x, vec4<f32>(0.0), vec4<f32>(6.0));
}

fn act_leaky_relu(x: vec4<f32>, slope: f32) -> vec4<f32> {
    return select(slope * x, x, x > vec4<f32>(0.0));
}

fn act_elu(x: vec4<f32>) -> vec4<f32> {
    return select(expm1_negative(min(x, vec4<f32>(0.0))), x, x > vec4<f32>(0.0));
}

fn act_selu(x: vec4<f32>) -> vec4<f32> {
    let negative = 1.6732632423543772 * expm1_negative(min(x, vec4<f32>(0.0)));
    return 1.0507009873554805 * select(negative, x, x > vec4<f32>(0.0));
}

fn act_mish(x: vec4<f32>) -> vec4<f32> {
    return x * act_tanh(act_softplus(x));
}

// ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|)
fn act_softplus(x: vec4<f32>) -> vec4<f32> {
    return max(x, vec4<f32>(0.0)) + log1p_exp_negative(x);
}

fn act_softsign(x: vec4<f32>) -> vec4<f32> {
    return x / (1.0 + abs(x));
}

fn act_log_sigmoid(x: vec4<f32>) -> vec4<f32> {
    return min(x, vec4<f32>(0.0)) - log1p_exp_negative(x);
}

fn act_tanhshrink(x: vec4<f32>) -> vec4<f32> {
    return x - act_tanh(x);
}

fn act_hardshrink(x: vec4<f32>) -> vec4<f32> {
    return select(vec4<f32>(0.0), x, abs(x) > vec4<f32>(0.5));
}

fn act_softshrink(x: vec4<f32>) -> vec4<f32> {
    return x - clamp(x, vec4<f32>(-0.5), vec4<f32>(0.5));
}

fn act_hardsigmoid(x: vec4<f32>) -> vec4<f32> {
    return clamp(x / 6.0 + 0.5, vec4<f32>(0.0), vec4<f32>(1.0));
}

fn act_hardswish(x: vec4<f32>) -> vec4<f32> {
    return x * act_hardsigmoid(x);
}

fn act_hardtanh(x: vec4<f32>) -> vec4<f32> {
    return clamp(x, vec4<f32>(-1.0), vec4<f32>(1.0));
}

fn act_log1p_relu(x: vec4<f32>) -> vec4<f32> {
    return keep_nan(log1p(max(x, vec4<f32>(0.0))), x);
}

fn act_log1p_log1p_relu(x: vec4<f32>) -> vec4<f32> {
    return log1p(act_log1p_relu(x));
}
