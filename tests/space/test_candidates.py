"""Networks of a program: named, copied, drawn anew by the seed; what cannot be used is named before anything is trained."""

from __future__ import annotations

import copy
import functools
import itertools
import json
import random
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from proxyds.errors import CallableError, RecipeError
from proxyds.selection.similarity import check_layer
from proxyds.space.candidates import hand_over_again, make_space
from proxyds.space.choices import Space, space_section
from proxyds.space.listing import list_architectures
from proxyds.space.networks.build import build_network

SHAPE = (1, 8, 8)


class Net(nn.Module):
    def __init__(self, width: int = 4, n_labels: int = 3) -> None:
        super().__init__()
        self.hidden, self.norm, self.head = nn.Linear(64, width), nn.BatchNorm1d(width), nn.Linear(width, n_labels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.norm(self.hidden(images.flatten(1))).relu())
        return logits


class Token(Net):
    """A network with a weight of its own, which no layer can draw anew."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(4))


class Holder(Net):
    def __init__(self, held: object) -> None:
        super().__init__()
        self.held = held


def read(section: dict[str, Any]) -> Space:
    return space_section().validate_json(json.dumps(section))


def list_space(candidates: Any) -> dict[str, int]:
    listed = list_architectures(read(make_space(candidates)), 3, SHAPE)
    return {each.name: each.n_parameters for each in listed}


def build(candidate: Any, seed: int) -> nn.Module:
    (given,) = make_space([candidate])["architectures"]
    torch.manual_seed(seed)
    return build_network("python", given, 3, SHAPE)


def identify(candidate: Any) -> str:
    return str(make_space([candidate])["architectures"][0]["sha256"])


def test_names_are_the_users_or_those_of_classes_numbered_where_equal() -> None:
    def small(n_labels: int) -> nn.Module:
        return Net(2, n_labels)

    assert list(list_space({"wide one": Net, "narrow": functools.partial(Net, 2)})) == ["narrow", "wide one"]
    listed = make_space([Net, small, functools.partial(Net, 8), Net(), nn.Linear(2, 2), lambda: Net()])
    names = [each["name"] for each in listed["architectures"]]
    assert names == ["Net-1", "small", "Net-2", "Net-3", "Linear", "network"]


def test_weights_and_operations_are_counted_by_hand() -> None:
    # 64 x 4 + 4, a scale and a shift for each of 4, 4 x 3 + 3
    (counted,) = list_architectures(read(make_space({"net": Net})), 3, SHAPE)
    assert counted.n_parameters == 64 * 4 + 4 + 8 + 15
    assert counted.forward_flops == 2 * (64 * 4 + 4 * 3)


def test_a_network_whose_operations_nobody_counts_is_named() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((1, 2, 3))[:, None] * self.weight

    with pytest.raises(RecipeError, match=r"scaled.* must have a layer whose FLOPs are counted"):
        list_space({"scaled": Scaled, "net": lambda: Net(4, 3)})


def test_a_factory_is_told_labels_and_shape_if_it_asks_and_keeps_what_a_partial_gives() -> None:
    told: list[Any] = []

    def make(n_labels: int, *, image_shape: tuple[int, int, int], width: int = 2) -> nn.Module:
        told.append((n_labels, image_shape, width))
        return Net(width, n_labels)

    make_space({"f": make})  # calls nothing
    assert not told
    assert [layer.out_features for layer in build(make, 0).modules() if isinstance(layer, nn.Linear)] == [2, 3]
    assert build(functools.partial(make, width=5), 0).get_submodule("hidden").out_features == 5
    with pytest.raises(RecipeError, match=r"n, 3"):
        list_space({"f": functools.partial(make, n_labels=7)})


@pytest.mark.parametrize("candidate", [Net, Net()], ids=["factory", "module"])
def test_initial_weights_are_of_the_seed(candidate: Any) -> None:
    first, again, other = (list(build(candidate, seed).parameters()) for seed in (1, 1, 2))
    assert all(map(torch.equal, first, again))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True) if a.dim() > 1)


def test_a_module_is_copied_and_stays_as_it_is() -> None:
    module = Net().eval()
    module(torch.randn(4, 64))
    before = copy.deepcopy(module.state_dict())
    built = build(module, 0)
    assert built.training
    assert not module.training
    assert all(map(torch.equal, before.values(), module.state_dict().values()))
    assert not torch.equal(built.get_parameter("hidden.weight"), module.hidden.weight)


def test_weights_that_layers_share_stay_shared() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 3))
    module[2].weight = module[1].weight
    built = build(module, 0)
    assert built.get_submodule("2").weight is built.get_submodule("1").weight
    assert torch.isfinite(built(torch.randn(2, *SHAPE))).all()


def test_the_identity_of_a_module_is_of_its_structure_not_of_its_weights() -> None:
    trained = Net()
    trained(torch.randn(4, 64)).sum().backward()
    with torch.no_grad():
        trained.hidden.weight.add_(1)
    assert identify(trained) == identify(Net().eval())
    with_constants = [Net() for _ in range(2)]
    for number, net in enumerate(with_constants):
        net.register_buffer("constant", torch.tensor([float(number)]))
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    others = [
        Net(),
        Net(5),
        nn.Sequential(Net()),
        *with_constants,
        tied,
        nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)),
    ]
    assert len({identify(each) for each in others}) == len(others)


@pytest.mark.parametrize("lazy", [lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.LazyLinear(3))])
def test_lazy_layers_are_filled_in_and_their_identity_lasts(lazy: Callable[[], nn.Module]) -> None:
    assert list_space({"factory": lazy, "module": lazy()}) == {"factory": 64 * 8 + 8 + 27, "module": 64 * 8 + 8 + 27}
    assert identify(lazy()) == identify(lazy())
    first, other = (build(lazy(), seed).get_parameter("1.weight") for seed in (1, 2))
    assert not torch.equal(first, other)


def test_code_that_needs_values_is_measured_where_there_are_some() -> None:
    class Asks(Net):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images if images.mean().item() > -1 else -images)

    assert list_space({"asks": Asks, "plain": Net}) == {"asks": 283, "plain": 283}
    (counted,) = list_architectures(read(make_space({"asks": Asks})), 3, SHAPE)
    assert check_layer(counted, None, 3, SHAPE) == "norm"


@pytest.mark.parametrize(
    ("candidate", "keyword"),
    [
        (5, "int"),
        (functools.partial(Net, held := threading.Lock()), "copied"),
        (Holder(threading.Lock()), "copied"),
        (Token(), "token"),
        (lambda width: Net(width), "width"),
    ],
    ids=["no factory", "a lock", "a module with a lock", "a weight of its own", "an argument"],
)
def test_what_cannot_be_handed_over_is_named(candidate: Any, keyword: str) -> None:
    assert held
    with pytest.raises(CallableError, match=r"'bad-1'.*\n.*'bad-2'") as caught:
        make_space({"bad-1": candidate, "good": Net, "bad-2": candidate})
    assert keyword in str(caught.value)
    assert "'good'" not in str(caught.value)


def test_a_closure_over_an_open_file_is_named() -> None:
    with tempfile.TemporaryFile() as file, pytest.raises(CallableError, match="'reads'"):
        make_space({"reads": lambda: Net(len(file.read()))})


def fails() -> nn.Module:
    raise ValueError("no such width")


def seeded() -> nn.Module:
    torch.manual_seed(3)
    return Net()


def from_elsewhere() -> nn.Module:
    net = Net()
    nn.init.constant_(net.hidden.bias, random.random())
    return net


MADE = Net()


@pytest.mark.parametrize(
    ("factory", "keyword"),
    [
        (fails, "no such width"),
        (lambda: None, "makes None"),
        (lambda: Net(4, 7), "(2, 7)"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(65, 3)), "images of 1x8x8"),
        (lambda: Net().requires_grad_(False), "trained"),
        (seeded, "each seed"),
        (lambda: MADE, "each seed"),
        (from_elsewhere, "torch's generator"),
    ],
    ids=[
        "raises",
        "no module",
        "other labels",
        "other images",
        "frozen",
        "seeds",
        "always the same",
        "other generators",
    ],
)
def test_a_factory_that_makes_no_usable_network_is_named_with_all_others(factory: Any, keyword: str) -> None:
    with pytest.raises((CallableError, RecipeError)) as caught:
        list_space({"bad-1": factory, "good": Net, "bad-2": functools.partial(factory)})
    assert keyword in str(caught.value)
    assert "bad-1" in str(caught.value)
    assert "bad-2" in str(caught.value)
    assert "good" not in str(caught.value)


class Failing(Net):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise ValueError("no such images")


class Telling(Net):
    def forward(self, images: torch.Tensor) -> Any:
        return {"logits": super().forward(images)}


@pytest.mark.parametrize("factory", [fails, lambda: None, lambda: Net(4, 7), Failing, Telling])
def test_what_is_wrong_with_a_function_is_told_of_it_and_not_of_settings_that_it_has_not(factory: Any) -> None:
    with pytest.raises((CallableError, RecipeError), match="'mine' must") as caught:
        list_space({"mine": factory, "good": Net})
    for word in ("parameters", "aux_logits", "small_stem", "patches", "sha256", "line "):
        assert word not in str(caught.value)


@pytest.mark.parametrize("candidates", [[], {}, {1: Net}, "Net", 5, {" net": Net, "": Net}])
def test_what_is_no_mapping_or_list_of_networks_is_refused(candidates: Any) -> None:
    with pytest.raises((CallableError, ValueError)):
        read(make_space(candidates))


def test_a_recipe_that_is_run_again_takes_the_same_networks_alone() -> None:
    counter = itertools.count()

    def make_new(width: int) -> Callable[[], nn.Module]:  # of an identity that no other test has handed over
        label = f"{next(counter)} of this test"
        return lambda: Net(width) if label else Net()

    wide, narrow, other = (make_new(width) for width in (8, 2, 3))
    section = make_space({"wide": wide, "narrow": narrow})
    section["architectures"][0]["sha256"] = "f" * 64
    space = read(section)
    with pytest.raises(CallableError, match=r"'wide' were not passed.*space="):
        list_architectures(space, 3, SHAPE)
    with pytest.raises(CallableError, match=r"'wide'.*has changed\n.*'third' must be left out"):
        hand_over_again(space, {"wide": wide, "narrow": narrow, "third": other})
    with pytest.raises(CallableError, match=r"'narrow'.*none is given"):
        hand_over_again(space, {"wide": wide})
    space = read(make_space({"wide": wide, "narrow": narrow}))
    hand_over_again(space, {"narrow": narrow, "wide": wide})
    hand_over_again(space, None)
    resnets = read({"network": "resnet", "choices": {"depth": [8, 14]}})
    hand_over_again(resnets, None)
    with pytest.raises(CallableError, match="resnet"):
        hand_over_again(resnets, {"wide": wide})


def test_networks_of_a_program_are_listed_and_not_chosen() -> None:
    with pytest.raises(ValueError, match="architectures"):
        read({"network": "python", "choices": {"name": ["a", "b"]}})


def test_features_of_a_network_without_a_linear_layer_are_asked_for() -> None:
    convolutions = nn.Sequential(nn.Conv2d(1, 5, 3), nn.Conv2d(5, 3, 6), nn.Flatten())
    (counted,) = list_architectures(read(make_space({"all-convolutions": convolutions})), 3, SHAPE)
    with pytest.raises(RecipeError, match=r"similarity\.layer.*all-convolutions.*0, 1, 2"):
        check_layer(counted, None, 3, SHAPE)
    assert check_layer(counted, "0", 3, SHAPE) == "0"


def test_two_names_of_one_network_are_refused() -> None:
    with pytest.raises(CallableError, match=r"'b'.*'a'.*functools.partial"):
        make_space({name: (lambda: nn.Linear(2, 2)) for name in ("a", "b")})


def test_a_factory_whose_networks_cannot_be_copied_is_named() -> None:
    class Locked(Net):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

    with pytest.raises(CallableError, match="'locked' must make networks that can be copied"):
        list_space({"locked": lambda: Locked(), "good": Net})
