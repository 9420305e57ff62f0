// C = A B in tiles. A workgroup of 16 x 16 threads makes 64 x 64 numbers of C, each thread 4 x 4. It fetches 64 x 16 of A
// and 16 x 64 of B into its own memory, 8 KiB, uses each number 64 times, and goes on to the next 16 of K.
struct Numbers { m: u32, n: u32, k: u32 }
@group(0) @binding(0) var<storage, read> a: array<f32>;  // [m, k]
@group(0) @binding(1) var<storage, read> b: array<f32>;  // [k, n]
@group(0) @binding(2) var<storage, read_write> c: array<f32>;  // [m, n]
@group(1) @binding(0) var<uniform> numbers: Numbers;
var<workgroup> tile_a: array<array<f32, 65>, 16>;  // [k, row]; 65, so that a column lies in 16 banks, not in one
var<workgroup> tile_b: array<array<f32, 64>, 16>;  // [k, column]

@compute @workgroup_size(16, 16)
fn main(
    @builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) own: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    let m = numbers.m;
    let n = numbers.n;
    let k = numbers.k;
    let row = group.y * 64u;
    let column = group.x * 64u;
    var total: array<array<f32, 4>, 4>;
    for (var at = 0u; at < k; at += 16u) {
        for (var i = thread; i < 1024u; i += 256u) {  // what lies outside counts as 0
            let ar = row + i / 16u;
            let ak = at + i % 16u;
            tile_a[i % 16u][i / 16u] = select(0.0, a[min(ar * k + ak, m * k - 1u)], ar < m && ak < k);
            let bk = at + i / 64u;
            let bc = column + i % 64u;
            tile_b[i / 64u][i % 64u] = select(0.0, b[min(bk * n + bc, k * n - 1u)], bk < k && bc < n);
        }
        workgroupBarrier();
        for (var i = 0u; i < 16u; i++) {
            for (var r = 0u; r < 4u; r++) {
                let left = tile_a[i][own.y * 4u + r];
                for (var s = 0u; s < 4u; s++) {
                    total[r][s] += left * tile_b[i][own.x + 16u * s];
                }
            }
        }
        workgroupBarrier();
    }
    for (var r = 0u; r < 4u; r++) {
        for (var s = 0u; s < 4u; s++) {
            let y = row + own.y * 4u + r;
            let x = column + own.x + 16u * s;
            if (y < m && x < n) {
                c[y * n + x] = total[r][s];
            }
        }
    }
}
