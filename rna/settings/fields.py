"""What a trial is, as dataclasses, and where the package's own files lie.

Past `run.py` there is no DictConfig: `rna.settings.config` turns what Hydra composed into a `Settings`.
"""

from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from rna.settings.method import UNDEFENDED, UNPROBED, Defence, Method, Probe, RetainLoss, made

PACKAGE = Path(__file__).parents[1]
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"  # installed, or a checkout
BUILTIN = PACKAGE / "demo" / "assets"
TASKS = PACKAGE / "tasks"  # a folder of lm-eval tasks each
REFUSALS = PACKAGE / "refusals.txt"
JUDGED = 8  # tokens of a held-out document, at least, whose perplexity is had

TOFU = "rna_tofu"  # the task that is TOFU's whole evaluation

NOT_LOADED = ("name", "unlearn_layer", "num_layers", "threads", "retrained", "pair")  # of ModelSettings
PAIR = "Question: {question}\nAnswer: {answer}"
NEUTRAL = (
    "checkpoint_every",
    "checkpoint_minutes",
    "gradient_checkpointing",
)  # of TrainSettings: they change no trained tensor


@dataclass
class NoiseSettings:
    name: str = "???"  # rna | relative: nu is a fraction of each layer's root mean square | inference | none
    nu: float = 0.0
    scale: str = "std"
    layers: Any = "unlearn"  # resolved by `check` to a list of layers
    samples: int = 0  # of noise=inference: draws that are averaged


@dataclass
class LayerSettings:
    unlearn: int = 0
    trained: Any = None  # resolved by `check` to a list of layers
    trainable: str = "down_proj"
    site: str = "residual"


@dataclass
class ModelSettings:
    name: str = "???"
    path: str = "???"
    revision: str | None = None
    dtype: str = "float32"
    device: str = "auto"
    device_map: Any = None  # layers over several GPUs: auto, balanced, sequential, or modules to devices
    attn_implementation: str | None = None
    layer_path: str = "model.layers"  # where the decoder's layers are
    unlearn_layer: int = 0
    num_layers: int | None = None  # None: read from the model's config.json
    threads: int | None = None  # CPU threads of a trial; None: all cores
    retrained: str | None = None  # a model trained without the forget set, shown as one more row
    pair: str | None = None  # the template of the question-answer pairs that it was fine-tuned on

    def loading(self, **instead: Any) -> dict[str, Any]:
        """The arguments of `rna.decoder.model.load`, some of them replaced: all but those it does not ask for."""
        return {key: value for key, value in asdict(self).items() if key not in NOT_LOADED} | instead


@dataclass
class CorpusSettings:
    path: str = "???"
    field: str = "text"
    max_length: int = 512
    files: str | None = None  # which files of a folder or hub data set; None: all
    hub_files: str | None = None  # the same for the hub's data set, or a folder that is laid out like it
    raw: bool = False  # a line as it stands with its end, not a row's field
    characters: int | None = None  # texts are cut at, before they are tokenised
    strip: bool = False  # white space at both ends, before the cut
    longer_than: int | None = None  # characters of the texts that count; None: those that are not blank
    question: str | None = None  # with `answer`: the columns of question-answer pairs, in the place of `field`
    answer: str | None = None
    template: str = PAIR  # what a pair is as a text
    answer_only: bool = True  # log π of the forget losses counts a pair's tokens from its answer on

    def pairs(self) -> bool:
        return self.question is not None and self.answer is not None

    def read(self) -> dict[str, Any]:
        """Of which files and how rows are read: the arguments of `rna.corpora.rows.read_rows`."""
        return {"pattern": self.files, "usual": self.hub_files, "raw": self.raw}


@dataclass
class DataSettings:
    name: str = "???"
    topics: dict[str, CorpusSettings] = field(default_factory=dict)
    retain: CorpusSettings = field(default_factory=CorpusSettings)
    refusals: str | None = None  # a text file, one refusal a line; None: the project's own
    holdout: float = 0.0
    order: str = "random"
    max_refusals: int | None = None  # the first ones alone
    retain_cut: dict[str, int] = field(default_factory=dict)  # topic -> tokens of a retain sample in its steps
    path: str | None = None  # with `split`: the folder or hub data set that both sets are of
    split: str | None = None  # `forget10`: corpora of `path` without `files` read it and its retain set, `retain90`

    def corpora(self) -> dict[str, CorpusSettings]:
        """The forget set of each topic and the retain set, by their keys."""
        return {**{f"data.topics.{topic}": corpus for topic, corpus in self.topics.items()}, "data.retain": self.retain}


@dataclass
class TrainSettings:
    steps: int = 500
    lr: float = 5e-5
    batch_size: int = 4
    eps: float = 1e-8
    max_grad_norm: float | None = None
    grad_accumulation: int = 1
    compile: bool = False
    gradient_checkpointing: bool = False
    checkpoint_minutes: float | None = 5.0
    checkpoint_every: int | None = None
    until: Any = (
        None  # where a training stops before its last step; resolved by `check`: {METRIC: {at, direction, patience}}
    )


@dataclass
class OptimizerSettings:
    name: str = "adamw"  # adamw | sam
    rho: float = 0.0  # of sam


@dataclass
class ForgetWeightsSettings:
    name: str = "none"  # none | rare


@dataclass
class TaskSettings:
    task: str = "???"
    role: str = "???"
    subjects: list[str] | None = None  # of our own task's questions; None: all
    n: int | None = None  # of role ngram: the words of its n-grams, and their group by similarity
    group: str | None = None
    metric: str | None = None  # of another task than ours: which of its metrics counts for its role; None: the first
    num_fewshot: int | None = None  # None: as the task says
    fewshot_seed: int = 1234  # lm-eval's own


@dataclass
class EvalSettings:
    name: str = "???"
    kind: str = "choice"
    backend: str = "torch"
    batch_size: int | None = None  # sequences at once; None: as many as fit
    keyword: str = "SARS-CoV-2"
    neutral_keyword: str = "Lake Geneva"
    seed: int = 0
    replaced: int = 1
    policy: str = "random"
    add_bos_token: bool | None = None  # None: as the tokenizer does, and in the variant official no
    chat_template: bool = False  # lm-eval's --apply_chat_template, by the tokenizer's own template
    of_above: str = "keep"  # questions whose right answer speaks of other choices: keep | leave_out
    tasks: dict[str, TaskSettings] = field(default_factory=dict)
    include_path: str | None = None  # a folder of lm-eval task files of the user's own
    split: str = "all"
    race: bool = False  # a sweep's trials are asked block by block, as long as they may win; part of no key
    limit: int | None = None
    mmlu_path: str = "cais/mmlu"
    wmdp_path: str = "cais/wmdp"
    interim_every: int | None = None  # training steps between two interim evaluations; None: none
    interim_limit: int = 64
    interim_roles: list[str] | None = None  # whose tasks interim evaluations ask; None: all; []: what until is of
    max_documents: int = 200
    ngrams_path: str | None = None  # mined n-grams, whose groups `check` makes tasks of
    keywords: Any = None  # forget keywords in the place of the one, a list or a file with one a line
    place: str = "random"
    tofu_path: str = "locuslab/TOFU"
    tofu_split: str = "forget10"
    template: str | None = None  # of TOFU's questions; resolved by `check`: the forget set's
    max_new_tokens: int = 200  # of TOFU's written answers


@dataclass
class CacheSettings:
    enabled: bool = True
    max_gib: float = 10.0


@dataclass
class WandbSettings:
    mode: str = "offline"
    project: str = "rna"
    entity: str | None = None
    group: str | None = None
    dir: str | None = None  # where the runs' folders lie; None: output_dir

    def folder(self, output_dir: str) -> Path:
        """The runs' folders of an output folder."""
        return Path(self.dir or output_dir) / "wandb"


@dataclass
class Settings:
    """One trial. `alpha` is the retain weight by topic, `retain_loss` its loss's name; layers are resolved to lists."""

    method: Method = field(default_factory=Method)
    retain_loss: str = "???"
    retain: RetainLoss = field(default_factory=RetainLoss)
    alpha: dict[str, float] = field(default_factory=dict)
    defence: Defence = field(default_factory=lambda: Defence(name=UNDEFENDED))
    noise: NoiseSettings = field(default_factory=NoiseSettings)
    layer: LayerSettings = field(default_factory=LayerSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    forget_weights: ForgetWeightsSettings = field(default_factory=ForgetWeightsSettings)
    eval: EvalSettings = field(default_factory=EvalSettings)
    probe: Probe = field(default_factory=lambda: Probe(name=UNPROBED))
    wandb: WandbSettings = field(default_factory=WandbSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    variant: str = "paper"
    seed: int = 0
    baseline: str = "train"
    train_only: bool = False
    rerun: bool = False
    compare: list[str] = field(default_factory=list)  # shown beside this trial: 'PROTECTION KEY=VALUE …'; in no key
    keep: str = "all"  # which trained tensors a sweep leaves on disk: one of KEPT; part of no key
    output_dir: str = "outputs"
    notices: list[str] = field(default_factory=list)  # what `check` changed and a user should know; part of no key

    def for_training(self) -> "Settings":
        """The same without noise at inference, which trains the plain model."""
        return replace(self, noise=NoiseSettings(name="none", layers=[])) if self.noise.name == "inference" else self

    @property
    def defended(self) -> bool:
        """Whether a defence changes what is read of retain samples."""
        return self.defence.name != UNDEFENDED

    @property
    def probed(self) -> bool:
        """Whether a probe asks for what was unlearned, beside the evaluation."""
        return self.probe.name != UNPROBED

    @property
    def protected(self) -> bool:
        """Whether there is a plain twin: without noise, defence and what is done on the forget side."""
        return self.method.trains and (self.noise.name != "none" or bool(self.defences))

    @property
    def forget_side(self) -> dict[str, str]:
        """What is done for robustness where the forget loss is: option by group, none where it is the usual one."""
        chosen = {"optimizer": self.optimizer.name, "forget_weights": self.forget_weights.name}
        usual = {"optimizer": OptimizerSettings.name, "forget_weights": ForgetWeightsSettings.name}
        return {group: option for group, option in chosen.items() if option != usual[group]}

    @property
    def defences(self) -> list[str]:
        """What is done for robustness beside noise, as tables call it."""
        own = [self.defence.label or self.defence.name] if self.defended else []
        return [*own, *(f"{group.replace('_', ' ')} {option}" for group, option in self.forget_side.items())]

    def plain(self) -> "Settings":
        """The same method without noise, defence and what is done on the forget side."""
        return replace(
            self,
            noise=NoiseSettings(name="none", layers=[]),
            defence=Defence(name=UNDEFENDED),
            optimizer=OptimizerSettings(),
            forget_weights=ForgetWeightsSettings(),
        )

    def base(self) -> "Settings":
        """The model as it is, without any training."""
        return replace(self.plain(), method=made("none"), retain_loss="none", alpha={})

    def retrained(self) -> "Settings | None":
        """The model trained without the forget set, where there is one."""
        if not self.model.retrained:
            return None
        return replace(self.base(), model=replace(self.model, path=self.model.retrained, revision=None))

    def judged(self) -> ModelSettings:
        """The model that is loaded: the base, or with method=given what somebody else made of it."""
        given: Any = self.method
        return (
            replace(self.model, path=given.path, revision=given.revision) if self.method.name == "given" else self.model
        )

    def hashes(self) -> Path | None:
        """Where the hashes of large files are kept."""
        return hashes(self.output_dir) if self.cache.enabled else None


def hashes(output_dir: str) -> Path:
    return Path(output_dir) / "cache" / "hashes"


DEFENCES = ("defence", "optimizer", "forget_weights")  # what a plain twin's identity has not, beside noise
VARIANTS = ("paper", "official")
KEPT = ("all", "best", "none")
CHOICES: dict[str, tuple[str, ...]] = {  # key -> the words that it takes
    "noise.name": ("rna", "relative", "inference", "none"),
    "variant": VARIANTS,
    "keep": KEPT,
    "data.order": ("random", "file"),
    "baseline": ("train", "cached", "skip"),
    "noise.scale": ("std", "variance"),
    "layer.trainable": ("down_proj", "all"),
    "layer.site": ("residual", "mlp"),
    "model.dtype": ("float32", "bfloat16", "float16"),
    "eval.kind": ("choice", "perplexity"),
    "eval.backend": ("torch", "vllm"),
    "eval.split": ("all", "select", "report"),
    "eval.policy": ("random", "first", "last"),
    "eval.of_above": ("keep", "leave_out"),
    "eval.place": ("random", "start", "middle"),
}


def without_defaults(value: Any) -> Any:
    """A dataclass as a dict of what differs from its defaults: a new option with a neutral default changes no key."""
    if isinstance(value, dict):
        return {key: without_defaults(item) for key, item in value.items()}
    if not is_dataclass(value):
        return value
    neutral = type(value)()
    pairs = ((item.name, getattr(value, item.name)) for item in fields(value))
    return {key: without_defaults(item) for key, item in pairs if item != getattr(neutral, key)}
