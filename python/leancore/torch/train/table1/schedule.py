"""The trainings of a table, one after the other; what is finished stays, what was interrupted goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from leancore.torch.train.config import TrainConfig
from leancore.torch.train.loop import TrainingDiverged, train
from leancore.torch.train.table1.runs import RunError, read_run, run_folder

# The A row of the paper's Table 1.
A_ROW = ("lean_resnet_a", "resnet_a", "mobilenet_v2_a", "shufflenet_v2_x0_5", "shift_resnet_a")


def configs(
    recipe: TrainConfig, models: Sequence[str], seeds: Sequence[int], rates: Mapping[str, float], out: str
) -> list[TrainConfig]:
    """The runs, resolved: every model with the first seed, then with the next one.

    Args:
        recipe: what they share; its model, seed, out, name and resume are replaced.
        rates: learning rates of single models.

    Raises:
        ValueError: an option that makes no sense, a rate of a model that is not trained, or a model or seed twice.
    """
    for what, given in (("models", models), ("seeds", seeds)):
        if len(set(given)) != len(given) or not given:
            raise ValueError(f"{what}: {', '.join(map(str, given)) or 'none'}, expected each once")
    if strange := rates.keys() - set(models):
        raise ValueError(f"a learning rate for {', '.join(sorted(strange))}, which is not among the models")
    return [
        replace(
            recipe,
            model=model,
            seed=seed,
            lr=rates.get(model, recipe.lr),
            out=str(run_folder(out, model, seed)),
            name=f"{model}-seed{seed}",
            resume=True,
        ).resolved()
        for seed in seeds
        for model in models
    ]


def run_all(runs: Sequence[TrainConfig], tell: Callable[[str], None]) -> list[str]:
    """Train what has not finished. Returns what diverged, in words; the other runs are done all the same.

    All finished runs are checked before any training begins.

    Raises:
        RunError: a run of another configuration is in its place.
        DataError, OSError: as `train` does.
    """
    finished = [is_finished(config) for config in runs]
    diverged = []
    for index, (config, done) in enumerate(zip(runs, finished, strict=True), 1):
        label = f"[{index}/{len(runs)}] {config.model}, seed {config.seed}"
        if done:
            tell(f"{label}: finished before, in {config.out}")
            continue
        tell(f"{label}: in {config.out}")
        try:
            train(config)
        except TrainingDiverged as error:
            diverged.append(f"{config.model}, seed {config.seed}: {error}")
            tell(f"{label}: {error}")
    return diverged


def is_finished(config: TrainConfig) -> bool:
    """Whether the folder of a resolved configuration holds this run, finished. Raises RunError if it holds another."""
    assert config.out is not None
    run = read_run(config.out)
    if run is None:
        return False
    if found := config.differences(dict(run.config)):
        raise RunError(
            f"{config.out}: holds a finished run of another configuration: {'; '.join(found)}; choose another --out or "
            "the same options"
        )
    return True
