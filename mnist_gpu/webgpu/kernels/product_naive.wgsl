// C = A B, each thread one number of C. A workgroup makes 16 x 16 of them. For these it asks for 2 x 16 x 16 x k numbers,
// 8 bytes a multiply-add; each of them 16 times, by 16 of its threads.
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
