// The output layer of one image a workgroup: logits, softmax, its loss, and the gradients of logits and hidden units. It
// reads the image's row of `hidden` and all of W2 twice, and writes a row of each gradient.
struct Numbers { start: u32, size: u32, width: u32, step: u32, rate: f32, momentum: f32 }
@group(0) @binding(0) var<storage, read> labels: array<u32>;
@group(0) @binding(1) var<storage, read> order: array<u32>;
@group(0) @binding(2) var<storage, read> rest: array<f32>;  // bias 1 [width], weights 2 [10, width], bias 2 [10]
@group(0) @binding(3) var<storage, read> hidden: array<f32>;  // [size, width]
@group(0) @binding(4) var<storage, read_write> back: array<f32>;  // gradient of the hidden layer's sums [size, width]
@group(0) @binding(5) var<storage, read_write> back_logits: array<f32>;  // gradient of the logits [size, 10]
@group(0) @binding(6) var<storage, read_write> image_losses: array<f32>;  // [size]
@group(1) @binding(0) var<uniform> numbers: Numbers;
var<workgroup> part: array<array<f32, 64>, 10>;
var<workgroup> gradient: array<f32, 10>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let width = numbers.width;
    let row = group.x * width;
    for (var c = 0u; c < 10u; c++) {
        var total = 0.0;
        for (var h = thread; h < width; h += 64u) {
            total += hidden[row + h] * rest[width + c * width + h];
        }
        part[c][thread] = total;
    }
    for (var half = 32u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (thread < half) {
            for (var c = 0u; c < 10u; c++) {
                part[c][thread] += part[c][thread + half];
            }
        }
    }
    workgroupBarrier();
    if (thread == 0u) {
        var logits: array<f32, 10>;
        var largest = -3.4e38;
        for (var c = 0u; c < 10u; c++) {
            logits[c] = part[c][0] + rest[11u * width + c];
            largest = max(largest, logits[c]);
        }
        var sum = 0.0;
        for (var c = 0u; c < 10u; c++) {
            sum += exp(logits[c] - largest);
        }
        let label = labels[order[numbers.start + group.x]];
        image_losses[group.x] = log(sum) + largest - logits[label];
        for (var c = 0u; c < 10u; c++) {
            gradient[c] = (exp(logits[c] - largest) / sum - select(0.0, 1.0, c == label)) / f32(numbers.size);
            back_logits[group.x * 10u + c] = gradient[c];
        }
    }
    workgroupBarrier();
    for (var h = thread; h < width; h += 64u) {
        var total = 0.0;
        for (var c = 0u; c < 10u; c++) {
            total += gradient[c] * rest[width + c * width + h];
        }
        back[row + h] = select(0.0, total, hidden[row + h] > 0.0);
    }
}
