// k multiply-adds on every number: 8 bytes moved, 2 k operations. A workgroup moves 2 KiB whatever k is.
struct Numbers { k: u32 }
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(1) @binding(0) var<uniform> numbers: Numbers;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
    let i = id.y * groups.x * 256u + id.x;
    if (i < arrayLength(&out)) {
        var x = a[i];
        for (var j = 0u; j < numbers.k; j++) {
            x = x * 0.5 + 1.0;
        }
        out[i] = x;
    }
}
