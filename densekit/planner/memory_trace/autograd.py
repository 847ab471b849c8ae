"""Automatic differentiation of sizes: what torch's autograd keeps alive, in bytes, without torch.

A `SizedTensor` stands for a tensor and is counted from its creation until Python's last reference
to it is gone, as torch counts storage. Operations save for the backward pass what torch's formulas
save (its derivatives.yaml), and `backward` runs them in the order of torch's engine: the newest
first, what it saved freed after it.
"""

import heapq
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Optional

HALF, SINGLE = 2, 4
"""Bytes of an element."""
CASTS = "buffers"
"""The part that autocast's copies of weights are counted to."""


class Meter:
    """Bytes alive, by part: a snapshot at every allocation, by phase of the step."""

    def __init__(self) -> None:
        self.now: dict[str, int] = {}
        self.part = self.phase = ""
        self.snapshots: dict[str, list[dict[str, int]]] = {}

    def begin(self, phase: str, part: str) -> None:
        """From here on, snapshots belong to `phase`, and what is allocated to `part`."""
        self.phase, self.part = phase, part
        self._snap()

    def change(self, part: str, size: int) -> None:
        """Count `size` bytes more (or fewer)."""
        self.now[part] = self.now.get(part, 0) + size
        if size > 0:
            self._snap()

    def _snap(self) -> None:
        self.snapshots.setdefault(self.phase, []).append(self.now.copy())

    @property
    def peaks(self) -> dict[str, dict[str, int]]:
        """What was alive at the highest total of every phase, the first of equals."""
        return {
            phase: max(snapshots, key=lambda alive: sum(alive.values()))
            for phase, snapshots in self.snapshots.items()
        }


class Storage:
    """Memory, counted while it is referenced."""

    __slots__ = ("meter", "part", "size")

    def __init__(self, meter: Meter, size: int) -> None:
        self.meter, self.part, self.size = meter, meter.part, size
        meter.change(self.part, size)

    def move(self, part: str) -> None:
        """Count it to another part."""
        self.meter.change(self.part, -self.size)
        self.part = part
        self.meter.change(part, self.size)

    def __del__(self) -> None:
        self.meter.change(self.part, -self.size)


class SizedTensor:
    """A tensor of `numel` elements of `width` bytes; `node` is None where no gradient is wanted.

    A parameter has no storage here: its memory is counted elsewhere.
    """

    __slots__ = ("node", "numel", "storage", "width")

    def __init__(
        self, numel: int, width: int, storage: Storage | None, node: Optional["Node"] = None
    ) -> None:
        self.numel, self.width, self.storage, self.node = numel, width, storage, node

    def data(self) -> "SizedTensor":
        """The same memory without history."""
        return SizedTensor(self.numel, self.width, self.storage)


Given = list[SizedTensor]
"""The gradient that an operation of the backward pass is given: one element, which it may take out
to free it.
"""
Gradients = list[SizedTensor | None]
Backward = Callable[[Given], Gradients]


class Node:
    """One operation of the backward pass, with what it saved. Leaves come before all others."""

    __slots__ = ("backward", "order", "parents", "saved", "width")
    count = itertools.count(1)

    def __init__(
        self,
        width: int,
        parents: Sequence[Optional["Node"]],
        backward: Backward,
        saved: Sequence[SizedTensor] = (),
    ) -> None:
        self.width, self.parents, self.backward, self.saved = width, parents, backward, saved
        self.order = next(Node.count) if parents else 2**62

    def release(self) -> None:
        """Free what was saved."""
        self.saved, self.backward = (), _spent


def _spent(_: Given) -> Gradients:
    raise RuntimeError("an operation went backward twice")


class Tape:
    """Records operations. `autocast`: matrix products and attention take half, some functions fp32
    (as on CUDA).
    """

    def __init__(self, meter: Meter, *, autocast: bool) -> None:
        self.meter, self.autocast = meter, autocast
        self.recording = True
        self._casts: dict[int, tuple[SizedTensor, SizedTensor]] = {}

    def new(self, numel: int, width: int) -> SizedTensor:
        """A tensor without history."""
        return SizedTensor(numel, width, Storage(self.meter, numel * width))

    def leaf(self, x: SizedTensor, on_gradient: Callable[[SizedTensor], None]) -> SizedTensor:
        """x as something that wants a gradient and has no history."""

        def accumulate(given: Given) -> Gradients:
            on_gradient(given.pop())
            return []

        return SizedTensor(x.numel, x.width, x.storage, Node(x.width, (), accumulate))

    def operation(
        self,
        out: SizedTensor,
        inputs: Iterable[SizedTensor],
        backward: Backward,
        saved: Iterable[SizedTensor | None] = (),
    ) -> SizedTensor:
        """Give `out` a history; `backward` returns a gradient for every input that has one."""
        parents = [each.node for each in inputs]
        if self.recording and any(parent is not None for parent in parents):
            out.node = Node(
                out.width, parents, backward, [each for each in saved if each is not None]
            )
        return out

    def cast(self, x: SizedTensor, width: int) -> SizedTensor:
        """x in another type; itself where it has it."""
        if x.width == width:
            return x
        numel, own = x.numel, x.width
        return self.operation(self.new(numel, width), [x], lambda _: [self.new(numel, own)])

    def lower(self, x: SizedTensor) -> SizedTensor:
        """What autocast hands to a matrix product; casts of trained weights stay until it ends."""
        if not self.autocast or x.width == HALF:
            return x
        if x.storage is not None or x.node is None:
            return self.cast(x, HALF)
        if id(x) not in self._casts:
            lowered = self.cast(x, HALF)
            if lowered.storage is not None:
                lowered.storage.move(CASTS)
            self._casts[id(x)] = (x, lowered)
        return self._casts[id(x)][1]

    def raised(self, x: SizedTensor) -> SizedTensor:
        """What autocast hands to a function that it runs in fp32."""
        return self.cast(x, SINGLE) if self.autocast else x

    def leave_autocast(self) -> None:
        """Forget the casts of weights; what was saved for the backward pass stays."""
        self._casts.clear()

    def backward(self, root: SizedTensor, gradient: SizedTensor, *, unpacked: bool = False) -> None:
        """Run every operation behind `root`, which becomes a tensor without history.

        Gradients are cast to their input's type while an operation still holds what it saved; not
        so inside a checkpointed block (`unpacked`), which gives out what it saved as it is asked.
        """
        assert root.node is not None
        first, root.node = root.node, None
        waiting = _edges(first)
        arrived: dict[Node, SizedTensor] = {first: gradient}
        del gradient
        tie = itertools.count()  # heapq would compare operations
        ready = [(-first.order, next(tie), first)]
        while ready:
            node = heapq.heappop(ready)[2]
            given = [arrived.pop(node)]
            gradients = node.backward(given)
            if unpacked:
                node.release()
            for index, parent in enumerate(node.parents):
                value = gradients[index]
                if parent is not None and value is not None and value.width != parent.width:
                    gradients[index] = self.new(value.numel, parent.width)
                del value
            node.release()
            given.clear()
            for parent in node.parents:
                value = gradients.pop(0)
                if parent is None:
                    continue
                assert value is not None
                if parent in arrived:
                    value = self.new(value.numel, value.width)
                arrived[parent] = value
                del value
                waiting[parent] -= 1
                if not waiting[parent]:
                    heapq.heappush(ready, (-parent.order, next(tie), parent))


def _edges(root: Node) -> dict[Node, int]:
    """How many gradients every operation waits for."""
    waiting: dict[Node, int] = {root: 0}
    stack = [root]
    while stack:
        for parent in stack.pop().parents:
            if parent is None:
                continue
            if parent not in waiting:
                waiting[parent] = 0
                stack.append(parent)
            waiting[parent] += 1
    return waiting
