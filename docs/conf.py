"""Sphinx builds these pages into a site: `python scripts/build_site.py`. It needs no network."""

project = "llmexp"
author = "the llmexp authors"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "llmexp"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
exclude_patterns = ["_build"]
myst_enable_extensions = ["tasklist"]
myst_heading_anchors = 3
# Pages link to the README and to files of the repository; those links are checked by tests/test_docs.py.
suppress_warnings = ["myst.xref_missing"]
