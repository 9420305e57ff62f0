// The gradients of the biases and of W2, their momentum and update, and the batch's mean loss: a thread a number, which adds
// over the batch. A workgroup of 64 reads 64 columns of the batch's rows.
struct Numbers { start: u32, size: u32, width: u32, step: u32, rate: f32, momentum: f32 }
@group(0) @binding(0) var<storage, read> hidden: array<f32>;  // [size, width]
@group(0) @binding(1) var<storage, read> back: array<f32>;  // [size, width]
@group(0) @binding(2) var<storage, read> back_logits: array<f32>;  // [size, 10]
@group(0) @binding(3) var<storage, read> image_losses: array<f32>;  // [size]
@group(0) @binding(4) var<storage, read_write> rest: array<f32>;  // bias 1 [width], weights 2 [10, width], bias 2 [10]
@group(0) @binding(5) var<storage, read_write> velocity: array<f32>;  // as rest
@group(0) @binding(6) var<storage, read_write> losses: array<f32>;  // one a step
@group(1) @binding(0) var<uniform> numbers: Numbers;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let i = id.x;
    let width = numbers.width;
    var total = 0.0;
    for (var b = 0u; b < numbers.size; b++) {
        if (i < width) {
            total += back[b * width + i];
        } else if (i < 11u * width) {
            total += back_logits[b * 10u + (i - width) / width] * hidden[b * width + (i - width) % width];
        } else if (i < 11u * width + 10u) {
            total += back_logits[b * 10u + i - 11u * width];
        } else {
            total += image_losses[b];
        }
    }
    if (i < 11u * width + 10u) {
        velocity[i] = numbers.momentum * velocity[i] + total;
        rest[i] -= numbers.rate * velocity[i];
    } else if (i == 11u * width + 10u) {
        losses[numbers.step] = total / f32(numbers.size);
    }
}
