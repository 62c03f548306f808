"""LoRA layers give PEFT's own numbers, forward and backward, and step aside where more is asked of them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn

from paperworks.language.lora_layers import AddedInPlace, add_in_place
from paperworks.language.policy import LoraOptions, Policy


def adapted(**options: Any) -> Any:
    """A small PEFT model in float64 whose adapters are not zero."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4, bias=False))
    model = get_peft_model(net, LoraConfig(target_modules=["0", "2"], r=3, lora_alpha=12, **options)).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    return model


def outcome(model: Any, inputs: Tensor) -> list[Tensor]:
    """The output, and the gradients of inputs and adapters."""
    inputs = inputs.clone().requires_grad_()
    out = model(inputs)
    out.square().sum().backward()
    return [out, inputs.grad, *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("options", [{}, {"lora_bias": True}, {"use_dora": True}, {"use_rslora": True}], ids=str)
def test_values_and_gradients_are_pefts(options: dict[str, Any]) -> None:
    model, inputs = adapted(**options), torch.randn(2, 3, 6, dtype=torch.float64)
    wanted = outcome(copy.deepcopy(model), inputs)
    add_in_place(model)
    assert any(type(module) is AddedInPlace for module in model.modules())
    for found, expected in zip(outcome(model, inputs), wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


def test_it_steps_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = adapted(lora_dropout=0.5), torch.randn(4, 6, dtype=torch.float64)
    add_in_place(model)
    went = []
    own = Linear.forward
    monkeypatch.setattr(Linear, "forward", lambda self, x, *a, **k: went.append(1) or own(self, x, *a, **k))
    model.eval()(inputs)
    assert not went  # dropout is off
    model.train()(inputs)
    assert len(went) == 2
    with model.disable_adapter():
        off = model.eval()(inputs)
    assert len(went) == 4
    torch.testing.assert_close(off, copy.deepcopy(model).unload()(inputs), atol=1e-12, rtol=1e-12)
    model.merge_adapter()
    torch.testing.assert_close(model(inputs), copy.deepcopy(model).merge_and_unload()(inputs), atol=1e-12, rtol=1e-12)


def test_policies_use_it(small_policy: Policy) -> None:
    policy = small_policy.with_lora(LoraOptions(rank=2))
    layers = [module for module in policy.model.modules() if isinstance(module, Linear)]
    assert layers and all(type(module) is AddedInPlace for module in layers)
    assert "AddedInPlace" not in str(policy.model.peft_config["default"])
