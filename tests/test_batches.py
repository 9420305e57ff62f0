import hashlib
import os
import shutil
import subprocess
import sys
import threading
import warnings
from http.client import IncompleteRead
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms

from mnist_gpu.data import (
    CHECKSUMS,
    PIPELINES,
    DeviceBatches,
    MemoryBatches,
    Order,
    data_root,
    load_mnist,
    make_batches,
    normalize,
    textbook_dataset,
)

TEXTBOOK_TRANSFORM = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])


def snapshot(folder):
    return {p.relative_to(folder): (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*")}


def same(a, b):
    """Whether two batches are equal, bit for bit, and of the same types."""
    return all(torch.equal(x, y) and x.dtype == y.dtype for x, y in zip(a, b, strict=True))


def subprocess_environment(**variables):
    return {**os.environ, "OMP_NUM_THREADS": "1", **variables}


# The data set


def test_the_training_set_is_mnist(mnist):
    images, labels = mnist
    assert images.shape == (60_000, 28, 28) and images.dtype == torch.uint8
    assert labels.shape == (60_000,) and labels.dtype == torch.int64
    assert labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    # The mean and standard deviation that many programs normalize MNIST with.
    assert (images / 255).mean().item() == pytest.approx(0.1307, abs=5e-5)
    assert (images / 255).std().item() == pytest.approx(0.3081, abs=5e-5)


def test_the_test_set_is_mnist(mnist_test):
    images, labels = mnist_test
    assert images.shape == (10_000, 28, 28) and images.dtype == torch.uint8
    assert labels.shape == (10_000,) and labels.dtype == torch.int64
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_the_checksums_are_those_of_torchvision():
    assert dict(torchvision.datasets.MNIST.resources) == CHECKSUMS


@pytest.mark.parametrize("train", [True, False])
def test_torchvision_reads_the_same_images_from_the_archives_without_a_network(unpacking_root, no_network, train):
    theirs = torchvision.datasets.MNIST(unpacking_root, train=train, download=True)
    images, labels = load_mnist(train)
    assert torch.equal(theirs.data, images) and torch.equal(theirs.targets, labels)


def test_the_textbook_data_set_yields_torchvisions_items(unpacking_root, no_network):
    theirs = torchvision.datasets.MNIST(unpacking_root, train=False, download=True, transform=TEXTBOOK_TRANSFORM)
    ours = textbook_dataset(*load_mnist(False), TEXTBOOK_TRANSFORM)
    assert len(ours) == len(theirs)
    for i in range(0, 10_000, 97):
        assert torch.equal(ours[i][0], theirs[i][0]) and ours[i][1] == theirs[i][1]
    plain = textbook_dataset(*load_mnist(False))[0][0]
    assert isinstance(plain, Image.Image) and plain.mode == "L"


# Every child waits at the barrier, so that all sixteen read at the same moment. The audit hook ends the process that
# opens a file for writing in the folder, or makes, renames or removes one there.
SIXTEEN = """
import multiprocessing, os, sys
import torch
from mnist_gpu.data import make_batches
from mnist_gpu.data import data_root, load_mnist

root = os.path.realpath(data_root())
writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

def watch(event, args):
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir") and isinstance(args[0], (str, os.PathLike)):
        if os.path.realpath(args[0]).startswith(root) and (event != "open" or (args[2] or 0) & writes):
            os._exit(3)

sys.addaudithook(watch)

def child(i, barrier):
    torch.set_num_threads(1)
    barrier.wait()
    labels = load_mnist(True)[1] if i % 2 else make_batches("dataloader").loader.dataset.targets
    os._exit(0 if len(labels) == 60_000 and int(labels.sum()) == 267_236 else 4)

context = multiprocessing.get_context("fork")
barrier = context.Barrier(16)
children = [context.Process(target=child, args=(i, barrier)) for i in range(16)]
for c in children: c.start()
for c in children: c.join()
print([c.exitcode for c in children])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork to start all processes at one moment")
def test_sixteen_processes_start_at_once_on_fresh_archives_and_write_nothing(archives, tmp_path):
    before = snapshot(archives)
    environment = subprocess_environment(MNIST_GPU_DATA=str(archives))
    done = subprocess.run(
        [sys.executable, "-c", SIXTEEN], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == str([0] * 16), done.stderr
    assert snapshot(archives) == before


def test_a_read_only_folder_works_and_is_left_as_it_was(archives):
    raw = archives / "MNIST" / "raw"
    for path in (*raw.iterdir(), raw):
        path.chmod(0o444 if path.is_file() else 0o555)
    before = snapshot(archives)
    try:
        assert len(load_mnist(True, archives)[0]) == 60_000
        assert len(make_batches("dataloader", train=False, root=archives)) == 79
        assert snapshot(archives) == before
    finally:
        raw.chmod(0o755)  # so that the folder can be removed


def test_the_variable_names_the_folder_and_an_argument_goes_before_it(archives, tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("MNIST_GPU_DATA", str(archives))
    assert data_root() == archives
    assert len(load_mnist(False)[0]) == 10_000
    assert data_root(tmp_path / "other") == tmp_path / "other"
    monkeypatch.setenv("MNIST_GPU_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_mnist(False)


def test_data_are_found_from_another_working_folder(tmp_path):
    code = "from mnist_gpu.data import load_mnist; print(len(load_mnist(False)[0]))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=subprocess_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "10000", done.stderr
    assert not list(tmp_path.iterdir())


# Damaged and missing archives

NAME = "t10k-images-idx3-ubyte.gz"


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1000])


def alter(path):
    content = bytearray(path.read_bytes())
    content[4] ^= 1  # of the time stamp in gzip's header: it unpacks to the same images
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, alter])
def test_a_damaged_archive_is_named_with_both_sums_and_never_used(archives, damage):
    path = archives / "MNIST" / "raw" / NAME
    damage(path)
    with pytest.raises(ValueError) as caught:
        load_mnist(False, archives)
    found = hashlib.md5(path.read_bytes()).hexdigest()
    for part in (str(path), CHECKSUMS[NAME], found, "git checkout"):
        assert part in str(caught.value)


def test_a_missing_archive_without_a_network_says_what_to_do(archives, no_network):
    raw = archives / "MNIST" / "raw"
    (raw / NAME).unlink()
    before = snapshot(archives)
    with pytest.raises(FileNotFoundError) as caught:
        load_mnist(False, archives)
    for part in (NAME, str(raw), "git checkout -- data", "MNIST_GPU_DATA"):
        assert part in str(caught.value)
    assert {p: size for p, (size, _) in snapshot(raw).items()} == {
        p.relative_to("MNIST/raw"): size for p, (size, _) in before.items() if p.name.endswith(".gz")
    }


def test_a_missing_folder_that_cannot_be_made_says_what_to_do(tmp_path, no_network):
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="MNIST_GPU_DATA"):
        load_mnist(False, tmp_path / "file")


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A folder that a server on this machine offers in place of torchvision's mirrors."""
    folder = tmp_path / "mirror"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        yield folder
        server.shutdown()


def test_missing_archives_are_fetched_whole_with_nothing_left_over(tmp_path, mirror, mnist_test):
    for name in CHECKSUMS:
        shutil.copyfile(data_root() / "MNIST" / "raw" / name, mirror / name)
    images, labels = load_mnist(False, tmp_path / "new")
    assert same((images, labels), mnist_test)
    raw = tmp_path / "new" / "MNIST" / "raw"
    assert sorted(p.name for p in raw.iterdir()) == sorted(n for n in CHECKSUMS if n.startswith("t10k"))
    assert (raw / NAME).read_bytes() == (mirror / NAME).read_bytes()


def test_the_second_mirror_serves_where_the_first_has_nothing(tmp_path, mirror, monkeypatch):
    for name in CHECKSUMS:
        shutil.copyfile(data_root() / "MNIST" / "raw" / name, mirror / name)
    there = torchvision.datasets.MNIST.mirrors[0]
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [there + "nothing/", there])
    assert len(load_mnist(False, tmp_path / "new")[0]) == 10_000


def test_a_mirror_with_a_wrong_file_is_an_error_and_leaves_nothing(archives, mirror):
    raw = archives / "MNIST" / "raw"
    (raw / NAME).unlink()
    (mirror / NAME).write_text("<html>please log in to this network</html>", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="corrupted"):
        load_mnist(False, archives)
    assert sorted(p.name for p in raw.iterdir()) == sorted(set(CHECKSUMS) - {NAME})


@pytest.mark.parametrize("error", [IncompleteRead(b""), ConnectionResetError("reset"), RuntimeError("corrupted")])
def test_a_download_that_breaks_off_says_what_to_do_and_leaves_nothing(archives, monkeypatch, error):
    def break_off(url, root, filename, md5):
        (Path(root) / filename).write_bytes(b"half a file")
        raise error

    raw = archives / "MNIST" / "raw"
    (raw / NAME).unlink()
    monkeypatch.setattr(torchvision.datasets.utils, "download_url", break_off)
    with pytest.raises(FileNotFoundError, match="MNIST_GPU_DATA"):
        load_mnist(False, archives)
    assert sorted(p.name for p in raw.iterdir()) == sorted(set(CHECKSUMS) - {NAME})


# The pipelines


def test_normalize_gives_the_bits_of_totensor_and_normalize_for_every_pixel_value():
    images = (torch.arange(784) % 256).to(torch.uint8).view(1, 28, 28)
    theirs = TEXTBOOK_TRANSFORM(Image.fromarray(images[0].numpy())).unsqueeze(0)
    assert same((normalize(images),), (theirs,))
    assert normalize(images).min() == -1 and normalize(images).max() == 1


@pytest.fixture(scope="module")
def textbook_passes(unpacking_root):
    """Two passes over the test set by torchvision's data set and a DataLoader, shuffled with seed 3."""
    dataset = torchvision.datasets.MNIST(unpacking_root, train=False, download=True, transform=TEXTBOOK_TRANSFORM)
    generator = torch.Generator().manual_seed(3)
    passes = []
    for _ in range(2):
        order = torch.randperm(len(dataset), generator=generator).tolist()
        passes.append(list(DataLoader(dataset, batch_size=128, sampler=order)))
    return passes


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("dataloader", {}),
        ("dataloader", {"workers": 2}),
        ("memory", {}),
        ("memory", {"pin_memory": True}),
        ("device", {}),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, dict) else v,
)
def test_every_pipeline_yields_the_textbooks_batches_in_two_passes(textbook_passes, kind, options):
    batches = make_batches(kind, train=False, seed=3, **options)
    for expected in textbook_passes:
        count = 0
        for ours, theirs in zip(batches, expected, strict=True):
            assert same(ours, theirs)
            count += 1
        assert count == len(batches) == 79


def test_memory_and_device_yield_equal_batches_in_two_passes_over_the_training_set(mnist):
    memory, device = MemoryBatches(*mnist), DeviceBatches(*mnist)
    first = None
    for _ in range(2):
        sizes = []
        for a, b in zip(memory, device, strict=True):
            assert same(a, b)
            sizes.append(len(a[1]))
        assert sizes == [128] * 468 + [96] and len(memory) == len(device) == 469
        assert first is None or not torch.equal(first, a[1])  # another order in the second pass
        first = a[1]


def test_the_dataloader_equals_device_on_the_training_set_also_after_a_broken_off_pass():
    loader, device = make_batches("dataloader"), make_batches("device")
    assert len(loader) == len(device) == 469
    for _ in range(2):
        for a, b in islice(zip(loader, device, strict=True), 25):
            assert same(a, b)


def test_batches_have_the_promised_shapes_and_types(mnist):
    images, labels = next(iter(DeviceBatches(*mnist)))
    assert images.shape == (128, 1, 28, 28) and images.dtype == torch.float32
    assert labels.shape == (128,) and labels.dtype == torch.int64
    assert images.min() == -1 and images.max() == 1


def test_a_pass_holds_every_image_once():
    seen = [i for batch in Order(1000, 128) for i in batch]
    assert sorted(seen) == list(range(1000)) and seen != sorted(seen)


def test_different_seeds_give_different_orders_and_the_same_seed_the_same():
    assert list(Order(1000, 128, seed=0)) == list(Order(1000, 128, seed=0))
    assert list(Order(1000, 128, seed=0)) != list(Order(1000, 128, seed=1))


@pytest.mark.parametrize("kind", PIPELINES)
def test_no_seed_keeps_the_stored_order(kind, mnist_test):
    labels = torch.cat([labels for _, labels in islice(make_batches(kind, train=False, seed=None), 10)])
    assert torch.equal(labels, mnist_test[1][: 10 * 128])


@pytest.mark.parametrize("kind", PIPELINES)
def test_the_global_random_state_neither_matters_nor_changes(kind):
    orders = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        orders.append(torch.cat([labels for _, labels in islice(make_batches(kind, train=False), 10)]))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*orders)


# Bad input


@pytest.mark.parametrize("pipeline", PIPELINES.values())
@pytest.mark.parametrize(
    ("images", "labels", "named"),
    [
        (torch.zeros(4, 28, 28), torch.zeros(4, dtype=torch.int64), "torch.float32"),
        (torch.zeros(4, 28, 27, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), r"\[4, 28, 27\]"),
        (torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), r"\[4, 1, 28, 28\]"),
        (torch.zeros(4, 28, 28, dtype=torch.uint8), torch.zeros(4), "torch.float32"),
        (torch.zeros(4, 28, 28, dtype=torch.uint8), torch.zeros(4, 10, dtype=torch.int64), r"\[4, 10\]"),
        (torch.zeros(4, 28, 28, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), "4 images but 3 labels"),
        (torch.zeros(0, 28, 28, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), "n is 0"),
    ],
)
def test_wrong_images_or_labels_are_named(pipeline, images, labels, named):
    with pytest.raises(ValueError, match=named):
        pipeline(images, labels)


@pytest.mark.parametrize("kind", PIPELINES)
@pytest.mark.parametrize("batch_size", [0, -1, 12.5, True])
def test_a_bad_batch_size_is_named(kind, batch_size):
    with pytest.raises(ValueError, match=f"batch_size is {batch_size!r}"):
        make_batches(kind, train=False, batch_size=batch_size)


@pytest.mark.parametrize("workers", [-1, 1.5])
def test_a_bad_number_of_workers_is_named(workers):
    with pytest.raises(ValueError, match=f"workers is {workers}"):
        make_batches("dataloader", train=False, workers=workers)


def test_more_workers_than_usable_cpus_are_no_warning(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        DataLoader([1, 2], num_workers=2)
        assert ["This DataLoader will create 2 worker processes" in str(w.message) for w in caught] == [True]
        passes = make_batches("dataloader", train=False, workers=2)
        for _ in range(2):
            next(iter(passes))
    assert len(caught) == 1


def test_an_unknown_pipeline_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="'disk', but must be one of: dataloader, memory, device"):
        make_batches("disk")


# On a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("pin_memory", [False, True])
def test_memory_batches_on_the_gpu_equal_those_on_the_cpu(gpu, mnist, pin_memory):
    there, here = MemoryBatches(*mnist, device=gpu, pin_memory=pin_memory), MemoryBatches(*mnist)
    for _ in range(2):
        for a, b in zip(there, here, strict=True):
            assert a[0].device.type == a[1].device.type == gpu.type
            assert same([t.cpu() for t in a], b)


@pytest.mark.gpu
def test_device_batches_on_the_gpu_equal_those_on_the_cpu(gpu, mnist):
    there, here = DeviceBatches(*mnist, device=gpu), DeviceBatches(*mnist)
    for _ in range(2):
        for a, b in zip(there, here, strict=True):
            assert a[0].device.type == a[1].device.type == gpu.type
            assert same([t.cpu() for t in a], b)


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"pin_memory": True}, {"workers": 2, "pin_memory": True}])
def test_the_dataloader_on_the_gpu_equals_the_one_on_the_cpu(gpu, options):
    there, here = make_batches("dataloader", device=gpu, **options), make_batches("memory")
    for _ in range(2):
        for a, b in islice(zip(there, here, strict=True), 25):
            assert a[0].device.type == a[1].device.type == gpu.type
            assert same([t.cpu() for t in a], b)


@pytest.mark.gpu
def test_normalize_on_the_gpu_gives_the_cpus_bits_for_every_pixel_value(gpu):
    images = (torch.arange(784) % 256).to(torch.uint8).view(1, 28, 28)
    assert torch.equal(normalize(images.to(gpu)).cpu(), normalize(images))
