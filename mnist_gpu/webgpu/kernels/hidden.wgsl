// The hidden layer: relu(x W1' + b1), the batch gathered from the bytes of all images and normalized on the way. A workgroup
// makes 16 images x 16 units; for every 56 pixels it fetches 16 x 56 bytes of images and as many weights (4 bytes each).
struct Numbers { start: u32, size: u32, width: u32, step: u32, rate: f32, momentum: f32 }
@group(0) @binding(0) var<storage, read> images: array<u32>;  // [N, 196], four pixels in each
@group(0) @binding(1) var<storage, read> order: array<u32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;  // [width, 784]
@group(0) @binding(3) var<storage, read> rest: array<f32>;  // bias 1 [width], weights 2 [10, width], bias 2 [10]
@group(0) @binding(4) var<storage, read_write> hidden: array<f32>;  // [size, width]
@group(1) @binding(0) var<uniform> numbers: Numbers;
var<workgroup> x: array<array<f32, 57>, 16>;
var<workgroup> w: array<array<f32, 57>, 16>;

@compute @workgroup_size(16, 16)
fn main(
    @builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) own: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = group.y * 16u;
    let unit = group.x * 16u;
    var total = 0.0;
    for (var at = 0u; at < 784u; at += 56u) {
        for (var i = thread; i < 224u; i += 256u) {  // 16 images x 14 words of four pixels
            let image = order[numbers.start + min(row + i / 14u, numbers.size - 1u)];
            let four = images[image * 196u + at / 4u + i % 14u];
            for (var j = 0u; j < 4u; j++) {
                x[i / 14u][i % 14u * 4u + j] = f32((four >> (8u * j)) & 255u) / 127.5 - 1.0;
            }
        }
        for (var i = thread; i < 896u; i += 256u) {  // 16 units x 56 weights
            w[i / 56u][i % 56u] = weights[min(unit + i / 56u, numbers.width - 1u) * 784u + at + i % 56u];
        }
        workgroupBarrier();
        for (var i = 0u; i < 56u; i++) {
            total += x[own.y][i] * w[own.x][i];
        }
        workgroupBarrier();
    }
    let image = row + own.y;
    let h = unit + own.x;
    if (image < numbers.size && h < numbers.width) {
        hidden[image * numbers.width + h] = max(total + rest[h], 0.0);
    }
}
