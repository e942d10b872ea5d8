"""How Sphinx builds the documentation: `make docs`."""

import parallelkit

project = "parallelkit"
author = "the parallelkit authors"
copyright = "the parallelkit authors, MIT licence"
version = release = parallelkit.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
nb_execution_mode = "off"  # tests/test_notebooks.py executes it, and compares
default_role = "code"
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature of run_parallel in full is a screenful; types are in the text

html_theme = "furo"
html_title = "parallelkit"
html_theme_options = {"navigation_with_keys": True}
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["width.css"]
