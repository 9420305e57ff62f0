// The gradient of W1, and at once its momentum and its update, so that it never goes to memory. A workgroup updates 16 units
// x 16 pixels; for every 16 images it fetches 16 x 16 of `back` and 16 x 16 bytes of images.
struct Numbers { start: u32, size: u32, width: u32, step: u32, rate: f32, momentum: f32 }
@group(0) @binding(0) var<storage, read> images: array<u32>;  // [N, 196], four pixels in each
@group(0) @binding(1) var<storage, read> order: array<u32>;
@group(0) @binding(2) var<storage, read> back: array<f32>;  // [size, width]
@group(0) @binding(3) var<storage, read_write> weights: array<f32>;  // [width, 784]
@group(0) @binding(4) var<storage, read_write> velocity: array<f32>;  // [width, 784]
@group(1) @binding(0) var<uniform> numbers: Numbers;
var<workgroup> x: array<array<f32, 17>, 16>;  // [image, pixel]
var<workgroup> g: array<array<f32, 17>, 16>;  // [image, unit]

@compute @workgroup_size(16, 16)
fn main(
    @builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) own: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    let unit = group.y * 16u;
    let pixel = group.x * 16u;
    var total = 0.0;
    for (var at = 0u; at < numbers.size; at += 16u) {
        if (thread < 64u) {  // 16 images x 4 words of four pixels
            let image = order[numbers.start + min(at + thread / 4u, numbers.size - 1u)];
            let four = images[image * 196u + pixel / 4u + thread % 4u];
            for (var j = 0u; j < 4u; j++) {
                x[thread / 4u][thread % 4u * 4u + j] = f32((four >> (8u * j)) & 255u) / 127.5 - 1.0;
            }
        }
        let image = at + own.y;
        let h = unit + own.x;
        let there = image < numbers.size && h < numbers.width;
        g[own.y][own.x] = select(0.0, back[min(image, numbers.size - 1u) * numbers.width + min(h, numbers.width - 1u)], there);
        workgroupBarrier();
        for (var i = 0u; i < 16u; i++) {
            total += g[i][own.y] * x[i][own.x];
        }
        workgroupBarrier();
    }
    if (unit + own.y < numbers.width) {
        let i = (unit + own.y) * 784u + pixel + own.x;
        velocity[i] = numbers.momentum * velocity[i] + total;
        weights[i] -= numbers.rate * velocity[i];
    }
}
