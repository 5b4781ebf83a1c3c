"""Translation: one sentence read, another written, a subword after the other.

The text is two parallel files a split in a folder (`parallel_text`), the subwords are those of both languages
together (`subwords`), made once and kept in the run's folder. Held out is the validation set; at the end the
test set is translated, and held against its own translation by BLEU and chrF.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from mtbench.errors import BadInput
from mtbench.inputs import Array
from mtbench.spec import Case
from mtbench.training.examined import Examined
from mtbench.training.metric import ACCURACY, Metric
from mtbench.training.published import Published
from mtbench.training.settings import Job, Optimization, Preset, Schedule
from mtbench.training.tasks import Task, attention_case
from mtbench.training.tasks.buckets import Pairs, in_buckets, in_order
from mtbench.training.tasks.parallel_text import ParallelText, read_parallel_text
from mtbench.training.tasks.subwords import BEGIN, END, Subwords, needed, train_subwords
from mtbench.transformer.config import ModelConfig, ModelSize, Momenta

__all__ = ["BLEU", "CHRF", "DECODED", "TASK", "Translation", "TranslationTask", "paper_size"]

BLEU = Metric(name="BLEU", unit="0 to 100, by sacrebleu", better="more", most=100.0)
CHRF = Metric(name="chrF", unit="0 to 100, by sacrebleu", better="more", most=100.0)
DECODED = Metric(name="decoded subwords/s", unit="written a second, in batches", better="more", timed=True)
FILE = "subwords.model"
SHORTEST = 8
"""The least seq_len."""
ALL = 10**6
"""Batches of held-out data: more than there are."""
DECODE_BATCH = 64
"""Of the longest sentences, when the test set is translated; shorter ones have more in a batch."""
SAMPLES = 12
"""Sentences that are kept to be read, evenly over the test set."""


def paper_size(seq_len: int) -> ModelSize:
    """The paper's: after Lee et al. 2018, d 278, and so 139 columns a head."""
    return ModelSize(
        vocabulary=8000, max_len=seq_len, d_model=278, layers=5, heads=2, head_dim=139, feed_forward=507
    )


SHORT = Preset(
    why="A small model for a few minutes of a CPU: too short to test anything by.",
    size=ModelSize(vocabulary=1000, max_len=32, d_model=64, layers=2, heads=2, head_dim=32, feed_forward=128),
    schedule=Schedule(epochs=6, iterations=50, batch=16, seq_len=32, evaluations=3, evaluation_batches=8),
    optimization=Optimization(lr=3e-3, weight_decay=0.0, drop_epoch=5),
)


class TranslationTask(Task):
    """What both ways of translating share."""

    metric = ACCURACY
    scores = (BLEU, CHRF, DECODED)
    held_out_of = "validation sentences"
    variants = ("softmax", "linear", "momentum", "momentum+momentum", "momentum+adaptive")
    momenta = Momenta(beta=0.6, gamma=0.6, connection=0.3, step=0.9, adaptive_step=0.9)
    source_ends: ClassVar[tuple[int, ...]]
    """What stands behind a sentence that is read."""
    target_ends: ClassVar[tuple[int, ...]]
    """What stands behind one that is written."""

    def __init__(self) -> None:
        self._text: ParallelText | None = None
        self._subwords: Subwords | None = None
        self._pairs: dict[str, Pairs] = {}

    @property
    def text(self) -> ParallelText:
        """What was opened."""
        if self._text is None:
            raise BadInput(
                f"the task {self.name} needs --data DIR, with train.en, train.de, valid.en, valid.de, "
                "test.en and test.de (of any two languages, plain or .gz)"
            )
        return self._text

    @property
    def subwords(self) -> Subwords:
        """Those of the run."""
        if self._subwords is None:
            raise BadInput(f"the task {self.name} has no subwords yet: its run's folder has them")
        return self._subwords

    def open(self, data: str | None) -> Self:
        """See `Task.open`."""
        needed("sacrebleu")  # not first found missing at the end
        needed("sentencepiece")
        opened = copy.copy(self)
        opened._text = None if data is None else read_parallel_text(data)
        opened._pairs = {}
        _ = opened.text
        return opened

    def fingerprints(self) -> Mapping[str, str]:
        """See `Task.fingerprints`."""
        return self.text.digests

    def shared(self, job: Job) -> Mapping[str, bytes]:
        """See `Task.shared`: the subwords."""
        sentences = (line for side in self.text.splits["train"] for line in side)
        model = train_subwords(sentences, job.model.size.vocabulary)
        opened = copy.copy(self)
        opened._subwords, opened._pairs = Subwords(model), {}
        opened.pairs("train", job.schedule.seq_len)
        return {FILE: model}

    def given(self, folder: Path) -> Self:
        """See `Task.given`."""
        opened = copy.copy(self)
        opened._subwords, opened._pairs = Subwords((folder / FILE).read_bytes()), {}
        return opened

    def pairs(self, split: str, longest: int) -> Pairs:
        """The subwords of a split. Of the training set those pairs of which both sides fit; of the others
        every pair, cut at `longest`.

        Raises:
            BadInput: no pair fits.
        """
        if split not in self._pairs:
            source, target = (self.subwords.encode(side) for side in self.text.splits[split])
            pairs = [
                ([*x, *self.source_ends], [*y, *self.target_ends])
                for x, y in zip(source, target, strict=True)
            ]
            if split == "train":
                pairs = [(x, y) for x, y in pairs if max(len(x), len(y)) <= longest]
            if not pairs:
                raise BadInput(f"--seq-len {longest}: no sentence pair of {split} is that short")
            self._pairs[split] = [(x[:longest], y[:longest]) for x, y in pairs]
        return self._pairs[split]

    def check(self, size: ModelSize, schedule: Schedule) -> None:
        """See `Task.check`."""
        if schedule.seq_len < SHORTEST:
            raise BadInput(f"--seq-len {schedule.seq_len}: translation needs {SHORTEST} positions or more")

    def batches(
        self, schedule: Schedule, size: ModelSize, *, seed: int, epoch: int, held_out: bool = False
    ) -> Sequence[Mapping[str, Array]]:
        """See `Task.batches`: `in_buckets`, and where held out `in_order`."""
        longest, batch = schedule.seq_len, schedule.batch
        if held_out:
            return in_order(
                self.pairs("valid", longest), longest, batch=batch, most=schedule.evaluation_batches
            )
        return in_buckets(
            self.pairs("train", longest),
            longest,
            batch=batch,
            steps=schedule.iterations,
            seed=seed,
            epoch=epoch,
        )

    def tokens(self, groups: Sequence[Mapping[str, Array]]) -> int:
        """See `Task.tokens`: of the targets, as the paper counts."""
        return sum(int(data["target_lengths"].sum()) for data in groups)

    def loss(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """See `Task.loss`: a mean over subwords."""
        loss, right, counts = self.each(model, batch)
        total = counts.sum()
        return loss.sum() / total, right.sum() / total

    def evaluated(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """See `Task.evaluated`: of each sentence."""
        loss, right, counts = self.each(model, batch)
        there = batch["there"]
        return (loss.sum(-1) / counts.sum(-1))[there], (right.sum(-1) / counts.sum(-1))[there]

    @abstractmethod
    def each(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """Of each place of each target, [batch, width]: the loss, whether the likeliest is right, and whether
        it counts; 0.0 where it does not."""

    @abstractmethod
    def decoded(self, model: Any, source: Any, lengths: Any, most: int) -> Any:
        """The translations of a batch, [batch, n] subwords with `END` or padding behind them."""

    def examined(self, model: Any, job: Job) -> Examined:
        """See `Task.examined`: the test set, translated."""
        sacrebleu = needed("sacrebleu")
        longest = job.schedule.seq_len
        rows, seconds = self._translated(model, job)
        said = self.subwords.decode(rows)
        sources, references = (list(side) for side in self.text.splits["test"])
        bleu, chrf = sacrebleu.BLEU(), sacrebleu.CHRF()
        scores = {
            BLEU.name: bleu.corpus_score(said, [references]).score,
            CHRF.name: chrf.corpus_score(said, [references]).score,
            DECODED.name: sum(map(len, rows)) / seconds,
        }
        trained, there = len(self.pairs("train", longest)), len(self.text.splits["train"][0])
        cut = sum(len(x) + len(self.source_ends) > longest for x in self.subwords.encode(sources))
        notes = {
            BLEU.name: str(bleu.get_signature()),
            CHRF.name: str(chrf.get_signature()),
            "data": f"{self.text.languages[0]} to {self.text.languages[1]}; {trained:,} of {there:,} "
            f"training pairs have at most {longest} subwords a side and are trained on; of {len(sources):,} "
            f"test sentences {cut} are cut there",
        }
        step = max(1, len(sources) // SAMPLES)
        samples = tuple(
            {"source": sources[at], "reference": references[at], "translation": said[at]}
            for at in range(step // 2, len(sources), step)
        )[:SAMPLES]
        return Examined(scores=scores, notes=notes, samples=samples)

    def _translated(self, model: Any, job: Job) -> tuple[list[list[int]], float]:
        """The subwords of each test sentence's translation, and the seconds that took."""
        from mtbench.transformer.timed_decoding import decoded_rows

        longest = job.schedule.seq_len
        pairs = self.pairs("test", longest)
        found, seconds = decoded_rows(
            lambda source, lengths: self.decoded(model, source, lengths, longest),
            in_order(pairs, longest, batch=DECODE_BATCH, most=ALL),
            job.kernels.device,
        )
        return [_until_end(found[place]) for place in range(len(pairs))], seconds


def _until_end(row: Sequence[int]) -> list[int]:
    found = []
    for symbol in row:
        if symbol <= END:
            break
        found.append(symbol)
    return found


class Translation(TranslationTask):
    """A subword at a time, each the likeliest after those before it."""

    name = "translation"
    title = "Translation, a subword at a time"
    causal = True
    source_ends = target_ends = (END,)
    published: ClassVar[Published | None] = None
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            why="The sizes that the paper has for translation without autoregression; that it is done a "
            "subword at a time is ours, and so are 20 epochs of 100 steps, the last four at a tenth of the "
            "learning rate: on 38,000 sentence pairs held-out loss falls by less than .01 in the last, "
            "and with softmax, whose training loss is then under half of it, it rises a little.",
            size=paper_size(80),
            schedule=Schedule(
                epochs=20, iterations=100, batch=128, seq_len=80, evaluations=20, evaluation_batches=ALL
            ),
            optimization=Optimization(lr=1e-3, weight_decay=0.0, drop_epoch=16),
        ),
        "short": SHORT,
    }

    def cases(self, job: Job) -> tuple[Case, ...]:
        """See `Task.cases`: the encoder's, the decoder's own, and the one between them."""
        return (
            attention_case(job, causal=False, padded=True),
            attention_case(job, causal=True),
            attention_case(job, causal=False, padded=True, seq_len=max(1, job.schedule.seq_len - 1)),
        )

    def model(self, config: ModelConfig, attend: Any) -> Any:
        """See `Task.model`."""
        from mtbench.transformer.model import EncoderDecoder

        return EncoderDecoder(config, attend)

    def each(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """See `TranslationTask.each`."""
        from mtbench.transformer.model import shifted

        target, lengths = batch["target"], batch["target_lengths"]
        logits = model(batch["source"], shifted(target, BEGIN), batch["source_lengths"], lengths)
        found: tuple[Any, Any, Any] = model.judged(logits, target, lengths)
        return found

    def decoded(self, model: Any, source: Any, lengths: Any, most: int) -> Any:
        """See `TranslationTask.decoded`."""
        from mtbench.transformer.generation import translate

        return translate(model, source, lengths, begin=BEGIN, end=END, most=most)


TASK = Translation()
