// C = A B, each thread one number of C. A workgroup makes T x T of them. It fetches T x T numbers of A and of B into its
// own memory, uses each T times, and goes on to the next T of k: 8 T k bytes in all, where the naive one asks for 8 T T k.
struct Numbers { m: u32, n: u32, k: u32 }
@group(0) @binding(0) var<storage, read> a: array<f32>;  // [m, k]
@group(0) @binding(1) var<storage, read> b: array<f32>;  // [k, n]
@group(0) @binding(2) var<storage, read_write> c: array<f32>;  // [m, n]
@group(1) @binding(0) var<uniform> numbers: Numbers;
const T = 16u;
var<workgroup> tile_a: array<array<f32, T>, T>;
var<workgroup> tile_b: array<array<f32, T>, T>;

@compute @workgroup_size(T, T)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_id) own: vec3u) {
    let m = numbers.m;
    let n = numbers.n;
    let k = numbers.k;
    var total = 0.0;
    for (var at = 0u; at < k; at += T) {
        let ak = at + own.x;  // each thread fetches one number of A and one of B; what lies outside counts as 0
        let bk = at + own.y;
        tile_a[own.y][own.x] = select(0.0, a[min(id.y * k + ak, m * k - 1u)], id.y < m && ak < k);
        tile_b[own.y][own.x] = select(0.0, b[min(bk * n + id.x, k * n - 1u)], bk < k && id.x < n);
        workgroupBarrier();  // until all have fetched
        for (var i = 0u; i < T; i++) {
            total += tile_a[own.y][i] * tile_b[i][own.x];
        }
        workgroupBarrier();  // until all have used it
    }
    if (id.y < m && id.x < n) {
        c[id.y * n + id.x] = total;
    }
}
