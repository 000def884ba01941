from __future__ import annotations

import pytest
import torch
from torch import nn

from sdcorr.backbones._taps import let_go_unread, read_layers
from sdcorr.errors import BadRecipe, UnknownName


class Chain(nn.Module):
    """Three layers in a row that count how often they run."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = Double(), Double(), Double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.third(self.second(self.first(x))[0])[0]


class Double(nn.Module):
    runs = 0

    def forward(self, x: torch.Tensor | tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        self.runs += 1
        return (2 * (x[0] if isinstance(x, tuple) else x),)


def test_outputs_come_in_the_order_asked_for_and_the_rest_does_not_run():
    chain = Chain()
    read = read_layers(chain, ["second", "first"], lambda: chain(torch.ones(1)))
    assert list(read) == ["second", "first"]
    assert [value.item() for value in read.values()] == [4, 2]
    assert chain.third.runs == 0


def test_no_hook_stays_behind_also_when_the_pass_fails():
    chain = Chain()
    read_layers(chain, ["first"], lambda: chain(torch.ones(1)))
    with pytest.raises(ZeroDivisionError):
        read_layers(chain, ["first"], lambda: 1 / 0)
    assert chain(torch.ones(1)).item() == 8
    assert not any(module._forward_hooks for module in chain.modules())


def test_a_layer_asked_for_twice_is_read_once():
    chain = Chain()
    assert list(read_layers(chain, ["first", "first"], lambda: chain(torch.ones(1)))) == ["first"]


def test_an_unknown_layer_is_named_with_its_nearest():
    with pytest.raises(UnknownName, match="did you mean 'second'"):
        read_layers(Chain(), ["secund"], lambda: None)


def test_a_layer_that_never_runs_is_an_error():
    with pytest.raises(BadRecipe, match="never runs layer 'first'"):
        read_layers(Chain(), ["first"], lambda: None)


def test_weights_that_no_pass_reaches_are_let_go():
    model = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 4)), nn.Linear(4, 5))
    inputs = torch.ones(1, 2)
    expected = model[1](model[0](inputs))
    read = let_go_unread(model, ["1.0"], lambda: model(inputs))
    assert torch.equal(read["1.0"], expected)
    assert [one.is_meta for one in model.parameters()] == [False] * 4 + [True] * 2
    again = read_layers(model, ["1.0", "0"], lambda: model(inputs))
    assert torch.equal(again["1.0"], expected)
    assert not any(module._forward_pre_hooks for module in model.modules())
    with pytest.raises((RuntimeError, NotImplementedError)):  # and never silently anything else
        model(inputs).sum().item()
