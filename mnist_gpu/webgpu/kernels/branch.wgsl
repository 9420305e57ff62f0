// A branch with two sides of k multiply-adds each: `run` threads take the one, the next `run` the other, in turn. A
// workgroup moves 2 KiB whatever they are. A warp whose threads take both sides executes both.
struct Numbers { run: u32, k: u32 }
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(1) @binding(0) var<uniform> numbers: Numbers;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let i = id.x;
    if (i < arrayLength(&out)) {
        var x = a[i];
        if ((i / numbers.run) % 2u == 0u) {
            for (var j = 0u; j < numbers.k; j++) {
                x = x * 0.5 + 1.0;
            }
        } else {
            for (var j = 0u; j < numbers.k; j++) {
                x = 1.0 - x * 0.25;
            }
        }
        out[i] = x;
    }
}
