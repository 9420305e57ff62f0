// C = A B, each thread one number of C. A workgroup makes 16 x 16 of them and reads 32 values for every multiply-add 
// it could share: 2 x 16 x 16 x K numbers, each of A and of B 16 times over.
struct Numbers { m: u32, n: u32, k: u32 }
@group(0) @binding(0) var<storage, read> a: array<f32>;  // [m, k]
@group(0) @binding(1) var<storage, read> b: array<f32>;  // [k, n]
@group(0) @binding(2) var<storage, read_write> c: array<f32>;  // [m, n]
@group(1) @binding(0) var<uniform> numbers: Numbers;

@compute @workgroup_size(16, 16)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let row = id.y;
    let column = id.x;
    if (row < numbers.m && column < numbers.n) {
        var total = 0.0;
        for (var i = 0u; i < numbers.k; i++) {
            total += a[row * numbers.k + i] * b[i * numbers.n + column];
        }
        c[row * numbers.n + column] = total;
    }
}
