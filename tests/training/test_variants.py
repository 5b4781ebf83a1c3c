"""What is trained, by name."""

from __future__ import annotations

import pytest

from mtbench import BadInput
from mtbench.training.variants import DEFAULT_VARIANTS, Variant, parse_variants, product
from mtbench.words import by_kind


@pytest.mark.parametrize("name", DEFAULT_VARIANTS)
def test_a_name_is_read_back(name: str) -> None:
    assert Variant.parse(name).name == name


def test_a_product_has_no_pair_that_nobody_means() -> None:
    made = product(["softmax", "linear", "momentum"], ["none", "momentum", "adaptive"])
    assert [v.name for v in made] == [*DEFAULT_VARIANTS[:3], *DEFAULT_VARIANTS[3:5]]
    assert [v.name for v in product(["linear"], None)] == ["linear"]
    assert [v.name for v in product(None, ["adaptive"])] == ["momentum+adaptive"]
    with pytest.raises(BadInput, match=r"--variant linear\+adaptive"):
        product(["linear"], ["adaptive"])
    assert parse_variants(["linear+adaptive", "linear+adaptive"]) == (Variant("linear", "adaptive"),)


@pytest.mark.parametrize(
    ("word", "told"), [("momentun", "did you mean 'momentum'"), ("linear+adaptiv", "did you mean 'adaptive'")]
)
def test_an_unknown_name_has_its_nearest(word: str, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        Variant.parse(word)


@pytest.mark.parametrize(
    ("attentions", "connections", "told"),
    [
        (
            ["linear", "softmx"],
            None,
            "--attention softmx: unknown attention 'softmx': did you mean 'softmax'",
        ),
        (None, ["adaptiv"], "--connection adaptiv: unknown connection 'adaptiv': did you mean 'adaptive'"),
    ],
)
def test_an_unknown_name_is_told_with_the_option_that_has_it(
    attentions: list[str] | None, connections: list[str] | None, told: str
) -> None:
    with pytest.raises(BadInput, match=f"^{told}"):
        product(attentions, connections)


@pytest.mark.parametrize("text", ["soft=x", "softmax=", "a,b", "softmax=a,softmax=b"])
def test_names_by_kind_that_are_none(text: str) -> None:
    with pytest.raises(BadInput, match="--backend"):
        by_kind("--backend", text, ("softmax", "linear"))
