"""What ran and from what: recipe, models, data, code, machine, attempts."""

from collections.abc import Iterator

from densekit.audit.report.facts import Fact, Problem, Section
from densekit.audit.run_reader import RecordedRun
from densekit.audit.wording import count_of, shown
from densekit.runs.environment import Environment
from densekit.runs.layout import CERTIFICATE_FILE, MATH_FILE, STATUS_FILE
from densekit.runs.manifest import MANIFEST_FILE
from densekit.spec.execution import Execution
from densekit.spec.ledger import ledger_lines
from densekit.spec.math import Math

PACKAGES = ("torch", "transformers", "accelerate", "deepspeed", "peft", "flash-attn", "xformers")
"""Whose versions a page shows; environment.json has all of them."""


def origin_sections(run: RecordedRun) -> Iterator[Section]:
    """What is known of a run before its first step."""
    if run.math is not None:
        yield Section(title="What ran", facts=tuple(_recipe_facts(run, run.math.recipe)))
        yield Section(title="From what", facts=tuple(_source_facts(run, run.math.recipe)))
    facts = [*_environment_facts(run.environment), *_execution_facts(run.execution)]
    if facts:
        yield Section(title="Where and how", facts=tuple(facts))
    if run.math is not None:
        dtype = run.execution.dtype if run.execution else "bf16"
        lines = tuple(ledger_lines(run.math.recipe, dtype))
        yield Section(title="Ledger: behaviours of the official code that acted", lines=lines)


def origin_problems(run: RecordedRun) -> Iterator[Problem]:
    """What a reader has to know of how a run came about."""
    if run.status is not None and run.status.state != "complete":
        reason = f": {run.status.message}" if run.status.message else ""
        steps = count_of(len(run.steps), "step")
        message = f"unfinished: the run is {run.status.state} after {steps}{reason}"
        yield Problem(level="warn", message=message)
    environment = run.environment
    if environment is not None and environment.git is not None and environment.git.dirty:
        message = f"the code differed from commit {environment.git.commit[:10]} when this ran"
        yield Problem(level="warn", message=message)
    elif environment is not None and environment.git is None:
        yield Problem(level="note", message="no commit of the code is on record")
    if run.environment is not None and not run.environment.devices:
        yield Problem(level="note", message="this ran on CPU: its speed says nothing of a GPU's")
    if run.math is not None and run.math.recipe.assets is not None:
        yield Problem(
            level="note",
            message="data and models of this recipe are made by the kit (tiny shapes): its scores "
            "say nothing of the paper's",
        )


def _recipe_facts(run: RecordedRun, math: Math) -> Iterator[Fact]:
    def fact(label: str, value: object, file: str = MATH_FILE) -> Fact:
        return Fact(label=label, value=str(value), file=file)

    assert run.math is not None
    yield fact("recipe", math.name)
    yield fact("run", run.math.sha256)
    trains = {"connector": "the connector", "lora": "connector and LoRA adapters"}
    yield fact("stage", f"{math.stage}: {trains.get(math.trains, 'connector and language model')}")
    kind = math.connector.kind
    layers = math.connector.layers or math.connector.groups
    yield fact("connector", f"{kind}, hidden states {_layers(layers)}" if layers else kind)
    optimizer = math.optimizer
    yield fact(
        "optimizer",
        f"AdamW, learning rate {optimizer.learning_rate:g}"
        + (
            f" (connector {optimizer.connector_learning_rate:g})"
            if optimizer.connector_learning_rate
            else ""
        )
        + f", weight decay {optimizer.weight_decay:g}, warm-up {optimizer.warmup_ratio:.0%}, "
        f"{optimizer.schedule} decay, {count_of(optimizer.epochs, 'epoch')}",
    )
    reference = math.reference
    yield fact(
        "global batch",
        f"{math.global_batch_size} (reference topology {reference.gpus} x "
        f"{reference.per_device_batch_size} x {reference.grad_accum_steps})",
    )
    yield fact("seed", math.seed)
    if run.status is not None:
        yield fact("state", run.status.state, STATUS_FILE)
        yield fact("attempts", run.status.attempt, STATUS_FILE)


def _layers(layers: object) -> str:
    return str(layers).replace("(", "[").replace(",)", "]").replace(")", "]")


def _source_facts(run: RecordedRun, math: Math) -> Iterator[Fact]:
    assert run.math is not None
    starts_from = run.math.starts_from
    yield Fact(label="starts from run", value=starts_from or "none: stage 1", file=MATH_FILE)
    references = {
        "language model": (math.models.language_model, "language_model"),
        "vision tower": (math.models.vision_tower, "vision_tower"),
        "tokenizer": (math.models.tokenizer_folder, "tokenizer"),
    }
    if math.models.high_resolution_tower is not None:
        second = (math.models.high_resolution_tower, "high_resolution_tower")
        references["high-resolution tower"] = second
    manifest = run.manifest
    for label, (reference, name) in references.items():
        yield Fact(label=label, value=reference, file=MATH_FILE)
        if manifest is not None and (files := manifest.models.get(name)) is not None:
            known = f"commit {files.revision}" if files.revision else "no commit known"
            value = f"{known}; {count_of(len(files.files), 'file')} hashed"
            yield Fact(label=f"{label}: what was read", value=value, file=MANIFEST_FILE)
    yield Fact(label="annotations", value=math.data.annotations, file=MATH_FILE)
    if manifest is not None:
        yield Fact(
            label="annotations: SHA-256",
            value=manifest.data.annotations_sha256,
            file=MANIFEST_FILE,
        )
        root = manifest.data.certificate_root
        value = root or "none: the images' bytes were not certified"
        yield Fact(label="data certificate", value=value, file=MANIFEST_FILE)
        certified = manifest.certificate
        yield Fact(
            label="batch certificate",
            value=f"{shown(certified.sha256)}; {count_of(certified.steps, 'step')}, "
            f"{certified.samples_dropped} samples dropped, {certified.samples_repeated} repeated",
            file=CERTIFICATE_FILE,
        )
        if manifest.init_sha256:
            label = "weights at step 0: SHA-256"
            yield Fact(label=label, value=manifest.init_sha256, file=MANIFEST_FILE)


def _environment_facts(environment: Environment | None) -> Iterator[Fact]:
    if environment is None:
        return

    def fact(label: str, value: str) -> Fact:
        return Fact(label=label, value=value, file=MANIFEST_FILE)

    git = environment.git
    commit = f"{git.commit}{' (with changes)' if git.dirty else ''}" if git else "not known"
    yield fact("densekit", f"{environment.densekit}, commit {commit}")
    yield fact("container image", environment.image or "none")
    versions = [
        f"{name} {environment.packages[name]}" for name in PACKAGES if name in environment.packages
    ]
    yield fact("packages", ", ".join([f"Python {environment.python}", *versions]))
    names = sorted({device.name for device in environment.devices})
    cpu = environment.cpu.model if environment.cpu else "CPU"
    yield fact("device", ", ".join(names) or f"{cpu}, {count_of(environment.processors, 'core')}")
    variables = [f"{name}={value}" for name, value in environment.variables.items()]
    yield fact("variables that can change bits", " ".join(variables) or "none set")


def _execution_facts(execution: Execution | None) -> Iterator[Fact]:
    if execution is None:
        return
    yield Fact(
        label="execution",
        value=f"{execution.describe()}; micro-batches of {execution.micro_batch_size}"
        + (
            f", at most {execution.tokens_per_micro_batch:,} tokens"
            if execution.tokens_per_micro_batch
            else ""
        )
        + f"; {count_of(execution.workers, 'data worker')} a rank",
        file=MANIFEST_FILE,
    )
    if execution.deterministic:
        yield Fact(label="deterministic kernels", value="asked for", file=MANIFEST_FILE)
