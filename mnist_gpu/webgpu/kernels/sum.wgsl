// A reduction: a workgroup adds 256 numbers in its own memory, in 8 rounds with half as many threads each, and writes
// their sum. It reads 1 KiB and writes 4 bytes.
struct Numbers { n: u32 }
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;  // one a workgroup
@group(1) @binding(0) var<uniform> numbers: Numbers;
var<workgroup> part: array<f32, 256>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    let g = group.y * groups.x + group.x;
    let i = g * 256u + thread;
    part[thread] = select(0.0, a[min(i, numbers.n - 1u)], i < numbers.n);
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (thread < half) {
            part[thread] += part[thread + half];
        }
    }
    if (thread == 0u && g < arrayLength(&sums)) {
        sums[g] = part[0];
    }
}
