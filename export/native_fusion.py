"""Operations of a native program take up what follows them, so that every image is written once and read seldom.

A convolution ends with: bias, activation, factor, pooling, gate, residuals. Whatever comes in that order joins it.
"""

from collections import Counter

from minet_sdk.export.native_program import MOST_RESIDUALS, PANEL, Activation, Code, Kind, Operation, Tensor

MOST_SCALED_OUTPUTS = 64
"""Of a convolution that scales its input: with more, several tasks would write the same sum."""

_POOLING = (Code.CONVOLUTION3, Code.CONVOLUTION1)
_HOSTS = (Code.CONVOLUTION3, Code.CONVOLUTION1, Code.DIRECT, Code.POINTWISE)


def fuse(operations: list[Operation], target: Tensor, restored: Tensor) -> list[Operation]:
    """The same program with fewer operations.

    Args:
        operations: in order; they are changed.
        target: input image; what does not depend on it must not come to do so.
        restored: output image.
    """
    operations = _without_unused(operations, restored)
    for operation in list(operations):
        if operation.code is Code.SHUFFLE:
            _fuse_shuffle(operation, operations, restored)
    for operation in list(operations):
        if operation.code is Code.POOL:
            _fuse_pool(operation, operations)
    for operation in list(operations):
        if operation.code is Code.POINTWISE:
            _fuse_pointwise(operation, operations, target, restored)
    for operation in list(operations):
        if operation.code is Code.POINTWISE:
            _fuse_scaling(operation, operations, restored)
    return operations


def _without_unused(operations: list[Operation], restored: Tensor) -> list[Operation]:
    needed, kept = {restored}, list[Operation]()
    for operation in reversed(operations):
        if needed.intersection(operation.makes()):
            needed.update(operation.uses())
            kept.append(operation)
    return kept[::-1]


def _maker(tensor: Tensor, operations: list[Operation]) -> Operation | None:
    return next((operation for operation in operations if operation.output is tensor), None)


def _uses(tensor: Tensor, operations: list[Operation], restored: Tensor) -> int:
    counts = Counter(used for operation in operations for used in operation.uses())
    return counts[tensor] + (tensor is restored)


def _fuse_shuffle(shuffle: Operation, operations: list[Operation], restored: Tensor) -> None:
    """A convolution may write its pixels where a shuffle would put them."""
    image = shuffle.inputs[0]
    host = _maker(image, operations)
    if host is None or host.code not in (Code.CONVOLUTION3, Code.DIRECT) or _uses(image, operations, restored) != 1:
        return
    if host.residuals or host.shuffle != 1:
        return
    if host.code is Code.CONVOLUTION3 and shuffle.output.channels % PANEL:
        return
    host.shuffle, host.output = shuffle.kernel, shuffle.output
    operations.remove(shuffle)


def _fuse_pool(pool: Operation, operations: list[Operation]) -> None:
    """A convolution may sum what it writes."""
    host = _maker(pool.inputs[0], operations)
    if host is None or host.code not in _POOLING or host.shuffle != 1 or host.residuals or host.pooled is not None:
        return
    host.pooled = pool.output
    operations.remove(pool)


def _fuse_pointwise(operation: Operation, operations: list[Operation], target: Tensor, restored: Tensor) -> None:
    """Join an operation to the one that makes its input, the latest that can take it."""
    of_target = _of_target(operations, target)
    best: tuple[int, Operation, Operation] | None = None
    for form in _forms(operation):
        host = _maker(form.inputs[0], operations)
        if host is None or _uses(host.output, operations, restored) != 1 or not _can_host(host, form):
            continue
        if (host.output in of_target) != (operation.output in of_target):
            continue
        index = operations.index(host)
        if best is None or index > best[0]:
            best = index, host, form
    if best is None:
        return
    _, host, form = best
    if form.activation is not Activation.NONE:
        host.activation = form.activation
    host.alpha *= form.alpha
    host.gate = form.gate if form.gate is not None else host.gate
    host.residuals = [*host.residuals, *form.residuals]
    host.output = operation.output
    # Its new inputs may be younger than it was.
    operations.remove(host)
    operations[operations.index(operation)] = host


def _fuse_scaling(operation: Operation, operations: list[Operation], restored: Tensor) -> None:
    """The convolution after channel attention scales and adds while it reads, and writes the sum for the next skip."""
    plain = operation.activation is Activation.NONE and operation.alpha == 1.0 and len(operation.residuals) == 1
    if not plain or operation.gate is None or operation.gate.kind is not Kind.VECTOR:
        return
    image = operation.output
    user = next((other for other in operations if image in other.uses()), None)
    if user is None or user.code is not Code.CONVOLUTION3 or user.inputs != [image] or user.uses().count(image) != 1:
        return
    if user.outputs > MOST_SCALED_OUTPUTS or user.mixing is not None or user.scale is not None:
        return
    user.sum = image if _uses(image, operations, restored) > 1 else None
    user.inputs, user.scale, user.added = list(operation.inputs), operation.gate, operation.residuals[0]
    operations.remove(operation)


def _forms(operation: Operation) -> list[Operation]:
    """The operation with each of its inputs as the one that it continues."""
    forms = [operation]
    if operation.activation is Activation.NONE and operation.alpha == 1.0:
        image = operation.inputs[0]
        if operation.gate is None:
            for index, other in enumerate(operation.residuals):
                rest = [tensor for i, tensor in enumerate(operation.residuals) if i != index]
                forms.append(Operation(Code.POINTWISE, [other], operation.output, residuals=[*rest, image]))
        elif operation.gate.kind == image.kind:
            forms.append(
                Operation(Code.POINTWISE, [operation.gate], operation.output, gate=image, residuals=operation.residuals)
            )
    return forms


def _can_host(host: Operation, form: Operation) -> bool:
    """Whether the steps of ``form`` come after those that ``host`` has already."""
    if host.code not in _HOSTS or host.pooled is not None or host.shuffle != 1:
        return False
    if len(host.residuals) + len(form.residuals) > MOST_RESIDUALS:
        return False
    only_adds = form.activation is Activation.NONE and form.alpha == 1.0 and form.gate is None
    if host.residuals or host.gate is not None:
        return only_adds
    untouched = host.activation is Activation.NONE and host.alpha == 1.0
    return untouched or form.activation is Activation.NONE


def _of_target(operations: list[Operation], target: Tensor) -> set[Tensor]:
    found = {target}
    for operation in operations:
        if found.intersection(operation.uses()):
            found.update(operation.makes())
    return found
