"""The models that `quality.judge.model` names: options of conf/model, composed as the job's own model is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmexp.config import Config, Load, Model, load
from llmexp.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

KEY = "quality.judge.model"


def judges_of(config: Config, hydra: DictConfig) -> tuple[Model, ...]:
    """The judges of a job, in the order of their votes; none where no model grades it.

    Raises `ConfigError` for an option that does not exist or that is wrong.
    """
    if config.quality.kind != "judge":
        return ()
    known = {name: _model(name, hydra) for name in dict.fromkeys(config.quality.judge.models)}
    return tuple(known[name] for name in config.quality.judge.models)


def _model(name: str, hydra: DictConfig) -> Model:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
    from hydra.errors import ConfigCompositionException, MissingConfigException
    from hydra.types import RunMode
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = ConfigSearchPathImpl()
    for source in hydra.runtime.config_sources:
        path.append(provider=source.provider, path=f"{source.schema}://{source.path}")
    loader = ConfigLoaderImpl(path)
    try:
        composed = loader.load_configuration(
            config_name=hydra.job.config_name, overrides=[f"model={name}"], run_mode=RunMode.RUN
        )
        parts = {name: OmegaConf.to_container(composed[name], resolve=True) for name in ("model", "workload")}
    except MissingConfigException as error:
        options = loader.get_group_options("model")
        if name in options:  # it builds on one that is not there
            raise ConfigError(f"{KEY}: '{name}' cannot be composed ({str(error).splitlines()[0]})") from None
        raise ConfigError(f"{KEY}: must be an option of conf/model ({', '.join(options)}), got '{name}'") from None
    except (ConfigCompositionException, OmegaConfBaseException) as error:
        raise ConfigError(f"{KEY}: '{name}' cannot be composed ({str(error).splitlines()[0]})") from None
    try:
        return load(parts).model
    except ConfigError as error:
        raise ConfigError("\n".join(f"{KEY} ({name}): {line}" for line in str(error).splitlines())) from None


def problems(judges: tuple[Model, ...], config: Config) -> list[str]:
    """What this machine lacks to ask the judges."""
    from llmexp import endpoints
    from llmexp.clients import credentials

    found: list[str] = []
    for judge in dict.fromkeys(model.name for model in judges):
        model = next(each for each in judges if each.name == judge)
        try:
            endpoints.check(model, rehearse=config.rehearse, starts=not config.dry_run)
        except ConfigError as error:
            found += str(error).splitlines()
        if not (config.rehearse or config.dry_run):
            found += credentials.problems(model)
    return [f"{KEY}: {line}" for line in found]


def judges_configs(config: Config, judges: tuple[Model, ...]) -> list[Config]:
    """What the judges' loads use of a cluster: nodes are asked for their credentials too, before the first load."""
    load = {"load": Load(), "concurrency": config.quality.judge.concurrency}
    return [config.model_copy(update={"model": judge, **load}) for judge in judges]
