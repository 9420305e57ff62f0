// A read with steps: thread i reads element i x stride, around the end of the array, so the bytes that are used stay the
// same. A workgroup reads 256 numbers: from 1 KiB that lies together with stride 1, from 256 places far apart with 32.
struct Numbers { stride: u32 }
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(1) @binding(0) var<uniform> numbers: Numbers;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
    let i = id.y * groups.x * 256u + id.x;
    let n = arrayLength(&out);
    if (i < n) {
        let rows = n / numbers.stride;  // the array as a matrix of so many rows, read column by column
        out[i] = a[(i % rows) * numbers.stride + i / rows];
    }
}
