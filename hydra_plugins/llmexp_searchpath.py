"""Hydra's search path: a user's own folders come before the shipped one, so that a copied option wins under its name.

Hydra itself would put `--config-dir` behind it. `llmexp.command_line` takes that flag and names the folders here.
"""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.plugins.search_path_plugin import SearchPathPlugin


class LlmexpSearchPath(SearchPathPlugin):
    """Puts the folders of `--config-dir` in front."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        from llmexp import command_line

        for folder in reversed(command_line.own_folders):
            search_path.prepend("command-line", f"file://{folder.resolve()}", SearchPathQuery(provider="main"))
