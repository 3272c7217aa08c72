"""Nodes of a graph become operations of the native engine's program, one by one, before anything is fused."""

from collections.abc import Callable
from typing import Any

import onnx

from minet_sdk.errors import ExportError
from minet_sdk.export.native_nodes import Mixed, NodeReader, Padded, Parts, Stack, Value
from minet_sdk.export.native_program import MODES, PANEL, Activation, Code, Kind, Operation, Tensor, Weight
from minet_sdk.export.onnx_names import DOMAIN, OPERATOR


class Translator(NodeReader):
    """Walks the nodes in order; what it cannot translate it names."""

    def __init__(self, graph: onnx.GraphProto, weights: bytes, target: Tensor, reference: Tensor | None) -> None:
        super().__init__(graph, weights, {"target": target, **({} if reference is None else {"reference": reference})})
        self.operations: list[Operation] = []
        self._of_target: set[Tensor] = {target}
        self._translate: dict[tuple[str, str], Callable[[], Value]] = {
            ("", "Conv"): self._convolution,
            ("", "Relu"): lambda: self._pointwise(self._image(0), activation=Activation.RELU),
            ("", "Sigmoid"): self._sigmoid,
            ("", "Add"): self._add,
            ("", "Mul"): self._multiply,
            ("", "ReduceMean"): self._pool,
            ("", "GlobalAveragePool"): self._pool,
            ("", "DepthToSpace"): self._depth_to_space,
            ("", "SpaceToDepth"): self._space_to_depth,
            ("", "Pad"): self._pad,
            ("", "Concat"): self._concatenate,
            ("", "Unsqueeze"): self._unsqueeze,
            ("", "Squeeze"): self._squeeze,
            ("", "Slice"): self._slice,
            ("", "Identity"): lambda: self._value(0),
            ("", "Cast"): self._cast,
            (DOMAIN, OPERATOR): self._integrate,
        }

    def run(self) -> Tensor:
        """Translate every node; the restored image."""
        for node in self._graph.node:
            self._node = node
            if node.op_type == "Constant" and not node.domain:
                self._constants[node.output[0]] = self._constant()
                continue
            translate = self._translate.get((node.domain, node.op_type))
            if translate is None:
                self._refuse("no such operation")
            self._values[node.output[0]] = translate()
        restored = self._values.get(self._graph.output[0].name)
        if not isinstance(restored, tuple) or len(restored) != 1:
            raise ExportError("the native engine wants the restored image as the result of an operation of its own")
        return restored[0]

    def _depends_on_target(self, tensor: Tensor) -> bool:
        return tensor in self._of_target

    def _emit(self, code: Code, inputs: list[Tensor], output: Tensor, **fields: Any) -> Tensor:
        operation = Operation(code, inputs, output, name=self._node.name or self._node.output[0], **fields)
        self.operations.append(operation)
        if any(self._depends_on_target(tensor) for tensor in operation.uses()):
            self._of_target.update(operation.makes())
        return output

    def _pointwise(self, image: Tensor, **fields: Any) -> Parts:
        if image.kind is not Kind.IMAGE:
            # Vectors are the results of dense layers, which take up an activation but nothing else.
            return (self._activate_dense(image, fields),)
        return (self._emit(Code.POINTWISE, [image], Tensor(Kind.IMAGE, image.channels, image.multiple), **fields),)

    def _activate_dense(self, vector: Tensor, fields: dict[str, Any]) -> Tensor:
        maker = next((operation for operation in self.operations if operation.output is vector), None)
        if maker is None or maker.code is not Code.DENSE or maker.activation is not Activation.NONE:
            self._refuse("it works on a vector that no 1x1 convolution made")
        if set(fields) != {"activation"}:
            self._refuse("it works on a vector")
        maker.activation = fields["activation"]
        return vector

    def _sigmoid(self) -> Parts:
        return self._pointwise(self._image(0), activation=Activation.SIGMOID)

    def _add(self) -> Parts:
        a, b = self._image(0), self._image(1)
        if a.kind is not Kind.IMAGE or _shape(a) != _shape(b):
            self._refuse("it adds different shapes")
        return self._pointwise(a, residuals=[b])

    def _multiply(self) -> Parts:
        for factor, other in ((0, 1), (1, 0)):
            array = self._array(factor)
            if array is not None:
                if array.size != 1:
                    self._refuse("it multiplies by a constant that is no single number")
                return self._pointwise(self._image(other), alpha=float(array.ravel()[0]))
        a, b = self._image(0), self._image(1)
        if a.kind is Kind.VECTOR:
            a, b = b, a
        same = _shape(a) == _shape(b) or (b.kind is Kind.VECTOR and a.channels == b.channels)
        if a.kind is not Kind.IMAGE or not same:
            self._refuse("it multiplies different shapes")
        return self._pointwise(a, gate=b)

    def _pool(self) -> Parts:
        image, attributes = self._image(0), self._attributes()
        if self._node.op_type == "ReduceMean":
            axes = attributes["axes"] if "axes" in attributes else self._numbers(1)
            if sorted(axis % 4 for axis in axes) != [2, 3] or not attributes.get("keepdims", 1):
                self._refuse("it averages over something else than rows and columns, or drops their axes")
        return (self._emit(Code.POOL, [image], Tensor(Kind.VECTOR, image.channels)),)

    def _depth_to_space(self) -> Parts:
        image, attributes = self._image(0), self._attributes()
        factor = int(attributes["blocksize"])
        # The modes order channels differently, which one channel's phases do not notice.
        ordered = attributes.get("mode", b"DCR") == b"CRD" or image.channels == factor**2
        if not ordered or image.channels % factor**2:
            self._refuse("only mode CRD is known, PyTorch's pixel shuffle")
        output = Tensor(Kind.IMAGE, image.channels // factor**2, image.multiple * factor)
        return (self._emit(Code.SHUFFLE, [image], output, kernel=factor),)

    def _space_to_depth(self) -> Parts:
        image, factor = self._image(0), int(self._attributes()["blocksize"])
        if image.channels != 1:
            self._refuse("only an image of one channel can be folded: ONNX and PyTorch order more of them differently")
        if image.multiple % factor:
            self._refuse("its result would be smaller than the target")
        output = Tensor(Kind.IMAGE, image.channels * factor**2, image.multiple // factor)
        return (self._emit(Code.UNSHUFFLE, [image], output, kernel=factor),)

    def _pad(self) -> Padded:
        pads = self._numbers(1)
        symmetric = len(pads) == 8 and pads[2] == pads[3] and pads[6] == pads[7]
        if self._attributes().get("mode", b"constant") != b"edge" or not symmetric or any(pads[:2] + pads[4:6]):
            self._refuse("only the edge can be repeated, alike for rows and columns")
        return Padded(self._image(0), pads[2], pads[6])

    def _concatenate(self) -> Value:
        values = [self._value(index) for index in range(len(self._node.input))]
        if self._attributes()["axis"] != 1:
            self._refuse("only axis 1 can be joined")
        stacks = [value for value in values if isinstance(value, Stack)]
        if len(stacks) == len(values):
            return Stack(tuple(image for stack in stacks for image in stack.images))
        parts = tuple(tensor for index in range(len(values)) for tensor in self._parts(index))
        if len({(tensor.kind, tensor.multiple) for tensor in parts}) != 1 or parts[0].kind is not Kind.IMAGE:
            self._refuse("it joins images of different size")
        return parts

    def _unsqueeze(self) -> Value:
        if self._numbers(1) != [1]:
            self._refuse("only axis 1 can be added")
        return Stack((self._parts(0),))

    def _squeeze(self) -> Value:
        value = self._value(0)
        if not isinstance(value, Stack) or len(value.images) != 1 or self._numbers(1) != [1]:
            self._refuse("only a stack of one image can be taken apart")
        return value.images[0]

    def _slice(self) -> Value:
        value = self._value(0)
        settings = [self._numbers(index) for index in range(1, len(self._node.input))]
        start, end, axis, *step = (numbers[0] for numbers in settings if len(numbers) == 1)
        if not isinstance(value, Stack) or len(settings) < 3 or axis != 1 or any(size != 1 for size in step):
            self._refuse("only images of a stack can be taken out")
        return Stack(value.images[start:end])

    def _cast(self) -> Value:
        if self._attributes()["to"] != onnx.TensorProto.FLOAT:
            self._refuse("only float32 is known")
        return self._value(0)

    def _integrate(self) -> Mixed:
        parts, attributes = self._parts(0), self._attributes()
        stages, mode = int(attributes["stages"]), attributes["mode"].decode()
        if len(parts) != stages or len({_shape(part) for part in parts}) != 1 or parts[0].channels % PANEL:
            self._refuse(
                f"it weighs {stages} stages, expected as many images of one shape, channels in multiples of 16"
            )
        if mode not in MODES:
            self._refuse(f"mode {mode} is unknown")
        # The products of the reference's stages with each other are known before there is a target.
        leading = next((i for i, part in enumerate(parts) if self._depends_on_target(part)), stages)
        known = None
        if 0 < leading < stages:
            known = self._emit(Code.GRAM, list(parts[:leading]), Tensor(Kind.MATRIX, leading))
        gram = self._emit(Code.GRAM, list(parts), Tensor(Kind.MATRIX, stages), known=known)
        settings = {"mode": mode, "temperature": float(attributes["temperature"]), "gain": float(attributes["gain"])}
        return Mixed(parts, self._emit(Code.AFFINITY, [gram], Tensor(Kind.MATRIX, stages), **settings))

    def _convolution(self) -> Parts:
        value, attributes, weight = self._value(0), self._attributes(), self._weight(1)
        outputs, inputs, kernel = weight.dims[0], weight.dims[1], weight.dims[2]
        pads = list(attributes.get("pads", [0, 0, 0, 0]))
        plain = (
            len(weight.dims) == 4
            and weight.dims[3] == kernel
            and attributes.get("group", 1) == 1
            and set(attributes.get("strides", [1])) == {1}
            and set(attributes.get("dilations", [1])) == {1}
            and attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
        )
        if not plain or pads[0] != pads[1] or pads[2] != pads[3]:
            self._refuse("only square kernels with stride, dilation and group 1 are known")
        before, after = pads[0], pads[2]
        fields: dict[str, Any] = {"kernel": kernel, "outputs": outputs}
        bias = None if len(self._node.input) < 3 or not self._node.input[2] else self._offset(self._weight(2))
        parts: Parts
        if isinstance(value, Padded):
            if before or after or value.image.channels != 1:
                self._refuse("a repeated edge is known for one channel only, without more padding")
            before, after, parts = value.before, value.after, (value.image,)
            fields["repeat_edge"] = True
        elif isinstance(value, Mixed):
            parts, fields["mixing"] = value.stages, value.matrix
            if kernel != 3 or before != 1:
                self._refuse("the integration must go into a 3x3 convolution")
        elif isinstance(value, Stack):
            self._refuse("its input is a stack of images")
        else:
            parts = value
        if before + after != kernel - 1:
            self._refuse(f"padding {pads} changes the image's size")
        if sum(part.channels for part in parts) != inputs:
            self._refuse(f"its weight takes {inputs} channels, not {sum(part.channels for part in parts)}")
        offset = self._offset(weight)
        if parts[0].kind is Kind.VECTOR:
            if kernel != 1:
                self._refuse("a vector takes a 1x1 convolution")
            fields = {"outputs": outputs, "weight": Weight(offset, inputs), "bias": bias}
            return (self._emit(Code.DENSE, list(parts), Tensor(Kind.VECTOR, outputs), **fields),)
        return (self._convolve(parts, Weight(offset, inputs), bias, {**fields, "before": before}),)

    def _convolve(self, parts: Parts, weight: Weight, bias: int | None, fields: dict[str, Any]) -> Tensor:
        """Convolve parts of an image: what depends on the reference alone apart from the rest, and before it."""
        outputs, kernel = fields["outputs"], fields["kernel"]
        in_panels = all(size % PANEL == 0 for size in (outputs, *(part.channels for part in parts)))
        code = {1: Code.CONVOLUTION1, 3: Code.CONVOLUTION3}.get(kernel, Code.DIRECT) if in_panels else Code.DIRECT
        if fields["before"] != (kernel - 1) // 2 or "repeat_edge" in fields:
            code = Code.DIRECT
        if code is Code.DIRECT and "mixing" in fields:
            self._refuse("the integration must go into a convolution whose outputs are a multiple of 16")
        pieces: list[tuple[list[Tensor], int]] = []
        first = 0
        for part in parts:
            joins = pieces and self._depends_on_target(pieces[-1][0][0]) == self._depends_on_target(part)
            if code is not Code.DIRECT and pieces and (joins or "mixing" in fields):
                pieces[-1][0].append(part)
            else:
                pieces.append(([part], first))
            first += part.channels
        pieces.sort(key=lambda piece: any(self._depends_on_target(part) for part in piece[0]))
        output: Tensor | None = None
        for index, (images, start) in enumerate(pieces):
            output = self._emit(
                code,
                images,
                Tensor(Kind.IMAGE, outputs, images[0].multiple),
                weight=Weight(weight.offset, weight.inputs, start),
                bias=bias if index == len(pieces) - 1 else None,
                residuals=[] if output is None else [output],
                **fields,
            )
        assert output is not None
        return output


def _shape(tensor: Tensor) -> tuple[Kind, int, int]:
    return tensor.kind, tensor.channels, tensor.multiple
