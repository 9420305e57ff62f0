// A copy, a number a thread. A workgroup reads 1 KiB and writes 1 KiB.
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
    let i = id.y * groups.x * 256u + id.x;  // two numbers, since one counts only to 65,535 workgroups
    if (i < arrayLength(&out)) {
        out[i] = a[i];
    }
}
