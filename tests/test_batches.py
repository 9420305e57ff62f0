import hashlib
import os
import subprocess
import sys
from itertools import islice

import pytest
import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms

from mnist_gpu import data
from mnist_gpu.data import CHECKSUMS, PIPELINES, DeviceBatches, load_mnist, make_batches, normalize, textbook_dataset

TEXTBOOK_TRANSFORM = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
NAME = "t10k-images-idx3-ubyte.gz"


def same(a, b):
    """Whether two batches are equal, bit for bit, and of the same types."""
    return all(torch.equal(x, y) and x.dtype == y.dtype for x, y in zip(a, b, strict=True))


@pytest.fixture
def raw(archives, monkeypatch):
    """A folder of its own with a copy of the four archives, which the package is told to use."""
    monkeypatch.setenv("MNIST_GPU_DATA", str(archives))
    return archives / "MNIST" / "raw"


# The data set


@pytest.mark.parametrize("train", [True, False])
def test_torchvision_accepts_the_archives_and_reads_the_same_images(unpacking_root, no_network, train):
    theirs = torchvision.datasets.MNIST(unpacking_root, train, download=True, transform=TEXTBOOK_TRANSFORM)
    images, labels = load_mnist(train)
    assert torch.equal(theirs.data, images) and torch.equal(theirs.targets, labels)
    ours = textbook_dataset(images, labels, TEXTBOOK_TRANSFORM)
    assert len(ours) == len(theirs)
    assert all(torch.equal(ours[i][0], theirs[i][0]) and ours[i][1] == theirs[i][1] for i in range(0, 10_000, 97))


# Every child waits at the barrier, so that all sixteen read at the same moment. The audit hook ends the process that
# opens a file for writing in the folder, or makes, renames or removes one there.
SIXTEEN = """
import multiprocessing, os, sys
import torch
from mnist_gpu.data import data_root, load_mnist, make_batches

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
def test_sixteen_processes_start_at_once_on_a_read_only_folder_and_write_nothing(raw, tmp_path):
    for path in (*raw.iterdir(), raw):
        path.chmod(0o444 if path.is_file() else 0o555)
    try:
        command, one_thread = [sys.executable, "-c", SIXTEEN], os.environ | {"OMP_NUM_THREADS": "1"}
        printed = subprocess.check_output(command, cwd=tmp_path, env=one_thread, text=True)
        assert printed.strip() == str([0] * 16)
    finally:
        raw.chmod(0o755)  # so that the folder can be removed


# Damaged and missing archives


def test_a_damaged_archive_is_named_with_both_sums_and_never_used(raw):
    content = bytearray((raw / NAME).read_bytes())
    content[4] ^= 1  # of the time stamp in gzip's header: it unpacks to the same images
    (raw / NAME).write_bytes(content)
    with pytest.raises(ValueError) as caught:
        load_mnist(False)
    found = hashlib.sha256(content).hexdigest()
    assert all(part in str(caught.value) for part in (str(raw / NAME), CHECKSUMS[NAME], found, "git checkout"))


def test_a_missing_archive_or_folder_without_a_network_says_what_to_do(raw, monkeypatch, tmp_path, no_network):
    (raw / NAME).unlink()
    before = sorted(p.name for p in raw.iterdir())
    with pytest.raises(FileNotFoundError) as caught:
        load_mnist(False)
    assert all(part in str(caught.value) for part in (NAME, str(raw), "git checkout -- data", "MNIST_GPU_DATA"))
    assert sorted(p.name for p in raw.iterdir()) == before
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    monkeypatch.setenv("MNIST_GPU_DATA", str(tmp_path / "file"))
    with pytest.raises(FileNotFoundError, match="MNIST_GPU_DATA"):
        load_mnist(False)


def test_a_missing_archive_is_fetched_whole_or_not_at_all(raw, tmp_path, mnist_test, monkeypatch):
    monkeypatch.setattr(data, "MIRROR", f"{tmp_path.as_uri()}/")
    whole = (raw / NAME).read_bytes()
    (raw / NAME).unlink()
    (tmp_path / NAME).write_bytes(whole[:1000])
    with pytest.raises(FileNotFoundError, match="MNIST_GPU_DATA"):
        load_mnist(False)
    assert sorted(p.name for p in raw.iterdir()) == sorted(set(CHECKSUMS) - {NAME})
    (tmp_path / NAME).write_bytes(whole)
    assert same(load_mnist(False), mnist_test) and (raw / NAME).read_bytes() == whole
    assert sorted(p.name for p in raw.iterdir()) == sorted(CHECKSUMS)


# The pipelines


@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_normalize_gives_the_bits_of_totensor_and_normalize_for_every_pixel_value(device, request):
    device = request.getfixturevalue(device) if device == "gpu" else device
    images = (torch.arange(784) % 256).to(torch.uint8).view(1, 28, 28)
    theirs = TEXTBOOK_TRANSFORM(Image.fromarray(images[0].numpy())).unsqueeze(0)
    assert same((normalize(images.to(device)).cpu(),), (theirs,)) and theirs.min() == -1 and theirs.max() == 1


@pytest.fixture(scope="module")
def textbook_passes(unpacking_root):
    """Two passes over the test set by torchvision's data set and a DataLoader, shuffled with seed 3."""
    dataset = torchvision.datasets.MNIST(unpacking_root, train=False, download=True, transform=TEXTBOOK_TRANSFORM)
    generator = torch.Generator().manual_seed(3)
    orders = [torch.randperm(len(dataset), generator=generator).tolist() for _ in range(2)]
    return [list(DataLoader(dataset, batch_size=128, sampler=order)) for order in orders]


@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("options", [{}, {"pin_memory": True}, {"workers": 2}])
@pytest.mark.parametrize("kind", PIPELINES)
def test_every_pipeline_yields_the_textbooks_batches_also_after_a_broken_off_pass(
    textbook_passes, kind, options, device, request
):
    if "workers" in options and kind != "dataloader":
        return
    device = request.getfixturevalue(device) if device == "gpu" else torch.device(device)
    batches = make_batches(kind, train=False, seed=3, device=device, **options)
    for number, expected in enumerate(textbook_passes):
        for ours, theirs in islice(zip(batches, expected, strict=True), (10, None)[number]):  # one pass is broken off
            assert ours[0].device.type == ours[1].device.type == device.type
            assert same([t.cpu() for t in ours], theirs)
    assert len(batches) == len(expected) == 79


@pytest.mark.parametrize("kind", PIPELINES)
def test_the_seed_alone_decides_the_order_and_the_global_random_state_is_left_alone(kind, mnist_test):
    def labels(seed):
        return torch.cat([labels for _, labels in islice(make_batches(kind, train=False, seed=seed), 10)])

    orders = []
    for state in (1, 2):
        before = torch.manual_seed(state).get_state()
        orders.append(labels(0))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*orders) and torch.equal(labels(None), mnist_test[1][: 10 * 128])


# Bad input


@pytest.mark.parametrize(
    ("images", "labels", "named"),
    [
        (torch.zeros(4, 28, 28), torch.zeros(4, dtype=torch.int64), "torch.float32"),
        (torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), r"\[4, 1, 28, 28\]"),
        (torch.zeros(4, 28, 28, dtype=torch.uint8), torch.zeros(4), "torch.float32"),
        (torch.zeros(4, 28, 28, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), r"\[3\].*\[4\]"),
        (torch.zeros(0, 28, 28, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), "n is 0"),
    ],
)
def test_wrong_images_or_labels_are_named(images, labels, named):
    with pytest.raises(ValueError, match=named):
        DeviceBatches(images, labels)


def test_an_unknown_pipeline_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="'disk', but must be one of: dataloader, memory, device"):
        make_batches("disk")
