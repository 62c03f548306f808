"""A control policy as an ONNX graph: raw observations in, actions of the environment out, normalisation and bounds inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paperworks.control.actors import PerceptronActor
from paperworks.control.policy import ControlPolicy, DiscreteActions
from paperworks.core.errors import OptionError
from paperworks.core.files import write_atomic

OPSET, IR_VERSION = 17, 8
BENDS = {"relu": "Relu", "tanh": "Tanh", "selu": "Selu"}


def export_onnx(policy: ControlPolicy, path: str | Path) -> Path:
    """Write `observations` [rows, state] -> `actions` [rows, action] (or [rows], whole numbers) to a file.

    A Gaussian policy acts by its mode. Raises OptionError without the package onnx, and for policies that are more than a
    perceptron or act by chance.
    """
    actor, place = policy.actor, Path(path)
    if place.suffix != ".onnx":
        raise OptionError(f"--out {path}: expected a name that ends in .onnx")
    if not isinstance(actor, PerceptronActor):
        raise OptionError(f"a policy of kind {actor.kind!r} is more than a perceptron: it is not exported to ONNX")
    if actor.output == "sample":
        raise OptionError("a policy that acts by chance is not exported to ONNX; train one that acts greedily")
    try:
        import onnx
    except ImportError:
        raise OptionError("exporting needs onnx; install paperworks[onnx]") from None
    write_atomic(place, onnx.ModelProto.SerializeToString(_Graph(onnx, policy, actor).model()))
    return place


class _Graph:
    """Nodes and weights, in the order in which they are computed."""

    def __init__(self, onnx: Any, policy: ControlPolicy, actor: PerceptronActor) -> None:
        self._onnx, self._policy, self._actor = onnx, policy, actor
        self._nodes: list[Any] = []
        self._weights: list[Any] = []

    def model(self) -> Any:
        helper, kinds, policy, actor = self._onnx.helper, self._onnx.TensorProto, self._policy, self._actor
        x = self._node("Sub", "observations", self._weight("mean", policy.normaliser.mean))
        x = self._node("Div", x, self._weight("deviation", policy.normaliser.deviation))
        for number, (weight, bias) in enumerate(zip(actor.weights, actor.biases, strict=True)):
            x = self._node("MatMul", x, self._weight(f"weight {number}", weight.numpy()))
            x = self._node("Add", x, self._weight(f"bias {number}", bias.numpy()))
            if number + 1 < len(actor.weights):
                x = self._node(BENDS[actor.activation], x)
        width = len(policy.normaliser.mean)
        seen = helper.make_tensor_value_info("observations", kinds.FLOAT, ["rows", width])
        if isinstance(policy.bounds, DiscreteActions):
            x = self._node("ArgMax", x, axis=1, keepdims=0)
            done = helper.make_tensor_value_info("actions", kinds.INT64, ["rows"])
        else:
            x = self._bounded(x, policy.width)
            done = helper.make_tensor_value_info("actions", kinds.FLOAT, ["rows", policy.width])
        self._nodes.append(helper.make_node("Identity", [x], ["actions"]))
        graph = helper.make_graph(self._nodes, "policy", [seen], [done], self._weights)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="paperworks")
        made.ir_version = IR_VERSION
        self._onnx.checker.check_model(made)
        return made

    def _bounded(self, x: str, width: int) -> str:
        """tanh of the first `width` numbers (a Gaussian's means), or those clipped, put into the bounds."""
        if self._actor.output == "tanh-gaussian":
            ends = [
                self._weight(name, np.array([value])) for name, value in (("begin", 0), ("end", width), ("axis", 1))
            ]
            x = self._node("Slice", x, *ends)
        if self._actor.output == "linear":
            x = self._node(
                "Clip", x, *(self._weight(name, np.float32(end)) for name, end in (("low", -1), ("high", 1)))
            )
        else:
            x = self._node("Tanh", x)
        bounds = self._policy.bounds
        assert not isinstance(bounds, DiscreteActions)
        x = self._node("Mul", x, self._weight("half", bounds.half))
        return self._node("Add", x, self._weight("centre", bounds.centre))

    def _node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind} {len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def _weight(self, name: str, values: NDArray[Any] | np.generic) -> str:
        self._weights.append(
            self._onnx.numpy_helper.from_array(np.ascontiguousarray(values).reshape(np.shape(values)), name)
        )
        return name
