"""Other libraries on the same training, where they are installed."""

from collections.abc import Callable, Iterable, Iterator

import torch

from mnist_gpu.faster.ladder import PLAIN, RUNGS
from mnist_gpu.measuring.peers import OURS, PEERS, Peer, lines_of_code
from mnist_gpu.measuring.results import Results, Skipped, Timed
from mnist_gpu.measuring.sections.ladder import fastest_rung, measure_ladder
from mnist_gpu.measuring.sections.section import ROUNDS, Section, comparisons
from mnist_gpu.measuring.timing import in_turn
from mnist_gpu.mnist import TRAIN_IMAGES

PEER_TOLERANCE = 0.15  # of the plain loop's test loss after one epoch; other orders of the images change it by a tenth


def fastest_on_this_cpu() -> str:
    """The ladder's fastest rung in float32 with one thread: a short measurement, of what has the images in memory."""
    names = [rung.name for rung in RUNGS[[rung.name for rung in RUNGS].index(PLAIN) :]]
    measured = measure_ladder(torch.device("cpu"), names=names, steps=100, rounds=5, floor=False)
    return fastest_rung({m.name: m.seconds for m in measured if isinstance(m, Timed)})


def measure_peers(
    *, names: Iterable[str] | None = None, rounds=10, progress: Callable = iter
) -> Iterator[Timed | Skipped]:
    """Other libraries on the same training (see mnist_gpu.measuring.peers): a process each, an epoch each in turn."""
    names = list(names or PEERS)
    running, first, proofs = {}, {}, {}
    try:
        for name in progress(names):
            rung = [fastest_on_this_cpu()] if name == OURS[1] else []
            running[name] = Peer(name, *rung)
            try:
                answer = running[name]()
                first[name] = answer.pop("seconds")
                proofs[name] = answer | {
                    "lines_of_code": lines_of_code(name, *rung),
                    **({"rung": rung[0]} if rung else {}),
                }
                if names[0] not in proofs:
                    raise RuntimeError(f"there is nothing to compare with, since {names[0]} failed")
                expected, found = proofs[names[0]]["test_loss"], answer["test_loss"]
                if not abs(found / expected - 1) <= PEER_TOLERANCE:
                    raise RuntimeError(f"another training: its test loss is {found:.3f}, not about {expected:.3f}")
            except RuntimeError as error:
                running.pop(name).close()
                yield Skipped("peers", name, "cpu", f"failed: {error}")
        sizes = {"batch_size": 128, "hidden": 128}
        for name, seconds in in_turn(running, rounds=rounds, warmup=0, progress=progress):
            work = {"images": TRAIN_IMAGES}
            yield Timed("peers", name, "cpu", 1, seconds, sizes, work, first[name], proofs[name])
    finally:
        for peer in running.values():
            peer.close()


def pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Every peer with the plain loop, and JAX with the fastest rung."""
    return [(OURS[0], name) for name in names] + [(name, OURS[1]) for name in names if name.startswith("JAX")]


def summary(results: Results, device: str) -> list[str]:
    return comparisons(results, device, "peers", pairs)


SECTION = Section(
    lambda device, **options: measure_peers(**options), full=ROUNDS, quick=ROUNDS, summary=summary, cpu=True
)
