"""Translation as the paper has it: all subwords at once, and then refined (Lee et al. 2018; see
`mtbench.transformer.refiner`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from mtbench.spec import Case
from mtbench.training.published import PAPER, Claim, Published
from mtbench.training.settings import Job, Optimization, Preset, Schedule
from mtbench.training.tasks import attention_case
from mtbench.training.tasks.translation import (
    ALL,
    BLEU,
    DECODED,
    SHORT,
    TranslationTask,
    paper_size,
)
from mtbench.transformer.config import ModelConfig

__all__ = ["TASK", "RefinedTranslation"]

TIMES = 4
"""How often a translation is said, when it is trained and when it is read."""

NAMES = {
    "momentum": "Momentum",
    "momentum+momentum": "Momentum with momentum connection",
    "momentum+adaptive": "Momentum with adaptive connection",
}


def _against(quantity: str, variant: str, text: str, bound: float = 1.0, other: str = "linear") -> Claim:
    return Claim(text=text, quantity=quantity, variant=variant, against=other, relation="above", bound=bound)


PUBLISHED = Published(
    source=PAPER,
    remark=(
        "One run each, without intervals, on IWSLT'16 from English to German: talks, and another set than "
        "what --data names, so that its BLEU and ours are not to be compared, only the order of the "
        "transformers. In the released code linear and momentum attention take no mask, so that the padding "
        "of a batch takes part. The paper's table has softmax 3.7 times as fast as linear attention (5104 "
        "against 1382 tokens a second), and its text says otherwise; both are tested here."
    ),
    values={
        BLEU.name: {
            "softmax": "24.34",
            "linear": "21.37",
            "momentum": "22.11",
            "momentum+momentum": "22.14",
            "momentum+adaptive": "22.20",
        },
        DECODED.name: {
            "softmax": "5104",
            "linear": "1382",
            "momentum": "1398",
            "momentum+momentum": "1403",
            "momentum+adaptive": "1410",
        },
    },
    claims=(
        _against(BLEU.name, "softmax", "Softmax translates better than linear, by BLEU"),
        *(
            _against(BLEU.name, variant, f"{name} translates better than linear, by BLEU")
            for variant, name in NAMES.items()
        ),
        _against(DECODED.name, "softmax", "Softmax decodes faster than linear (the paper's table)"),
        _against(
            DECODED.name,
            "linear",
            "Linear decodes faster than softmax (the paper's text)",
            other="softmax",
        ),
    ),
)


class RefinedTranslation(TranslationTask):
    """See the module."""

    name = "translation-refined"
    title = "Translation, all subwords at once and then refined"
    causal = False
    source_ends = target_ends = ()
    published = PUBLISHED
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            why="The paper's model and its four sayings; 24 epochs of 100 steps are ours.",
            size=paper_size(80),
            schedule=Schedule(
                epochs=24, iterations=100, batch=128, seq_len=80, evaluations=12, evaluation_batches=ALL
            ),
            optimization=Optimization(lr=1e-3, weight_decay=0.0, drop_epoch=20),
        ),
        "short": SHORT,
    }

    def cases(self, job: Job) -> tuple[Case, ...]:
        """See `Task.cases`: whole sentences on each other, with padding."""
        return (attention_case(job, causal=False, padded=True),)

    def model(self, config: ModelConfig, attend: Any) -> Any:
        """See `Task.model`."""
        from mtbench.transformer.refiner import Refiner

        return Refiner(config, attend)

    def each(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """See `TranslationTask.each`. The loss is the mean over all times a target is said, at its own
        length, and that of telling its length, spread over its places; right is the last time's."""
        source, lengths = batch["source"], batch["source_lengths"]
        target, wanted = batch["target"], batch["target_lengths"]
        memory, offsets = model.encoded(source, lengths)
        said = model.said(source, lengths, memory, wanted, target.shape[1], TIMES)
        found = [model.judged(logits, tokens, target, wanted) for logits, tokens in said]
        _, right, counts = found[-1]
        told = model.told(offsets, lengths, wanted)
        loss = sum(each for each, _, _ in found) / TIMES
        return loss + counts * (told / wanted)[:, None], right, counts

    def decoded(self, model: Any, source: Any, lengths: Any, most: int) -> Any:
        """See `TranslationTask.decoded`."""
        width = min(most, source.shape[1] + OFFSET_ROOM)
        return model.translated(source, lengths, width, TIMES)


OFFSET_ROOM = 20
"""Places that a translation may be longer than a batch's sources: `mtbench.transformer.refiner.OFFSETS`."""

TASK = RefinedTranslation()
